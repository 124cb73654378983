"""Transfers under way on a node: so many at once, none without end, all over when it drains.

Whose turn it is says api/edge/turn_line.py, and whether the peer is fast enough api/edge/pace.py.
Knows nothing of files or forms.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from api.edge import pace
from api.edge.pace import Pace
from api.edge.turn_line import TurnLine, TurnTicket
from api.errors import request_error
from shared.errors import Draining, RequestError

UPLOADS_AT_ONCE = 16  # each keeps a few MB on their way to the store
UPLOADS_OF_OWNER = 4
DOWNLOADS_AT_ONCE = 256  # each keeps a piece and an open object
DOWNLOADS_OF_OWNER = 32
WAIT_S = 30.0  # the others wait that long for their turn
LONGEST_S = 3_600.0
LOOK_S = 1.0  # between two looks at how fast a peer is
RETRY_AFTER_S = 5


class Turn:
    """One transfer that has its turn.

    Attributes:
        moved: the bytes that the peer has sent, or taken, so far.
    """

    def __init__(self, is_wanted: Callable[[], bool]) -> None:
        self.moved: Callable[[], int] = lambda: 0
        self._is_wanted = is_wanted
        self._pace = Pace()
        self._waited_s = 0.0
        self._since_s: float | None = None
        self._limit: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Inside, the peer is waited for, and nothing else.

        Raises:
            RequestError: 408, the peer is slower than a transfer may be.
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
        """Begin to look how fast the peer is."""
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _window_s(self) -> float:
        return min(pace.WANTED_S, pace.WINDOW_S) if self._is_wanted() else pace.WINDOW_S

    def _look(self) -> None:
        now_s = asyncio.get_running_loop().time()
        waited_s = self._waited_s
        if self._since_s is not None:
            waited_s += now_s - self._since_s
        is_slow = self._pace.is_slow(waited_s, self.moved(), self._window_s())
        # Where nobody waits for the peer, the peer has just done its part.
        if is_slow and self._limit is not None and not self._limit.expired():
            self._limit.reschedule(now_s)
        # Also then: a byte that arrives at the same moment ends the wait before the limit does.
        self.start()


class Turns:
    """Who may send or be sent something long now.

    Args:
        at_once: turns that there are.
        owner_max: of these, how many one owner may have.
    """

    def __init__(self, at_once: int, owner_max: int) -> None:
        self._line = TurnLine(at_once, owner_max)
        self._running: set[asyncio.Timeout] = set()
        self._is_over = asyncio.Event()
        self._is_draining = False

    def share_freely(self) -> None:
        """Let one owner have all turns: where everybody is the same owner, a part is for nobody."""
        self._line.owner_max = self._line.at_once

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[Turn]:
        """Wait for a turn, and have it as long as the block runs.

        Raises:
            RequestError: 429 too many have one, or wait; 408 it lasted too long, or the peer is
                too slow; 503 the node drains and can wait no longer.
        """
        ticket = await self._enter(owner)
        turn = Turn(lambda: self._line.is_wanted(owner))
        limit = asyncio.timeout(LONGEST_S)
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
            what = f"this was not complete after {LONGEST_S:.0f} s"
            raise request_error("request_timeout", what) from None
        finally:
            turn.stop()
            self._running.discard(limit)
            self._line.leave(ticket)
            if not self._running:
                self._is_over.set()

    async def _enter(self, owner: str) -> TurnTicket:
        decided: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def decide(has_turn: bool) -> None:
            if not decided.done():
                decided.set_result(has_turn)

        ticket = TurnTicket(owner, decide)
        try:
            self._line.enter(ticket)
            async with asyncio.timeout(WAIT_S):
                if await decided:
                    return ticket
        except BaseException as exc:
            self._line.leave(ticket)
            if isinstance(exc, TimeoutError):
                raise too_many() from None
            raise
        raise too_many()

    async def drain(self, within_s: float) -> None:
        """Return when none runs any more; those that take longer are refused."""
        self._is_draining = True
        until_s = asyncio.get_running_loop().time() + within_s
        for limit in self._running:
            limit.reschedule(until_s)
        while self._running:
            self._is_over.clear()
            await self._is_over.wait()


def too_many() -> RequestError:
    return request_error(
        "too_many_transfers",
        "too many uploads or downloads are under way or wait: wait until some of yours have ended",
        retry_after_s=RETRY_AFTER_S,
    )


def too_slow(window_s: float) -> RequestError:
    what = (
        f"a transfer must move {pace.BYTES_S} bytes a second, over {window_s:g} s: this one did not"
    )
    return request_error("request_timeout", what)
