"""The endpoints of OpenAI's Responses."""

from __future__ import annotations

from starlette.routing import Route

from api.dialects.endpoints import DialectEndpoints, http_route, upgrade_required
from api.dialects.openai_errors import openai_shape
from api.dialects.responses.routes import ResponsesRoutes
from api.dialects.responses.socket import PATH, responses_socket
from api.node import Node


def responses_routes(node: Node) -> list[Route]:
    """Return the routes of /v1/responses and below."""
    responses = ResponsesRoutes(node)
    return [
        http_route(PATH, GET=upgrade_required, POST=responses.create),
        http_route("/v1/responses/{id}", GET=responses.get, DELETE=responses.delete),
        http_route("/v1/responses/{id}/cancel", POST=responses.cancel),
        http_route("/v1/responses/{id}/input_items", GET=responses.input_items),
    ]


RESPONSES_ENDPOINTS = DialectEndpoints(
    responses_routes, responses_socket, error_shape=openai_shape, error_paths=(PATH,)
)
