"""The endpoints of LobeHub's agent gateway."""

from __future__ import annotations

from starlette.routing import Route

from api.dialects.endpoints import DialectEndpoints, http_route
from api.dialects.lobe_gateway.routes import LobeGatewayRoutes
from api.dialects.lobe_gateway.socket import lobe_gateway_socket
from api.node import Node


def lobe_gateway_routes(node: Node) -> list[Route]:
    """Return the route of the events over HTTP."""
    return [http_route("/api/agent/stream", GET=LobeGatewayRoutes(node).stream)]


LOBE_GATEWAY_ENDPOINTS = DialectEndpoints(lobe_gateway_routes, lobe_gateway_socket)
