"""A fair queue for turns: each owner gets the next turn in rotation. Pure.

The number of turns is limited, and one owner may have only a part of them, so that an owner with
slow transfers leaves turns to other owners. The number of waiting tickets is limited, too.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

WAITING_MAX = 256  # of all owners together
# Within the 30 s of `TRANSFER_TURN_WAIT_S`, 16 turns can end three times, because the rate of a
# contended transfer is checked after `CONTENDED_RATE_WINDOW_S`.
OWNER_WAITING_MAX = 48


@dataclass(eq=False, slots=True)
class TurnTicket:
    """One request for a turn.

    Attributes:
        decide: called once, at any time: True, the ticket has its turn; False, it is refused.
        is_running: the ticket has its turn.
    """

    owner: str
    decide: Callable[[bool], None]
    is_running: bool = False


class TurnQueue:
    """The turns of one kind of transfer.

    Args:
        turns_max: the number of turns.
        owner_max: the number of turns that one owner may have.
    """

    def __init__(self, turns_max: int, owner_max: int) -> None:
        self.turns_max = turns_max
        self.owner_max = owner_max
        self._running: Counter[str] = Counter()
        # In the order of their next turn: an owner goes to the end when it gets a turn.
        self._waiting: dict[str, deque[TurnTicket]] = {}

    def enter(self, ticket: TurnTicket) -> None:
        """Give the ticket a turn, or let it wait.

        Beyond `OWNER_WAITING_MAX` the owner's newest ticket is refused; beyond `WAITING_MAX` the
        newest ticket of the owner with the most waiting tickets.
        """
        tickets = self._waiting.setdefault(ticket.owner, deque())
        tickets.append(ticket)
        self._admit()
        if len(tickets) > OWNER_WAITING_MAX:
            self._refuse_newest(ticket.owner)
        elif sum(map(len, self._waiting.values())) > WAITING_MAX:
            self._refuse_newest(max(self._waiting, key=lambda owner: len(self._waiting[owner])))

    def leave(self, ticket: TurnTicket) -> None:
        """End the ticket's turn, or remove the waiting ticket."""
        if ticket.is_running:
            ticket.is_running = False
            self._running[ticket.owner] -= 1
            self._running += Counter()  # remove owners without a turn
        elif ticket in (tickets := self._waiting.get(ticket.owner, deque())):
            tickets.remove(ticket)
            if not tickets:
                del self._waiting[ticket.owner]
        self._admit()

    def is_contended(self, owner: str) -> bool:
        """Return whether a waiting ticket could use a turn of this owner."""
        is_full = self._running.total() >= self.turns_max
        return owner in self._waiting or (is_full and bool(self._waiting))

    def _admit(self) -> None:
        while self._running.total() < self.turns_max:
            for owner in self._waiting:
                if self._running[owner] < self.owner_max:
                    break
            else:
                return
            tickets = self._waiting.pop(owner)
            ticket = tickets.popleft()
            if tickets:
                self._waiting[owner] = tickets
            self._running[owner] += 1
            ticket.is_running = True
            ticket.decide(True)

    def _refuse_newest(self, owner: str) -> None:
        ticket = self._waiting[owner].pop()
        if not self._waiting[owner]:
            del self._waiting[owner]
        ticket.decide(False)
