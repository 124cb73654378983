"""Watches for the reader to leave: ASGI's `receive`, driven by callbacks instead of a task.

uvicorn's `send` says nothing when the client has gone; only `receive` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import Receive

from api.readers.asgi_step import Step

WAIT_S = 1.0  # for a connection that we broke off to be seen as gone


class Departure:
    """Calls `on_left` once when `receive` says that the client has disconnected, or fails."""

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
        """Return when the client is seen as gone, so that the server need not complain of us."""
        try:
            async with asyncio.timeout(WAIT_S):
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
        except Exception:  # a `receive` that raises will never tell us anything
            self._on_left()

    def _received(self, message: Any, error: BaseException | None) -> None:
        if error is not None or message["type"] == "http.disconnect":
            self._on_left()
        else:
            self._next()
