"""The endpoints of the native dialect, except the path that it shares with a listing."""

from __future__ import annotations

from starlette.routing import Route

from api.dialects.endpoints import DialectEndpoints, http_route
from api.dialects.native.audio import AudioRoutes
from api.dialects.native.producers import ProducerRoutes
from api.dialects.native.routes import GenerationRoutes
from api.dialects.native.socket import native_socket
from api.node import Node


def native_routes(node: Node) -> list[Route]:
    """Return the routes below /v1/generations.

    POST /v1/generations is not among them: it shares its path with the listing of generations
    (api/resources/listings.py), so api/app.py joins the two.
    """
    generations, producers, audio = GenerationRoutes(node), ProducerRoutes(node), AudioRoutes(node)
    return [
        http_route("/v1/generations/{id}", GET=generations.snapshot, DELETE=generations.delete),
        http_route("/v1/generations/{id}/cancel", POST=generations.cancel),
        http_route("/v1/generations/{id}/events", GET=generations.events, POST=producers.append),
        http_route("/v1/generations/{id}/audio", GET=audio.state, POST=audio.append),
        http_route("/v1/generations/{id}/producer", POST=producers.take_over),
    ]


NATIVE_ENDPOINTS = DialectEndpoints(native_routes, native_socket)
