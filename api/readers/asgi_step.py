"""A coroutine that callbacks drive instead of a task: one ASGI `send` or `receive` at a time.

A task per reader and event costs more than the system call it waits for. Most calls of `send` run
to their end without waiting at all; the few that do wait for a future, and are continued when it is
done. Invariant: at most one coroutine per `Step` is under way, and each ends in exactly one of: the
return value of `start`, an exception from `start`, one call of `on_done`, `cancel`.
Knows nothing of what is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

OnDone = Callable[[Any, BaseException | None], None]


def _nobody(_: Any, __: BaseException | None) -> None:
    pass


class Step:
    """Runs one coroutine after the other, never two at once.

    Args:
        on_done: called with (value, error) for a coroutine that did not end within `start`.
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
        """Run until the coroutine ends (True, see `value`) or waits (False: `on_done` follows).

        Whatever the coroutine raises before it first waits is raised here.
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
        """Cancel, and know nobody any more: nothing will be started again."""
        self.cancel()
        self._on_done = _nobody

    def cancel(self) -> None:
        """Close what is under way; `on_done` will not be called for it."""
        coroutine, self._coroutine = self._coroutine, None
        future, self._future = self._future, None
        if future is not None:
            future.remove_done_callback(self._wake)
        if coroutine is not None:
            coroutine.close()

    def _wait(self, waits_for: Any) -> None:
        if waits_for is None:  # asyncio.sleep(0): only wants to be passed over once
            future = asyncio.get_running_loop().create_future()
            future.set_result(None)
        else:
            future = waits_for
            # A task would reset this mark, by which a future knows that it was awaited.
            future._asyncio_future_blocking = False
        self._future = future
        future.add_done_callback(self._wake)

    def _wake(self, future: asyncio.Future[Any]) -> None:
        # A callback that is on its way already cannot be taken back by `cancel`.
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
