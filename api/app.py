"""The ASGI application of an API node: only wiring.

`DIALECTS` lists the dialects; the routes of the resources and pages stand in `http_routes`. Layers,
from the outside in: CORS where origins are configured, then the error boundary, which also counts
answers, then with Sentinel the switch guard, then the gate, which refuses foreign hosts and sites,
then the router. No layer buffers or wraps a body. Preflights end at the CORS layer: they read no
body, start nothing and show nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.routing import Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access import FAULT_ROUTES, ROUTES, SHARED
from api.console.routes import console_routes
from api.dialects.ag_ui.endpoints import AG_UI_ENDPOINTS
from api.dialects.ai_sdk.endpoints import AI_SDK_ENDPOINTS
from api.dialects.chat.endpoints import CHAT_ENDPOINTS
from api.dialects.deep_chat.endpoints import DEEP_CHAT_ENDPOINTS
from api.dialects.durable_streams.endpoints import DURABLE_STREAMS_ENDPOINTS
from api.dialects.endpoints import DialectEndpoints, http_route, upgrade_required
from api.dialects.grpc.endpoints import GRPC_ENDPOINTS
from api.dialects.grpc.routes import SERVICE, SessionMethod
from api.dialects.lobe.endpoints import LOBE_ENDPOINTS
from api.dialects.lobe_gateway.endpoints import LOBE_GATEWAY_ENDPOINTS, LOBE_GATEWAY_MUX_ENDPOINTS
from api.dialects.native.endpoints import NATIVE_ENDPOINTS
from api.dialects.native.prompt_route import PromptRoute
from api.dialects.openai_errors import openai_shape
from api.dialects.responses.endpoints import RESPONSES_ENDPOINTS
from api.edge.admission import admit
from api.edge.cors import Cors
from api.edge.error_boundary import ErrorBoundary
from api.edge.gate import Gate
from api.edge.limit_headers import add_limit_headers
from api.edge.method_dispatch import Resource
from api.edge.path_forms import PathForms
from api.edge.request_log import log_request
from api.edge.switch_guard import SwitchGuard
from api.errors import ErrorShape
from api.node import Node
from api.pages.pages import PageRoutes
from api.readers.socket_endpoint import SocketEndpoint
from api.resources.backends import BackendRoutes
from api.resources.batches import BatchRoutes
from api.resources.deletions import DeletionRoutes
from api.resources.faults import FaultRoutes
from api.resources.files import FileRoutes
from api.resources.health import HealthRoutes
from api.resources.listings import ListingRoutes
from api.resources.schedules import ScheduleRoutes
from api.resources.shares import ShareRoutes
from api.resources.timeline import TimelineRoutes
from api.resources.usage import UsageRoutes
from api.transport.extensions import KEY_WATCH, READER_PLACE, SHARE_WATCH
from shared.errors import NotFound
from shared.redis.client import client_follower

DIALECTS: tuple[DialectEndpoints, ...] = (
    NATIVE_ENDPOINTS,
    CHAT_ENDPOINTS,
    RESPONSES_ENDPOINTS,
    AI_SDK_ENDPOINTS,
    DEEP_CHAT_ENDPOINTS,
    LOBE_ENDPOINTS,
    LOBE_GATEWAY_ENDPOINTS,
    LOBE_GATEWAY_MUX_ENDPOINTS,
    GRPC_ENDPOINTS,
    DURABLE_STREAMS_ENDPOINTS,
    AG_UI_ENDPOINTS,
)
# The paths of resources that OpenAI's clients read. Not /v1/models, which native clients read too:
# OpenAI's clients find message and code in the native shape as well.
OPENAI_ERROR_PATHS = ("/v1/batches", "/v1/files", "/models")
# The shape of errors at and below each path. Everywhere else errors have the native shape.
SHAPES: tuple[tuple[str, ErrorShape], ...] = (
    *(
        (path, dialect.error_shape)
        for dialect in DIALECTS
        if dialect.error_shape_of is None
        for path in dialect.error_paths
    ),
    *((path, openai_shape) for path in OPENAI_ERROR_PATHS),
)
# The paths whose shape depends on the request.
SHAPES_OF: tuple[tuple[str, Callable[[Scope], ErrorShape]], ...] = tuple(
    (path, dialect.error_shape_of)
    for dialect in DIALECTS
    if dialect.error_shape_of is not None
    for path in dialect.error_paths
)

GUARDED_ROUTES = {**ROUTES, **FAULT_ROUTES}


def create_app(node: Node) -> ASGIApp:
    """Build the application of `node`; its hub must be running when requests come."""
    forms = PathForms(path_not_found)
    router = Router(
        [*http_routes(node), *socket_routes(node)], redirect_slashes=False, default=forms
    )
    forms.router = router
    gate: ASGIApp = Gate(router, node.authenticator)
    if (follower := client_follower(node.redis)) is not None:
        gate = SwitchGuard(gate, follower)
    hold_back, count = node.slowing.hold_back, node.metrics.count_answer
    note = log_request if node.settings.request_log == "on" else None

    def on_answer(scope: Scope, message: Message) -> None:
        add_limit_headers(scope, message)
        count(scope, message)
        if note is not None:
            note(scope, message)

    app: ASGIApp = ErrorBoundary(gate, on_answer, SHAPES, hold_back=hold_back, shapes_of=SHAPES_OF)
    origins = node.authenticator.origins
    return Cors(app, origins) if origins else app


def http_routes(node: Node) -> list[Route]:
    """Return every HTTP route, each with the check of its row in api/access.py."""
    routes = [*unguarded_routes(node), *fault_routes(node)]
    for route in routes:
        guard(node, route)
    return routes


def guard(node: Node, route: Route) -> None:
    """Let a route's handlers be called only by clients with the scope of its row.

    Raises:
        KeyError: the table has no row for the path, or none for one of the methods.
    """
    resource = route.endpoint
    assert isinstance(resource, Resource)
    row = GUARDED_ROUTES[route.path]
    rows = {method: "GET" if method == "HEAD" else method for method in resource.methods}
    needed = {method: (row[name], (route.path, name) in SHARED) for method, name in rows.items()}

    async def check(scope: Scope, method: str) -> None:
        scope_needed, is_shared = needed[method]
        identity = await admit(node.authenticator, scope, scope_needed, is_shared=is_shared)
        if identity is not None and identity.share is not None:
            scope[SHARE_WATCH] = node.share_watch
        if identity is not None and node.authenticator.is_key_revocable(identity):
            scope[KEY_WATCH] = node.key_watch
        if identity is not None and (place := node.place_of(identity)) is not None:
            scope[READER_PLACE] = place
        if identity is not None and identity.is_keyless:
            node.seen_owners.add(identity.owner, time.monotonic())

    resource.admit = check


def unguarded_routes(node: Node) -> list[Route]:
    """Return the routes of the dialects, the resources, the probes and the pages."""
    listings, schedules, batches = ListingRoutes(node), ScheduleRoutes(node), BatchRoutes(node)
    files, health, pages = FileRoutes(node), HealthRoutes(node), PageRoutes()
    shares, usage, deletions = ShareRoutes(node), UsageRoutes(node), DeletionRoutes(node)
    prompt = PromptRoute(node, schedules.create)
    of_dialects = [route for dialect in DIALECTS for route in dialect.http_routes(node)]
    routed = {route.path for route in of_dialects}
    socket_paths = [socket.path for socket in sockets(node) if socket.path not in routed]
    return [
        *of_dialects,
        *(http_route(path, GET=upgrade_required) for path in socket_paths),
        http_route("/v1/generations", GET=listings.generations, POST=prompt.create),
        http_route("/v1/generations/{id}/timeline", GET=TimelineRoutes(node).get),
        http_route("/v1/sessions/{session:path}", GET=listings.session, DELETE=deletions.session),
        http_route("/v1/owners/{owner:path}", DELETE=deletions.owner),
        http_route(
            f"{SERVICE}/Session", POST=SessionMethod(node, listings.session_content).session
        ),
        http_route("/v1/models", GET=listings.models),
        http_route("/v1/models/{model:path}", GET=listings.model),
        http_route("/models", GET=listings.models),
        http_route("/models/{model:path}", GET=listings.model),
        http_route("/v1/files", GET=files.list, POST=files.create),
        http_route("/v1/files/{id}", GET=files.get, DELETE=files.delete),
        http_route("/v1/files/{id}/content", GET=files.content),
        http_route("/v1/schedules", GET=schedules.list),
        http_route("/v1/schedules/{id}", GET=schedules.get, DELETE=schedules.delete),
        http_route("/v1/batches", GET=batches.list, POST=batches.create),
        http_route("/v1/batches/{id}", GET=batches.get),
        http_route("/v1/batches/{id}/cancel", POST=batches.cancel),
        http_route("/v1/batches/{id}/redrive", POST=batches.redrive),
        http_route("/v1/batches/{id}/dead_letters", GET=batches.dead_letters),
        http_route("/v1/batches/{id}/events", GET=batches.events),
        http_route("/v1/share", POST=shares.create),
        http_route("/v1/share/{id}", DELETE=shares.delete),
        http_route("/v1/usage", GET=usage.get),
        http_route("/v1/workers", GET=listings.workers),
        http_route("/v1/backends", GET=BackendRoutes(node).list),
        *console_routes(node),
        http_route("/livez", GET=health.live),
        http_route("/readyz", GET=health.ready),
        http_route("/metrics", GET=health.metrics),
        http_route("/openapi.json", GET=pages.openapi),
        http_route("/docs", GET=pages.docs),
        http_route("/", GET=pages.chat),
        http_route("/console", GET=pages.console),
        http_route("/page/{name}", GET=pages.asset),
    ]


def fault_routes(node: Node) -> list[Route]:
    """Return the routes of "Break it" on a node of `tailrace up`; on every other node none."""
    faults = FaultRoutes(node)
    if not faults.control:
        return []
    return [
        http_route("/v1/break", GET=faults.state),
        http_route("/v1/break/{what}", GET=faults.known_text, POST=faults.break_it),
    ]


def socket_routes(node: Node) -> list[WebSocketRoute]:
    """Return the WebSocket route of every dialect that has one."""
    return [WebSocketRoute(socket.path, socket) for socket in sockets(node)]


def sockets(node: Node) -> list[SocketEndpoint]:
    """Return the WebSocket endpoint of every dialect that has one."""
    return [dialect.socket(node) for dialect in DIALECTS if dialect.socket is not None]


async def path_not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a path without a route; a mistaken base URL of an OpenAI client gets a hint.

    Raises:
        NotFound: always.
    """
    if scope.get("path", "").endswith(("/chat/completions", "/models")):
        raise NotFound("path: the base URL of OpenAI's clients ends with /v1 here, or with nothing")
    raise NotFound("path")
