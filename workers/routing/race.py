"""Asks a second backend when the first one is silent for too long; the first to speak wins.

Each request runs in a task of its own, which owns its connection from the beginning to the end. The
slower request is cancelled, which closes its connection, so that its server stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any

from workers.routing.call import Call, Items

QUEUED_LISTS_MAX = 8  # of backends that are faster than the log

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
# A list of events; None: the answer is complete; or why the request failed.
Got = Items | Exception | None


class Race:
    """One or two requests, of which the first to speak gives the answer.

    Args:
        spawn: starts a task; its owner waits for the task when the worker drains.
        after_s: the silence after which `ask_second` is called, once.
        ask_second: returns the second request; None: no backend is left for it.
    """

    def __init__(
        self, spawn: Spawn, after_s: float, ask_second: Callable[[], Awaitable[Call | None]]
    ) -> None:
        self._spawn = spawn
        self._ask_second = ask_second
        self._after_s = after_s
        self._hedge_at: float | None = None  # set when the first backend gets its request
        self._wait: asyncio.Timeout | None = None  # for the next result
        self._queue: asyncio.Queue[tuple[Call, Got, bool]] = asyncio.Queue(QUEUED_LISTS_MAX)
        self._running: dict[Call, asyncio.Task[None]] = {}
        self._stopping: list[asyncio.Task[None]] = []
        self._winner: Call | None = None

    async def read(self, first: Call) -> AsyncGenerator[tuple[Call, Items], None]:
        """Yield the lists of the winner. Before there is one, yield the empty lists of both.

        The first request with output wins: output of its backend, or the whole answer from a stage.
        The progress of a stage before that does not decide.

        Raises:
            BackendError: the winner has failed, or all requests failed before any output.
        """
        first.on_asked = self._begin_silence
        self._enter(first)
        try:
            while True:
                call, got, has_spoken = await self._next()
                if call not in self._running:
                    continue  # of the request that has lost
                if got is None:
                    return
                if isinstance(got, Exception):
                    del self._running[call]
                    if not self._running:
                        raise got
                    continue
                if got and self._winner is None:
                    if has_spoken:
                        self._win(call)
                    elif call is not first:
                        continue  # its stages work again: readers know of the first time
                yield call, got
        finally:
            self._stop(*self._running)
            if self._stopping:
                await asyncio.wait(self._stopping)

    def _begin_silence(self) -> None:
        """Note that the first backend gets its request now; stages may have worked before."""
        if self._winner is None:
            self._hedge_at = asyncio.get_running_loop().time() + self._after_s
            if self._wait is not None:
                self._wait.reschedule(self._hedge_at)

    async def _next(self) -> tuple[Call, Got, bool]:
        """Wait for the next result; after the silence ask the second backend.

        The last value says whether the result is of a backend, and not of a stage before it.
        """
        if self._winner is not None:
            return await self._queue.get()
        try:
            async with asyncio.timeout_at(self._hedge_at) as self._wait:
                return await self._queue.get()
        except TimeoutError:
            if self._hedge_at is None:
                raise
            self._hedge_at = None
        finally:
            self._wait = None
        if (second := await self._ask_second()) is not None:
            self._enter(second)
        return await self._queue.get()

    def _enter(self, call: Call) -> None:
        self._running[call] = self._spawn(self._run(call))

    async def _run(self, call: Call) -> None:
        failure: Exception | None = None
        try:
            async with aclosing(call.read()) as stream:
                async for items in stream:
                    await self._queue.put((call, items, call.is_asked or call.is_finished))
        except Exception as exc:  # a boundary: `read` raises the error in the run's own task
            failure = exc
        await self._queue.put((call, failure, True))

    def _win(self, call: Call) -> None:
        self._winner, self._hedge_at = call, None
        self._stop(*(other for other in self._running if other is not call))

    def _stop(self, *calls: Call) -> None:
        for call in calls:
            task = self._running.pop(call)
            task.cancel()
            self._stopping.append(task)
