"""Who has a turn, and who is next: owners take turns, whoever of them asks more often. Pure.

So many turns at once, and at most a part of them for one owner, so that somebody who sends nothing
for as long as possible leaves turns to the others. The line of those who wait is bounded, too.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

WAITING_MAX = 256  # of all owners together
OWNER_WAITING_MAX = 48  # sixteen turns of `WANTED_S` each are over three times within half a minute


@dataclass(eq=False, slots=True)
class TurnTicket:
    """One place in the line.

    Attributes:
        decide: called once, at any time: whether its turn has come, or it was refused.
    """

    owner: str
    decide: Callable[[bool], None]
    is_running: bool = False


class TurnLine:
    """The turns of one kind of transfer.

    Args:
        at_once: turns that there are.
        owner_max: of these, how many one owner may have.
    """

    def __init__(self, at_once: int, owner_max: int) -> None:
        self.at_once = at_once
        self.owner_max = owner_max
        self._running: Counter[str] = Counter()
        # The owner at the front had a turn longest ago.
        self._waiting: dict[str, deque[TurnTicket]] = {}

    def enter(self, ticket: TurnTicket) -> None:
        """Have a turn, or wait for one; who asks for too many is refused."""
        line = self._waiting.setdefault(ticket.owner, deque())
        line.append(ticket)
        self._admit()
        if len(line) > OWNER_WAITING_MAX:
            self._refuse_last(ticket.owner)
        elif sum(map(len, self._waiting.values())) > WAITING_MAX:
            self._refuse_last(max(self._waiting, key=lambda owner: len(self._waiting[owner])))

    def leave(self, ticket: TurnTicket) -> None:
        """Give the turn back, or the place in the line."""
        if ticket.is_running:
            ticket.is_running = False
            self._running[ticket.owner] -= 1
            self._running += Counter()  # forget those who have none
        elif ticket in (line := self._waiting.get(ticket.owner, deque())):
            line.remove(ticket)
            if not line:
                del self._waiting[ticket.owner]
        self._admit()

    def is_wanted(self, owner: str) -> bool:
        """Say whether somebody waits for a turn that this owner has."""
        is_full = self._running.total() >= self.at_once
        return owner in self._waiting or (is_full and bool(self._waiting))

    def _admit(self) -> None:
        while self._running.total() < self.at_once:
            for owner in self._waiting:
                if self._running[owner] < self.owner_max:
                    break
            else:
                return
            line = self._waiting.pop(owner)
            ticket = line.popleft()
            if line:
                self._waiting[owner] = line
            self._running[owner] += 1
            ticket.is_running = True
            ticket.decide(True)

    def _refuse_last(self, owner: str) -> None:
        ticket = self._waiting[owner].pop()
        if not self._waiting[owner]:
            del self._waiting[owner]
        ticket.decide(False)
