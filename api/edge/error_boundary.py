"""The outermost ASGI layer: turns what a handler raises into an answer.

Bad input never becomes a 500: a handler raises `RequestError`, the store raises `Unavailable`, and
whatever else escapes is a defect of ours, logged with its traceback. Once a response has begun
there is no status left to send: the connection is broken off, because a body that ends cleanly
would claim that the answer is whole. The shape of an error is found by the path, so that also a
path without a route has it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import (
    CODES,
    Shape,
    native_shape,
    request_error,
    respond,
    unavailable,
)
from api.transport.extensions import break_off
from shared.errors import Draining, RequestError, Unavailable

logger = logging.getLogger(__name__)


class ErrorBoundary:
    """The outermost ASGI layer: everything that escapes a handler ends here.

    Expected errors become their response. Anything else is logged with its traceback and answered
    with 500, or, after the response began, breaks the connection off.

    Args:
        on_answer: called with the first message of every answer. Here, because one layer around
            `send` is enough for a path that carries every token.
        hold_back: waited for before a 401.
        shapes: how errors look at and below a path; the first that fits counts, else the native.
    """

    def __init__(
        self,
        app: ASGIApp,
        on_answer: Callable[[Scope, Message], None] | None = None,
        shapes: Sequence[tuple[str, Shape]] = (),
        *,
        hold_back: Callable[[Scope], Awaitable[None]] | None = None,
    ) -> None:
        self.app = app
        self.hold_back = hold_back
        self.on_answer = on_answer
        self.shapes = shapes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def watched_send(message: Message) -> None:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                if self.on_answer is not None:
                    self.on_answer(scope, message)
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
            return
        except RequestError as exc:
            error = exc
        except Unavailable:
            error = unavailable()
        except Exception:
            logger.exception("request failed", extra={"path": scope.get("path", "")})
            error = request_error("internal", "a defect of this server; its log has the details")
        except asyncio.CancelledError:
            # The node stops and its drain time is over. uvicorn would answer 500.
            if not has_begun and scope["type"] == "http":
                await respond(watched_send, Draining(), self._shape(scope))
            raise
        if error.status == 401 and self.hold_back is not None:
            await self.hold_back(scope)
        if scope["type"] == "websocket":
            await self._finish_socket(scope, watched_send, error, has_begun=has_begun)
        elif has_begun:
            break_off(scope)
        else:
            await respond(watched_send, error, self._shape(scope))

    def _shape(self, scope: Scope) -> Shape:
        path = scope.get("path", "")
        for prefix, shape in self.shapes:
            if path == prefix or path.startswith(prefix + "/"):
                return shape
        return native_shape

    async def _finish_socket(
        self, scope: Scope, send: Send, error: RequestError, *, has_begun: bool
    ) -> None:
        """Refuse at the handshake, or close an accepted socket with the code's number."""
        if has_begun:
            code = CODES[error.code].close if error.code in CODES else 0
            await send({"type": "websocket.close", "code": code or 1011, "reason": error.code})
        elif "websocket.http.response" in scope.get("extensions", {}):
            await respond(send, error, self._shape(scope), kind="websocket.http")
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": error.code})
