"""The endpoint of the WebSocket protocol of /lobe/ws. Its errors have the native shape."""

from __future__ import annotations

from starlette.routing import Route

from api.dialects.endpoints import DialectEndpoints
from api.dialects.lobe.socket import lobe_socket
from api.node import Node


def no_http_routes(node: Node) -> list[Route]:
    """Return nothing: this dialect has a socket only."""
    return []


LOBE_ENDPOINTS = DialectEndpoints(no_http_routes, lobe_socket)
