"""The tails of the streams that have live readers on this node.

Opens a tail for the first reader of a stream, subscribes to its live channel, reads the tail when
it is behind, and closes it soon after the last reader left. Each stream costs the node one look
every `RECHECK_S`, however many readers it has.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from api.dialects.durable_streams.tail import RECHECK_S, Tail, parse_frame
from api.hub.hub import Hub
from shared.errors import Draining, Unavailable
from shared.streams.store import StreamStore

LINGER_S = 3.0  # a tail stays open without readers, because a long poll is followed by another
FIRST_READ_S = 4.0  # a reader waits so long for the tail to be known


class Tails:
    """All tails of a node."""

    def __init__(self, hub: Hub, store: StreamStore) -> None:
        self._hub = hub
        self._store = store
        self._open: dict[tuple[str, str], _Watch] = {}

    @asynccontextmanager
    async def held(self, owner: str, path: str) -> AsyncIterator[Tail]:
        """Hold the tail of a stream within `async with`.

        Raises:
            Draining: this node stops.
            Unavailable: the tail could not be read in time.
        """
        if self._hub.is_draining:
            raise Draining()
        key = (owner, path)
        watch = self._open.get(key)
        if watch is None or watch.tail.is_gone:
            if watch is not None:
                watch.close()
            watch = self._open[key] = _Watch(self._hub, self._store, owner, path)
        watch.tail.holds += 1
        try:
            await watch.wait_known()
            yield watch.tail
        finally:
            watch.tail.holds -= 1
            if not watch.tail.holds:
                loop = asyncio.get_running_loop()
                loop.call_later(LINGER_S, self._close_idle, key, watch)

    def _close_idle(self, key: tuple[str, str], watch: _Watch) -> None:
        """Close a tail that nobody holds; a reader may have come back meanwhile."""
        if watch.tail.holds:
            return
        watch.close()
        if self._open.get(key) is watch:
            del self._open[key]


class _Watch:
    """Keeps one tail up to date. It is the listener of the stream's channel."""

    def __init__(self, hub: Hub, store: StreamStore, owner: str, path: str) -> None:
        self.tail = Tail()
        self._store = store
        self._owner = owner
        self._path = path
        self._hub = hub
        self._channel = store.channel(owner, path)
        self._look_now = asyncio.Event()
        self._known = asyncio.Event()
        self._is_closed = False
        hub.channels.add(self._channel, self)
        self._task = hub.spawn(self._run())

    def subscribed(self) -> None:
        self.tail.is_behind = True
        self._look_now.set()

    def message(self, payload: bytes) -> None:
        frame = parse_frame(payload)
        if frame is not None:
            self.tail.offer(frame)
        if self.tail.is_behind:
            self._look_now.set()

    async def wait_known(self) -> None:
        try:
            async with asyncio.timeout(FIRST_READ_S):
                await self._known.wait()
        except TimeoutError:
            raise Unavailable("the stream could not be read in time") from None

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._hub.channels.remove(self._channel)
            if self._task is not None:
                self._task.cancel()

    async def _run(self) -> None:
        while not self.tail.is_gone:
            self._look_now.clear()
            # Without an answer of Redis the readers wait; the next look is soon.
            try:
                self.tail.take(await self._store.look(self._owner, self._path, is_use=True))
                self._known.set()
            except Unavailable:
                self.tail.is_behind = True
            if self.tail.is_behind:
                await asyncio.sleep(0.05)  # a pause between two reads, also while Redis is away
                continue
            try:
                async with asyncio.timeout(RECHECK_S * random.uniform(0.8, 1.2)):
                    await self._look_now.wait()
            except TimeoutError:
                self.tail.is_behind = True
