"""The endpoints of Durable Streams."""

from __future__ import annotations

from starlette.routing import Route

from api.dialects.durable_streams.generations import GenerationStreamRoutes
from api.dialects.durable_streams.replies import stream_shape
from api.dialects.durable_streams.routes import StreamRoutes
from api.dialects.durable_streams.subscriptions import SubscriptionRoutes
from api.dialects.endpoints import DialectEndpoints, http_route
from api.node import Node


def durable_stream_routes(node: Node) -> list[Route]:
    """Return the routes below /ds."""
    streams, generations = StreamRoutes(node), GenerationStreamRoutes(node)
    subscriptions = SubscriptionRoutes(node, streams.subscriptions)
    below = "/ds/v1/stream/__ds"
    one = below + "/subscriptions/{id}"
    return [
        http_route(below + "/jwks.json", GET=subscriptions.keys),
        http_route(
            one, GET=subscriptions.get, PUT=subscriptions.create, DELETE=subscriptions.delete
        ),
        http_route(one + "/streams", POST=subscriptions.link),
        http_route(one + "/streams/{path:path}", DELETE=subscriptions.unlink),
        http_route(one + "/claim", POST=subscriptions.claim),
        http_route(one + "/callback", POST=subscriptions.callback),
        http_route(one + "/ack", POST=subscriptions.ack),
        http_route(one + "/release", POST=subscriptions.release),
        http_route("/ds/v1/stream/generations/{id}", GET=generations.read),
        http_route(
            "/ds/v1/stream/{path:path}",
            GET=streams.read, PUT=streams.create, POST=streams.append, DELETE=streams.delete,
        ),
    ]  # fmt: skip


DURABLE_STREAMS_ENDPOINTS = DialectEndpoints(
    durable_stream_routes, error_shape=stream_shape, error_paths=("/ds",)
)
