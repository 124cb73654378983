"""Runs one answer of a plug-in in a thread of its own, so that a call that blocks delays no other.

The pieces wait in a list until the worker's loop takes them. While `PIECES_MAX` pieces wait, the
plug-in waits, too. A thread cannot be ended from outside: `stop` asks the plug-in, and `interrupt`
raises an exception in it, which takes effect when it runs Python code again.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

PIECES_MAX = 1_000  # that wait for the worker


class Stopped(BaseException):
    """Ends the code of a plug-in after its answer was stopped."""


class AnswerThread:
    """One answer.

    Args:
        make: calls `answer` of the plug-in; runs in the thread.
        on_piece: called in the worker's loop when there is something to take.

    Attributes:
        error: the exception of `answer`; None: no exception, or `answer` still runs.
        has_ended: all pieces are there, except those that `take` still gives.
    """

    def __init__(self, make: Callable[[], Any], on_piece: Callable[[], None], name: str) -> None:
        self.error: BaseException | None = None
        self.has_ended = False
        self._make, self._on_piece = make, on_piece
        self._worker_loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._pieces: list[Any] = []
        self._is_told = self._is_stopping = False
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        # A daemon: a plug-in that does not stop must not keep the worker from its end.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def take(self) -> list[Any]:
        """Return the pieces that wait. Read `has_ended` before: pieces may come in between."""
        with self._changed:
            pieces, self._pieces = self._pieces, []
            self._is_told = False
            self._changed.notify_all()
        return pieces

    def stop(self) -> None:
        """Ask the plug-in to stop; does not wait."""
        with self._changed:
            self._is_stopping = True
            loop, task = self._own_loop, self._task
            self._changed.notify_all()
        if loop is not None and task is not None:
            try:
                loop.call_soon_threadsafe(task.cancel)
            except RuntimeError:
                pass  # the loop is closed: the answer is over

    def interrupt(self) -> None:
        """Raise `Stopped` in the plug-in's code, wherever it is."""
        if self._thread.ident is not None and self.is_alive:
            ident = ctypes.c_ulong(self._thread.ident)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(Stopped))

    # In the thread

    def _run(self) -> None:
        try:
            made = self._make()
            if hasattr(made, "__aiter__"):
                asyncio.run(self._follow(made))
            elif hasattr(made, "__iter__") and not isinstance(made, str | bytes | dict):
                self._iterate(made)
            else:
                if hasattr(made, "close"):
                    made.close()  # a coroutine: `async def answer` without a `yield`
                raise TypeError(f"answer() returned {type(made).__name__} and no generator")
        except (Exception, asyncio.CancelledError, Stopped, SystemExit) as exc:
            self._end(exc)
        else:
            self._end(None)

    async def _follow(self, made: AsyncIterator[Any]) -> None:
        with self._changed:
            self._own_loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
            if self._is_stopping:
                return
        try:
            async for piece in made:
                self._put(piece)
        except Exception as exc:
            return self._end(exc)
        self._end(None)  # now, because closing the loop may take long

    def _iterate(self, made: Iterable[Any]) -> None:
        pieces = iter(made)
        try:
            for piece in pieces:
                self._put(piece)
        finally:
            if (close := getattr(pieces, "close", None)) is not None:
                close()

    def _put(self, piece: Any) -> None:
        with self._changed:
            while len(self._pieces) >= PIECES_MAX and not self._is_stopping:
                self._changed.wait()
            if self._is_stopping:
                raise Stopped
            self._pieces.append(piece)
            if self._is_told:
                return
            self._is_told = True
        self._tell()

    def _end(self, error: BaseException | None) -> None:
        if not self.has_ended:
            self.error, self.has_ended = error, True
            self._tell()

    def _tell(self) -> None:
        try:
            self._worker_loop.call_soon_threadsafe(self._on_piece)
        except RuntimeError:
            pass  # the worker has ended
