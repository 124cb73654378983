"""The parts that a dialect adds to the application of a node: routes, a socket, an error shape.

Each dialect folder has a module `endpoints.py` with one `DialectEndpoints`; api/app.py lists these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.routing import Route
from starlette.types import ASGIApp, Scope

from api.edge.method_dispatch import Handler, Resource
from api.errors import ErrorShape, native_shape, request_error
from api.node import Node
from api.readers.socket_endpoint import SocketEndpoint


@dataclass(frozen=True)
class DialectEndpoints:
    """The endpoints of one dialect.

    Attributes:
        http_routes: builds the HTTP routes of a node; the application itself answers a plain GET
            of the socket's path, if there is no route of this path here.
        socket: builds the WebSocket endpoint of a node. None: the dialect has no socket.
        error_shape: the body of error responses at and below each of `error_paths`. Elsewhere
            errors have the native shape.
        error_shape_of: chooses the shape by the request. None: it is `error_shape`.
    """

    http_routes: Callable[[Node], list[Route]]
    socket: Callable[[Node], SocketEndpoint] | None = None
    error_shape: ErrorShape = native_shape
    error_paths: tuple[str, ...] = ()
    error_shape_of: Callable[[Scope], ErrorShape] | None = None


def http_route(path: str, **methods: Handler) -> Route:
    """Return the route of one path: `GET=handler, POST=handler`."""
    return Route(path, Resource(path, **methods))


async def upgrade_required(request: object) -> ASGIApp:
    """Refuse a plain GET of a socket's path.

    Raises:
        RequestError: 400.
    """
    raise request_error("upgrade_required", "this is a WebSocket; docs/protocol.md has its frames")
