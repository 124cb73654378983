"""Watches ASGI's `receive` for a client's disconnect, from callbacks, without a task.

uvicorn's `send` does not report a disconnect; only `receive` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import Receive

from api.readers.asgi_step import Step

DISCONNECT_WAIT_S = 1.0  # after this node broke a connection off, for `receive` to report it


class DisconnectWatcher:
    """Calls `on_left` once, when `receive` reports a disconnect or raises."""

    def __init__(self, receive: Receive, on_left: Callable[[], None]) -> None:
        self._receive = receive
        self._on_left = on_left
        self._step = Step(self._received)
        self._next()

    def close(self) -> None:
        """Stop watching."""
        self._step.cancel()

    @staticmethod
    async def wait(receive: Receive, kind: str = "http.disconnect") -> None:
        """Wait until `receive` reports the disconnect, at most `DISCONNECT_WAIT_S`.

        A handler that returned before would make the server log an incomplete response.

        Args:
            kind: the type of the ASGI message that reports a disconnect.
        """
        try:
            async with asyncio.timeout(DISCONNECT_WAIT_S):
                while (await receive())["type"] != kind:
                    pass
        except (TimeoutError, OSError):
            pass

    def _next(self) -> None:
        try:
            while self._step.start(self._receive()):  # type: ignore[arg-type]
                if self._step.value["type"] == "http.disconnect":
                    self._on_left()
                    return
        except Exception:  # a `receive` that raises will never report a disconnect
            self._on_left()

    def _received(self, message: Any, error: BaseException | None) -> None:
        if error is not None or message["type"] == "http.disconnect":
            self._on_left()
        else:
            self._next()
