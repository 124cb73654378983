"""Runs the calls of one answer's stages in a thread, so that a call that blocks delays no other.

A thread cannot be ended from outside. When a call takes too long, an exception is raised in the
thread, which takes effect when it runs Python code again; the answer goes on without the thread.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from workers.stages.plugin.events import failure

CALL_S = 5.0  # for the events of one read
T = TypeVar("T")


class Stopped(BaseException):
    """Ends the code of a stage that takes too long."""


class StageThread:
    """The thread of one attempt. It starts at the first call."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None]
        self._calls = SimpleQueue()
        # A daemon: a stage that does not stop must not keep the worker from its end.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    async def call(self, function: Callable[[], T]) -> T:
        """Return the result of a function that runs in the thread.

        Raises:
            BackendError: the call takes too long. No further call is allowed then.
        """
        if self._thread.ident is None:
            self._thread.start()
        future: asyncio.Future[T] = self._loop.create_future()
        self._calls.put((function, future))
        try:
            async with asyncio.timeout(CALL_S):
                return await future
        except TimeoutError as exc:
            self._interrupt()
            raise failure(f"took longer than {CALL_S:g} s for one call") from exc

    def close(self) -> None:
        """End the thread after the present call; does not wait."""
        self._calls.put(None)

    def _interrupt(self) -> None:
        if self._thread.ident is not None and self._thread.is_alive():
            ident = ctypes.c_ulong(self._thread.ident)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(Stopped))

    # In the thread

    def _run(self) -> None:
        try:
            while (found := self._calls.get()) is not None:
                function, future = found
                try:
                    result = function()
                except Exception as exc:  # the boundary of a third party's code
                    self._tell(future, None, exc)
                else:
                    self._tell(future, result, None)
        except Stopped:
            pass

    def _tell(self, future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        def settle() -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(settle)
        except RuntimeError:
            pass  # the worker has ended
