"""The endpoints of Vercel's AI SDK."""

from __future__ import annotations

from starlette.routing import Route

from api.dialects.ai_sdk.fold import ai_sdk_shape
from api.dialects.ai_sdk.routes import AiSdkRoutes, raw_path_route
from api.dialects.ai_sdk.socket import ai_sdk_socket
from api.dialects.endpoints import DialectEndpoints, http_route
from api.node import Node


def ai_sdk_routes(node: Node) -> list[Route]:
    """Return the routes below /ai-sdk/chat."""
    ai_sdk = AiSdkRoutes(node)
    return [
        http_route("/ai-sdk/chat", POST=ai_sdk.create),
        raw_path_route("/ai-sdk/chat/{name}/stream", GET=ai_sdk.stream),
        raw_path_route("/ai-sdk/chat/{name}/stop", POST=ai_sdk.stop),
    ]


AI_SDK_ENDPOINTS = DialectEndpoints(
    ai_sdk_routes, ai_sdk_socket, error_shape=ai_sdk_shape, error_paths=("/ai-sdk",)
)
