"""One path and its methods, as an ASGI application.

Starlette's own wrapping of functions would put two layers and their closures around every event of
a stream, and would answer a wrong method with the methods of one route only. HEAD is what GET is,
without a body; the handlers of streams look at the method themselves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import MethodNotAllowed

Handler = Callable[[Request], Awaitable[ASGIApp]]


class Resource:
    """Hands a request to the handler of its method; what that returns answers it.

    Args:
        path: as the route has it; the label of the metrics.
        methods: `GET=handler, POST=handler`.
    """

    def __init__(self, path: str, **methods: Handler) -> None:
        self.path = path
        self.methods = dict(methods)
        if "GET" in methods:
            self.methods["HEAD"] = methods["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self.methods.get(scope["method"])
        if handler is None:
            raise MethodNotAllowed(self.methods)
        answer = await handler(Request(scope, receive, send))
        await answer(scope, receive, send)
