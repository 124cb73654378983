"""Decides what to do with each reply of a cluster. Pure.

    reply                          the call
    MOVED slot host:port           goes to that master at once; the map learns it
    ASK slot host:port             goes to that server once, after ASKING on the same connection
    TRYAGAIN, …DOWN                goes to the master of its slot again after a pause
    NOSCRIPT                       goes there again after the script was loaded at that server
    never sent, another master     goes to the other master
    anything else                  is done: also errors, and replies of a call that may have run

A call is sent at most `SENDINGS_MAX` times, and not after the deadline. Then its last error is its
reply. Invariant: a call whose reply was lost is never sent again, because only the caller knows
which call is safe to repeat.
Source: redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec, "Redirection and
resharding".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis import exceptions

from shared.config.redis_hosts import HostPort
from shared.redis.cluster.slot_map import SlotMap

SENDINGS_MAX = 16  # of one call
PATIENCE_S = 0.1  # for calls that have to wait while the others of their exchange are done
TRYAGAIN_PAUSES_S = (
    0.02,
    0.2,
)  # first and longest pause before a call that was answered TRYAGAIN goes again
WAITING = ("TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN")
ABSENT = "no master is known for the slot"


class Target(NamedTuple):
    """Where calls go. `is_asking`: each one follows an ASKING."""

    address: HostPort
    is_asking: bool = False


@dataclass(slots=True)
class _Pending:
    slot: int | None
    sendings: int = 0
    pauses: int = 0
    at_s: float = 0.0  # not before this time
    to: Target | None = None  # None: where the map says
    needs_script: bool = False
    reply: Any = None
    is_done: bool = False


class Redirects:
    """The calls of one exchange, until each has its reply.

    Args:
        slots: of the calls; None: any master may run the call.
        deadline_s: after this time nothing is sent again, loop time.

    Attributes:
        lost: the calls that no server has answered, by index.
    """

    def __init__(
        self, slots: Sequence[int | None], slot_map: SlotMap, *, deadline_s: float
    ) -> None:
        self._calls = [_Pending(slot) for slot in slots]
        self._map = slot_map
        self._deadline_s = deadline_s
        self.lost: set[int] = set()
        self._patience_until_s: float | None = None

    @property
    def is_done(self) -> bool:
        return all(call.is_done for call in self._calls)

    @property
    def replies(self) -> list[Any]:
        """The replies in the order of the calls."""
        return [call.reply for call in self._calls]

    def needs_script(self, index: int) -> bool:
        """Whether the script of this call has to be loaded at its target first."""
        return self._calls[index].needs_script

    def due(self, now: float) -> dict[Target, list[int]]:
        """Return the calls to send now, by target, in order; they count as sent.

        A call whose slot has no known master is done, with an error.
        """
        found: dict[Target, list[int]] = {}
        for index, call in enumerate(self._calls):
            if call.is_done or call.at_s > now:
                continue
            master = self._map.master_of(call.slot)
            target = call.to or (None if master is None else Target(master))
            if target is None:
                self._lose(index, exceptions.ConnectionError(ABSENT))
                continue
            call.sendings += 1
            found.setdefault(target, []).append(index)
        return found

    def pause_s(self, now: float) -> float:
        """Return how long nothing is due, s."""
        waiting = [call.at_s for call in self._calls if not call.is_done]
        return max(0.0, min(waiting, default=now) - now)

    def take(self, index: int, target: Target, reply: Any, now: float) -> None:
        """Take the reply of a call that was sent to `target`."""
        call = self._calls[index]
        if not isinstance(reply, exceptions.RedisError):  # nearly always
            call.reply, call.is_done, call.needs_script = reply, True, False
            return
        call.reply, call.to, call.needs_script = reply, None, False
        word, _, rest = _text(reply).partition(" ")
        is_over = call.sendings >= SENDINGS_MAX or now >= self._deadline_s
        if word in ("MOVED", "ASK"):
            slot, address = read_redirection(rest, target.address)
            if word == "MOVED":
                self._map.note_moved(slot, address)
            call.to = Target(address, is_asking=word == "ASK")
        elif word in WAITING:
            if word != "TRYAGAIN":
                self._map.note_refusal()
            call.at_s = now + min(TRYAGAIN_PAUSES_S[0] * 2**call.pauses, TRYAGAIN_PAUSES_S[1])
            call.pauses += 1
            is_over = is_over or call.at_s >= self._waiting_until_s(now)
        elif isinstance(reply, exceptions.NoScriptError):
            call.to, call.needs_script = target, True
        else:
            is_over = True
        if is_over:
            self._finish(call, reply)

    def _waiting_until_s(self, now: float) -> float:
        """Return until when calls that were refused for now are sent again, loop time.

        A call alone waits until the deadline. Calls beside others wait `PATIENCE_S` from the first
        refusal on, because the caller gets no reply before the last one.
        """
        if len(self._calls) == 1:
            return self._deadline_s
        if self._patience_until_s is None:
            self._patience_until_s = now + PATIENCE_S
        return min(self._deadline_s, self._patience_until_s)

    def lose(self, indices: Sequence[int], target: Target, error: Exception) -> None:
        """Take note that the replies of these calls are lost: each may have run."""
        self._map.note_lost(target.address)
        for index in indices:
            self._lose(index, error)

    def never_sent(self, indices: Sequence[int], target: Target, error: Exception) -> None:
        """Take note that no connection could be made. Call this after the map was read again."""
        for index in indices:
            call = self._calls[index]
            call.to = None
            if self._map.master_of(call.slot) in (None, target.address):
                self._lose(index, error)
            elif call.sendings >= SENDINGS_MAX:
                self._lose(index, error)

    def _lose(self, index: int, error: Exception) -> None:
        self.lost.add(index)
        self._finish(self._calls[index], error)

    def _finish(self, call: _Pending, reply: Any) -> None:
        call.reply, call.is_done = reply, True


def _text(reply: Any) -> str:
    """Return the text of an error reply; "": the reply is no error."""
    return str(reply) if isinstance(reply, exceptions.ResponseError) else ""


def read_redirection(rest: str, asked: HostPort) -> tuple[int, HostPort]:
    """Read `slot host:port`. Without a host it is that of `asked`, the server that answered."""
    slot, _, place = rest.partition(" ")
    host, _, port = place.rpartition(":")
    return int(slot), (host or asked[0], int(port))
