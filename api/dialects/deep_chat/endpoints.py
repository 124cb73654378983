"""The endpoints of the chat component deep-chat."""

from __future__ import annotations

from starlette.routing import Route

from api.dialects.deep_chat.fold import deep_chat_shape
from api.dialects.deep_chat.routes import DeepChatRoutes
from api.dialects.deep_chat.socket import deep_chat_socket
from api.dialects.endpoints import DialectEndpoints, http_route
from api.node import Node


def deep_chat_routes(node: Node) -> list[Route]:
    """Return the route of /deep-chat."""
    return [http_route("/deep-chat", POST=DeepChatRoutes(node).create)]


DEEP_CHAT_ENDPOINTS = DialectEndpoints(
    deep_chat_routes, deep_chat_socket, error_shape=deep_chat_shape, error_paths=("/deep-chat",)
)
