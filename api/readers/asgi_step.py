"""Runs one ASGI `send` or `receive` coroutine at a time from callbacks, without a task.

A task for each reader and event costs more than the system call that it waits for. Most calls of
`send` end without waiting. A call that has to wait continues when the future it waits for is done.
Invariant: at most one coroutine of a `Step` runs, and each coroutine ends in exactly one way:
`start` returns True, `start` raises, `on_done` is called once, or `cancel` closes the coroutine.
This module does not know what is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

OnDone = Callable[[Any, BaseException | None], None]


def _ignore(_: Any, __: BaseException | None) -> None:
    pass


class Step:
    """Runs coroutines one after the other, never two at once.

    Args:
        on_done: called with (value, error) when a coroutine ends that did not end within `start`.

    Attributes:
        value: what the last coroutine that ended within `start` returned.
    """

    __slots__ = ("_coroutine", "_future", "_on_done", "value")

    def __init__(self, on_done: OnDone) -> None:
        self._on_done = on_done
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._future: asyncio.Future[Any] | None = None
        self.value: Any = None

    @property
    def is_busy(self) -> bool:
        return self._coroutine is not None

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> bool:
        """Run the coroutine until it ends or waits.

        Returns:
            True: it ended, and `value` holds its result. False: it waits, and `on_done` follows.

        Raises:
            Exception: whatever the coroutine raises before it first waits.
        """
        assert self._coroutine is None, "one at a time"
        try:
            waits_for = coroutine.send(None)
        except StopIteration as stop:
            self.value = stop.value
            return True
        self._coroutine = coroutine
        self._wait(waits_for)
        return False

    def close(self) -> None:
        """Cancel, and drop the reference to `on_done`. `start` must not be called afterwards."""
        self.cancel()
        self._on_done = _ignore

    def cancel(self) -> None:
        """Close the coroutine that waits, if there is one, without calling `on_done`."""
        coroutine, self._coroutine = self._coroutine, None
        future, self._future = self._future, None
        if future is not None:
            future.remove_done_callback(self._wake)
        if coroutine is not None:
            coroutine.close()

    def _wait(self, waits_for: Any) -> None:
        if waits_for is None:  # asyncio.sleep(0): continue in the next pass of the event loop
            future = asyncio.get_running_loop().create_future()
            future.set_result(None)
        else:
            future = waits_for
            # `Future.__await__` sets this flag, and a task would clear it.
            future._asyncio_future_blocking = False
        self._future = future
        future.add_done_callback(self._wake)

    def _wake(self, future: asyncio.Future[Any]) -> None:
        # `cancel` cannot remove a callback that the event loop has already scheduled.
        if future is not self._future:
            return
        coroutine, self._future = self._coroutine, None
        assert coroutine is not None
        try:
            waits_for = coroutine.send(None)
        except StopIteration as stop:
            self._coroutine = None
            self._on_done(stop.value, None)
        except BaseException as exc:
            self._coroutine = None
            if not isinstance(exc, Exception | asyncio.CancelledError):
                raise
            self._on_done(None, exc)
        else:
            self._wait(waits_for)
