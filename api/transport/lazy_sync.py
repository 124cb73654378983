"""Small substitutes for the asyncio objects that uvicorn creates for each connection.

An asyncio event or queue takes 700 bytes to 3 kB, and most connections never wait on theirs. The
classes here create the asyncio object at the first wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl


class LazyEvent:
    """`asyncio.Event` with the same methods."""

    __slots__ = ("_event", "_is_set")

    def __init__(self, *, is_set: bool = False) -> None:
        self._is_set = is_set
        self._event: asyncio.Event | None = None

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        event, self._event = self._event, None
        if event is not None:
            event.set()

    def clear(self) -> None:
        self._is_set = False

    async def wait(self) -> None:
        if not self._is_set:
            self._event = self._event or asyncio.Event()
            await self._event.wait()


class SingleConsumerQueue:
    """`asyncio.Queue` without a bound, for at most one task that waits in `get`.

    Attributes:
        on_put: called after a `put_nowait` while no task waits in `get`.
    """

    __slots__ = ("_filled", "_items", "on_put")

    def __init__(self) -> None:
        self.on_put: Callable[[], None] | None = None
        self._items: list[Any] = []
        self._filled: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def empty(self) -> bool:
        return not self._items

    def waiting(self) -> list[Any]:
        """Return the items that nobody has taken."""
        return list(self._items)

    def put_nowait(self, item: Any) -> None:
        self._items.append(item)
        if self._filled is not None:
            if not self._filled.done():
                self._filled.set_result(None)
        elif self.on_put is not None:
            self.on_put()

    async def get(self) -> Any:
        while not self._items:
            assert self._filled is None, "one at a time"
            self._filled = asyncio.get_running_loop().create_future()
            try:
                await self._filled
            finally:
                self._filled = None
        return self._items.pop(0)


class LazyFlowControl(FlowControl):
    """uvicorn's flow control of one HTTP connection."""

    __slots__ = ("_is_writable", "_transport", "read_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.read_paused = False
        self._is_writable = LazyEvent(is_set=True)

    @property
    def write_paused(self) -> bool:  # type: ignore[override]
        return not self._is_writable.is_set()

    async def drain(self) -> None:
        await self._is_writable.wait()

    def pause_writing(self) -> None:
        self._is_writable.clear()

    def resume_writing(self) -> None:
        self._is_writable.set()


class PipelineList(list[Any]):
    """uvicorn's deque of pipelined requests, as a list with the deque's methods that it calls."""

    __slots__ = ()

    def appendleft(self, request: Any) -> None:
        self.insert(0, request)
