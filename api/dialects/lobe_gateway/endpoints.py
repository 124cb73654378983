"""The endpoints of LobeHub's agent gateway."""

from __future__ import annotations

from starlette.routing import Route

from api.dialects.endpoints import DialectEndpoints, http_route
from api.dialects.lobe_gateway.feed_routes import FeedRoutes
from api.dialects.lobe_gateway.feeder import Feeder
from api.dialects.lobe_gateway.mux_socket import lobe_gateway_mux_socket
from api.dialects.lobe_gateway.routes import LobeGatewayRoutes
from api.dialects.lobe_gateway.socket import lobe_gateway_socket
from api.node import Node

OPERATIONS = "/lobe-gateway/api/operations"


def lobe_gateway_routes(node: Node) -> list[Route]:
    """Return the route of the events over HTTP, and those of the feeder."""
    feed = FeedRoutes(Feeder(node))
    return [
        http_route("/api/agent/stream", GET=LobeGatewayRoutes(node).stream),
        http_route("/lobe-gateway/health", GET=feed.health),
        http_route(f"{OPERATIONS}/init", POST=feed.init),
        http_route(f"{OPERATIONS}/push-event", POST=feed.push),
        http_route(f"{OPERATIONS}/push-events", POST=feed.push),
        http_route(f"{OPERATIONS}/update-status", POST=feed.update_status),
        http_route(f"{OPERATIONS}/tool-execute", POST=feed.execute_tool),
        http_route(f"{OPERATIONS}/request-confirmation", POST=feed.request_confirmation),
        http_route(f"{OPERATIONS}/request-input", POST=feed.request_input),
        http_route(f"{OPERATIONS}/status", GET=feed.status),
    ]


def no_routes(node: Node) -> list[Route]:
    """Return no route: version 2 is only a socket."""
    return []


LOBE_GATEWAY_ENDPOINTS = DialectEndpoints(lobe_gateway_routes, lobe_gateway_socket)
LOBE_GATEWAY_MUX_ENDPOINTS = DialectEndpoints(no_routes, lobe_gateway_mux_socket)
