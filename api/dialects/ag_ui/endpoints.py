"""The endpoints of AG-UI."""

from __future__ import annotations

from starlette.routing import Route

from api.dialects.ag_ui.fold import ag_ui_shape
from api.dialects.ag_ui.routes import AgUiRoutes
from api.dialects.endpoints import DialectEndpoints, http_route
from api.node import Node


def ag_ui_routes(node: Node) -> list[Route]:
    """Return the routes below /ag-ui. The name of a model may hold slashes, so the order counts."""
    ag_ui = AgUiRoutes(node)
    return [
        http_route("/ag-ui/{agent:path}/runs/{id}/stream", GET=ag_ui.stream),
        http_route("/ag-ui/{agent:path}/runs/{id}/cancel", POST=ag_ui.cancel),
        http_route("/ag-ui/{agent:path}", POST=ag_ui.run),
    ]


AG_UI_ENDPOINTS = DialectEndpoints(ag_ui_routes, error_shape=ag_ui_shape, error_paths=("/ag-ui",))
