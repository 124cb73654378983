"""The endpoints of gRPC, gRPC-Web and Connect. Session is not here: it shows a listing."""

from __future__ import annotations

from starlette.routing import Route

from api.dialects.endpoints import DialectEndpoints, http_route
from api.dialects.grpc.forms import shape_of
from api.dialects.grpc.routes import SERVICE, GrpcRoutes
from api.node import Node


def grpc_routes(node: Node) -> list[Route]:
    """Return the routes of the methods."""
    methods = GrpcRoutes(node)
    return [
        http_route(f"{SERVICE}/Generate", POST=methods.generate),
        http_route(f"{SERVICE}/Start", POST=methods.start),
        http_route(f"{SERVICE}/Attach", POST=methods.attach),
        http_route(f"{SERVICE}/Get", POST=methods.get),
        http_route(f"{SERVICE}/Cancel", POST=methods.cancel),
    ]


GRPC_ENDPOINTS = DialectEndpoints(grpc_routes, error_paths=(SERVICE,), error_shape_of=shape_of)
