"""The memory of a node for bodies that arrive, or are about to be accepted.

Every HTTP body and every large WebSocket message takes bytes of one budget while it arrives, and
gives the bytes back when its prompt was accepted or refused, or its client has left. The first
`UNCOUNTED_BYTES` of a body take nothing, so that small requests pass while large ones fill the
budget. Bodies above `LARGE_BODY_BYTES` leave a reserve to smaller bodies.

A slow client must not keep others out: when the budget is full, a body that has been arriving for
longer than `PATIENCE_S` is given up for a new one. `ArrivalPace` ends a body that hardly arrives.

Invariant: `used` never exceeds `bytes_max`. Does no I/O and knows no HTTP; the caller gives the
time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from api.errors import RETRY_AFTER_S, request_error
from shared.errors import RequestError

UNCOUNTED_BYTES = 65_536  # of each body; the server's read buffer is as large
LARGE_BODY_BYTES = 1_048_576  # larger bodies leave the reserve to others
RESERVE_SHARE = 0.25  # of the budget, for bodies that are not large
# For this time a body is not ended for being slow. After it, a body is ended if it is too slow, or
# if other bodies need its room.
PATIENCE_S = 30.0
# After `PATIENCE_S` each further piece of this size must arrive within `PIECE_S`: 16 KiB a second.
PIECE_BYTES, PIECE_S = 262_144, 16.0
# Large bodies that are decoded, encoded and sent to Redis at once: each takes several times its
# size meanwhile.
LARGE_AT_ONCE = 3
LARGE_BODY_TURN_WAIT_S = 3.0


class ArrivalPace:
    """The time by which a body must be complete, or must have made progress. Pure.

    Args:
        patience_s: the time that it may take in any case.
    """

    __slots__ = ("_mark", "_patient_until_s", "due_s")

    def __init__(self, now_s: float, patience_s: float = PATIENCE_S) -> None:
        self._mark = PIECE_BYTES
        self.due_s = self._patient_until_s = now_s + patience_s

    def note(self, received: int, now_s: float) -> float:
        """Note that `received` bytes have arrived in all; return the new `due_s`."""
        if received >= self._mark:
            self._mark = received + PIECE_BYTES
            self.due_s = max(self._patient_until_s, now_s + PIECE_S)
        return self.due_s

    @staticmethod
    def complaint() -> str:
        """Return the message for a body that is too slow."""
        return (
            f"the body was not complete after {PATIENCE_S:.0f} seconds, and came slower than "
            f"{round(PIECE_BYTES / PIECE_S)} bytes a second"
        )


class BodyHold:
    """The bytes of the budget that one body has taken.

    Attributes:
        size: bytes of the body so far, also those that are not counted.
        on_given_up: called at most once, when the budget is full and this body is given up. It must
            end the reading; the bytes have already been given back.
        is_given_up: the body may take no more bytes.
    """

    __slots__ = ("_counted", "_room", "_since_s", "is_given_up", "on_given_up", "size")

    def __init__(self, room: BodyRoom) -> None:
        self._room = room
        self._counted = 0
        self._since_s = 0.0
        self.size = 0
        self.is_given_up = False
        self.on_given_up: Callable[[], None] | None = None

    def grow(self, count: int, now_s: float) -> None:
        """Take `count` more bytes.

        Raises:
            RequestError: 503 `bodies_full`; all bytes of this body have been given back.
        """
        if self.is_given_up:
            raise bodies_full()
        self.size += count
        more = max(0, self.size - UNCOUNTED_BYTES) - self._counted
        if more <= 0:
            return
        if not self._counted:
            self._since_s = now_s
        if not self._room.take(self, more, now_s):
            self.release()
            self.is_given_up = True
            raise bodies_full()
        self._counted += more

    def complete(self) -> None:
        """Note that the whole body is here: it is not given up for another one any more."""
        self.on_given_up = None

    def release(self) -> None:
        """Give all bytes back. May be called again."""
        self.on_given_up = None  # it may hold the body
        self._room.give_back(self, self._counted)
        self._counted = 0

    @property
    def counted(self) -> int:
        return self._counted

    def may_be_given_up(self, now_s: float) -> bool:
        """Whether this body still arrives, and has been arriving for longer than `PATIENCE_S`."""
        return self.on_given_up is not None and now_s - self._since_s > PATIENCE_S

    def give_up(self) -> None:
        """Give all bytes back, and end the reading of this body."""
        on_given_up, self.on_given_up = self.on_given_up, None
        self.release()
        self.is_given_up = True
        if on_given_up is not None:
            on_given_up()


class BodyRoom:
    """The budget of one node.

    Args:
        bytes_max: of all bodies together, at least the size of the largest allowed body.
        body_bytes_max: of one body; the reserve leaves room for one.

    Attributes:
        used: bytes that are taken now.
        refusals: bodies that found no room, or were given up, since the start.
    """

    def __init__(self, bytes_max: int, body_bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.used = 0
        self.refusals = 0
        reserve = min(round(bytes_max * RESERVE_SHARE), bytes_max - body_bytes_max)
        self._large_max = bytes_max - max(0, reserve)
        self._holds: dict[BodyHold, None] = {}  # those with counted bytes, the oldest first
        self._turns = asyncio.Semaphore(LARGE_AT_ONCE)

    def hold(self) -> BodyHold:
        """Return the hold of a new body; it takes nothing yet. The caller must release it."""
        return BodyHold(self)

    @asynccontextmanager
    async def body(self) -> AsyncIterator[BodyHold]:
        """Hold a new body for the duration of the block."""
        hold = self.hold()
        try:
            yield hold
        finally:
            hold.release()

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """Wait for a turn to work on a body of `size` bytes; bodies that are not large need none.

        Raises:
            RequestError: 503 `bodies_full`, no turn within `LARGE_BODY_TURN_WAIT_S`.
        """
        if size <= LARGE_BODY_BYTES:
            yield
            return
        try:
            async with asyncio.timeout(LARGE_BODY_TURN_WAIT_S):
                await self._turns.acquire()
        except TimeoutError:
            self.refusals += 1
            raise bodies_full() from None
        try:
            yield
        finally:
            self._turns.release()

    def take(self, hold: BodyHold, count: int, now_s: float) -> bool:
        """Take `count` bytes for `hold`, if need be by giving up bodies that arrive slowly."""
        limit = self._large_max if hold.size > LARGE_BODY_BYTES else self.bytes_max
        if self.used + count > limit and not self._make_room(
            hold, self.used + count - limit, now_s
        ):
            self.refusals += 1
            return False
        self.used += count
        self._holds[hold] = None
        return True

    def _make_room(self, hold: BodyHold, count: int, now_s: float) -> bool:
        """Give up bodies that arrive slowly, the oldest first, until `count` bytes are free.

        Returns:
            False: all of them together are not enough, and none was given up.
        """
        slow = [held for held in self._holds if held is not hold and held.may_be_given_up(now_s)]
        if sum(held.counted for held in slow) < count:
            return False
        freed = 0
        for held in slow:
            if freed >= count:
                break
            freed += held.counted
            self.refusals += 1
            held.give_up()
        return True

    def give_back(self, hold: BodyHold, count: int) -> None:
        """Give back `count` bytes, all that `hold` has taken."""
        self.used -= count
        self._holds.pop(hold, None)


def bodies_full() -> RequestError:
    """Return the 503 error for a body without room."""
    return request_error(
        "bodies_full",
        "this node holds as many bytes of large requests as TAILRACE_BODIES_BYTES_MAX allows: "
        "send the request again",
        retry_after_s=RETRY_AFTER_S,
    )
