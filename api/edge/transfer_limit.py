"""Limits on a node's uploads and downloads: their number, their duration, their rate, the drain.

api/edge/turn_queue.py decides which transfer has a turn, and api/edge/transfer_rate.py decides
whether the peer is fast enough. Knows nothing of files or forms.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from api.edge import transfer_rate
from api.edge.transfer_rate import TransferRate
from api.edge.turn_queue import TurnQueue, TurnTicket
from api.errors import request_error
from shared.errors import Draining, RequestError

UPLOADS_AT_ONCE = 16  # each keeps a few MB that the store has not taken yet
UPLOADS_OF_OWNER = 4
DOWNLOADS_AT_ONCE = 256  # each keeps one piece and an open object
DOWNLOADS_OF_OWNER = 32
TRANSFER_TURN_WAIT_S = 30.0  # a transfer waits at most so long for its turn
TRANSFER_S_MAX = 3_600.0
RATE_CHECK_S = 1.0  # between two checks of the peer's rate
TRANSFER_RETRY_AFTER_S = 5


class TransferTurn:
    """One transfer that has its turn.

    Attributes:
        moved: returns the bytes that the peer has sent, or read, so far.
    """

    def __init__(self, is_contended: Callable[[], bool]) -> None:
        self.moved: Callable[[], int] = lambda: 0
        self._is_contended = is_contended
        self._rate = TransferRate()
        self._waited_s = 0.0  # for the peer, without the current wait
        self._since_s: float | None = None  # the beginning of the current wait
        self._limit: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Mark a block that waits for the peer and for nothing else.

        Raises:
            RequestError: 408, the peer is slower than `transfer_rate.RATE_BYTES_S_MIN`.
        """
        loop = asyncio.get_running_loop()
        self._since_s = loop.time()
        try:
            async with asyncio.timeout(None) as self._limit:
                yield
        except TimeoutError:
            raise too_slow(self._window_s()) from None
        finally:
            self._waited_s += loop.time() - self._since_s
            self._since_s = self._limit = None

    def start(self) -> None:
        """Start the checks of the peer's rate."""
        self._timer = asyncio.get_running_loop().call_later(RATE_CHECK_S, self._check_rate)

    def stop(self) -> None:
        """Stop the checks of the peer's rate."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _window_s(self) -> float:
        if self._is_contended():
            return min(transfer_rate.CONTENDED_RATE_WINDOW_S, transfer_rate.RATE_WINDOW_S)
        return transfer_rate.RATE_WINDOW_S

    def _check_rate(self) -> None:
        now_s = asyncio.get_running_loop().time()
        waited_s = self._waited_s
        if self._since_s is not None:
            waited_s += now_s - self._since_s
        is_slow = self._rate.is_slow(waited_s, self.moved(), self._window_s())
        # Without a limit, this side does not wait for the peer: the peer has just moved bytes.
        if is_slow and self._limit is not None and not self._limit.expired():
            self._limit.reschedule(now_s)
        # Go on checking: bytes that arrive at this moment end the wait before its limit does.
        self.start()


class TransferLimit:
    """The turns of a node's uploads, or of its downloads.

    Args:
        turns_max: the number of turns.
        owner_max: the number of turns that one owner may have.
    """

    def __init__(self, turns_max: int, owner_max: int) -> None:
        self._queue = TurnQueue(turns_max, owner_max)
        self._running: set[asyncio.Timeout] = set()
        self._is_idle = asyncio.Event()
        self._is_draining = False

    def share_freely(self) -> None:
        """Let one owner have all turns: on a node without keys all clients are one owner."""
        self._queue.owner_max = self._queue.turns_max

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[TransferTurn]:
        """Wait for a turn, and keep it for the duration of the block.

        Raises:
            RequestError: 429, no turn within `TRANSFER_TURN_WAIT_S`, or too many transfers wait;
                408, the block took longer than `TRANSFER_S_MAX`, or the peer is too slow; 503, the
                node drains and cannot wait any longer.
        """
        ticket = await self._enter(owner)
        turn = TransferTurn(lambda: self._queue.is_contended(owner))
        limit = asyncio.timeout(TRANSFER_S_MAX)
        try:
            if self._is_draining:
                raise Draining()
            async with limit:
                self._running.add(limit)
                turn.start()
                yield turn
        except TimeoutError:
            if self._is_draining:
                raise Draining() from None
            message = f"this was not complete after {TRANSFER_S_MAX:.0f} s"
            raise request_error("request_timeout", message) from None
        finally:
            turn.stop()
            self._running.discard(limit)
            self._queue.leave(ticket)
            if not self._running:
                self._is_idle.set()

    async def _enter(self, owner: str) -> TurnTicket:
        decided: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def decide(has_turn: bool) -> None:
            if not decided.done():
                decided.set_result(has_turn)

        ticket = TurnTicket(owner, decide)
        try:
            self._queue.enter(ticket)
            async with asyncio.timeout(TRANSFER_TURN_WAIT_S):
                if await decided:
                    return ticket
        except BaseException as exc:
            self._queue.leave(ticket)
            if isinstance(exc, TimeoutError):
                raise too_many_transfers() from None
            raise
        raise too_many_transfers()

    async def drain(self, within_s: float) -> None:
        """Return when no transfer runs; transfers that take longer than `within_s` get 503."""
        self._is_draining = True
        deadline_s = asyncio.get_running_loop().time() + within_s
        for limit in self._running:
            if not limit.expired():  # an expired one cleans up, and cannot be rescheduled
                limit.reschedule(deadline_s)
        while self._running:
            self._is_idle.clear()
            await self._is_idle.wait()


def too_many_transfers() -> RequestError:
    """Return the 429 error for a transfer without a turn."""
    return request_error(
        "too_many_transfers",
        "too many uploads or downloads are under way or wait: wait until some of yours have ended",
        retry_after_s=TRANSFER_RETRY_AFTER_S,
    )


def too_slow(window_s: float) -> RequestError:
    """Return the 408 error for a peer below the minimum rate over `window_s` seconds."""
    message = (
        f"a transfer must move {transfer_rate.RATE_BYTES_S_MIN} bytes a second, "
        f"over {window_s:g} s: this one did not"
    )
    return request_error("request_timeout", message)
