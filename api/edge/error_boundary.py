"""The outermost ASGI layer: turns an exception of a handler into a response.

Bad input never becomes a 500: a handler raises `RequestError`, and the store raises `Unavailable`.
Any other exception is a defect of this server and is logged with its traceback. After a response
has begun, no other status can be sent: the connection is aborted, because a regular end of the body
would mean a complete answer. The path decides the shape of the error, so that a path without a
route has the shape, too. Knows nothing of generations.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.edge.request_id import request_id, with_ids
from api.errors import (
    CODES,
    ErrorShape,
    native_shape,
    request_error,
    send_error,
    unavailable,
)
from api.transport.extensions import break_off
from shared.config import logs
from shared.errors import Draining, RequestError, Unavailable

logger = logging.getLogger(__name__)


class ErrorBoundary:
    """The outermost ASGI layer.

    Expected errors become their response. Other exceptions are logged with their traceback and
    answered with 500. After the response has begun, both abort the connection.

    Args:
        on_answer: called with the first message of every answer. It is called here, so that `send`,
            which carries every token, has only one layer around it.
        shapes: pairs of a path and the shape of errors at and below that path. The first matching
            pair counts; without a match the shape is the native shape.
        hold_back: awaited before a 401.
        shapes_of: as `shapes`, for paths whose shape depends on the request. They come first.
    """

    def __init__(
        self,
        app: ASGIApp,
        on_answer: Callable[[Scope, Message], None] | None = None,
        shapes: Sequence[tuple[str, ErrorShape]] = (),
        *,
        hold_back: Callable[[Scope], Awaitable[None]] | None = None,
        shapes_of: Sequence[tuple[str, Callable[[Scope], ErrorShape]]] = (),
    ) -> None:
        self.app = app
        self.hold_back = hold_back
        self.on_answer = on_answer
        self.shapes = shapes
        self.shapes_of = shapes_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False
        # Every log line of this request names it.
        logs.request_id.set(request_id(scope).decode())

        async def watched_send(message: Message) -> None:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                if self.on_answer is not None:
                    self.on_answer(scope, message)
                message = with_ids(scope, message)
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
            return
        except RequestError as exc:
            # The traceback refers to this frame, and this frame to `error`. As a cycle they would
            # keep a refused body of megabytes until the garbage collector runs.
            error = exc.with_traceback(None)
        except Unavailable:
            error = unavailable()
        except Exception:
            name = request_id(scope).decode()
            logger.exception(
                "request failed", extra={"path": scope.get("path", ""), "request_id": name}
            )
            text = f"a defect of this server; its log has the details of request {name}"
            error = request_error("internal", text)
        except asyncio.CancelledError:
            # The node stops, and its drain time is over. uvicorn would answer 500.
            if not has_begun and scope["type"] == "http":
                await send_error(watched_send, Draining(), self._shape(scope))
            raise
        if error.status == 401 and self.hold_back is not None:
            await self.hold_back(scope)
        if scope["type"] == "websocket":
            await self._finish_socket(scope, watched_send, error, has_begun=has_begun)
        elif has_begun:
            break_off(scope)
        else:
            await send_error(watched_send, error, self._shape(scope))

    def _shape(self, scope: Scope) -> ErrorShape:
        path = scope.get("path", "")
        for prefix, shape_of in self.shapes_of:
            if path == prefix or path.startswith(prefix + "/"):
                return shape_of(scope)
        for prefix, shape in self.shapes:
            if path == prefix or path.startswith(prefix + "/"):
                return shape
        return native_shape

    async def _finish_socket(
        self, scope: Scope, send: Send, error: RequestError, *, has_begun: bool
    ) -> None:
        """Refuse the handshake, or close an accepted socket with the close code of the error."""
        if has_begun:
            code = CODES[error.code].close if error.code in CODES else 0
            await send({"type": "websocket.close", "code": code or 1011, "reason": error.code})
        elif "websocket.http.response" in scope.get("extensions", {}):
            await send_error(send, error, self._shape(scope), kind="websocket.http")
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": error.code})
