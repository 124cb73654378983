"""One path with a handler for each method, as an ASGI application.

Starlette's wrapper of functions would put two layers and their closures around every event of a
stream, and its 405 would list the methods of one route only. HEAD uses the handler of GET; handlers
of streams check the method themselves and send no body. Knows nothing of generations.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import MethodNotAllowed
from api.transport.extensions import READER_PLACE

Handler = Callable[[Request], Awaitable[ASGIApp]]
Admit = Callable[[Scope, str], Awaitable[None]]  # the request, its method


class Resource:
    """Calls the handler of the request's method, and the ASGI application that it returns.

    Args:
        path: the route's path, which is a label in the metrics.
        methods: `GET=handler, POST=handler`.

    Attributes:
        admit: refuses clients without permission, before the handler is called. api/app.py sets it
            for every route; None: nobody is refused here.

    Raises:
        MethodNotAllowed: the path has no handler for the method.
    """

    def __init__(self, path: str, **methods: Handler) -> None:
        self.path = path
        self.methods = dict(methods)
        self.admit: Admit | None = None
        if "GET" in methods:
            self.methods["HEAD"] = methods["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self.methods.get(scope["method"])
        if handler is None:
            raise MethodNotAllowed(self.methods)
        if self.admit is not None:
            await self.admit(scope, scope["method"])
        try:
            response = await handler(Request(scope, receive, send))
            await response(scope, receive, send)
        finally:
            if READER_PLACE in scope:
                scope[READER_PLACE].close()
