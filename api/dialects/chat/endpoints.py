"""The endpoints of OpenAI's chat completions."""

from __future__ import annotations

from starlette.routing import Route

from api.dialects.chat.routes import ChatRoutes
from api.dialects.endpoints import DialectEndpoints, http_route
from api.dialects.openai_errors import openai_shape
from api.node import Node


def chat_routes(node: Node) -> list[Route]:
    """Return the routes; OpenAI's clients are also used with a base URL without /v1."""
    chat = ChatRoutes(node)
    return [
        http_route("/v1/chat/completions", POST=chat.create),
        http_route("/chat/completions", POST=chat.create),
    ]


CHAT_ENDPOINTS = DialectEndpoints(
    chat_routes, error_shape=openai_shape, error_paths=("/v1/chat", "/chat")
)
