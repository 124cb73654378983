"""The endpoints of Durable Streams."""

from __future__ import annotations

from starlette.routing import Route

from api.dialects.durable_streams.generations import GenerationStreamRoutes
from api.dialects.durable_streams.replies import stream_shape
from api.dialects.durable_streams.routes import StreamRoutes
from api.dialects.endpoints import DialectEndpoints, http_route
from api.node import Node


def durable_stream_routes(node: Node) -> list[Route]:
    """Return the routes below /ds."""
    streams, generations = StreamRoutes(node), GenerationStreamRoutes(node)
    return [
        http_route("/ds/v1/stream/generations/{id}", GET=generations.read),
        http_route(
            "/ds/v1/stream/{path:path}",
            GET=streams.read, PUT=streams.create, POST=streams.append, DELETE=streams.delete,
        ),
    ]  # fmt: skip


DURABLE_STREAMS_ENDPOINTS = DialectEndpoints(
    durable_stream_routes, error_shape=stream_shape, error_paths=("/ds",)
)
