"""The ASGI application of an API node: only wiring.

Every route stands here. Layers, from the outside in: CORS where origins are configured, then the
error boundary, which also counts answers, then the gate, which refuses foreign hosts and sites,
then the router. No layer buffers or wraps a body. Preflights end at the CORS layer: they read no
body, start nothing and show nothing.
"""

from __future__ import annotations

from starlette.routing import Route as StarletteRoute
from starlette.routing import Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from api.dialects.ai_sdk.fold import ai_sdk_shape
from api.dialects.ai_sdk.routes import AiSdkRoutes, RawRoute
from api.dialects.ai_sdk.socket import ai_sdk_socket
from api.dialects.chat.routes import ChatRoutes
from api.dialects.deep_chat.fold import deep_chat_shape
from api.dialects.deep_chat.routes import DeepChatRoutes, deep_chat_socket
from api.dialects.lobe.socket import lobe_socket
from api.dialects.native.routes import GenerationRoutes
from api.dialects.native.socket import native_socket
from api.dialects.openai_errors import openai_shape
from api.dialects.responses.routes import ResponsesRoutes
from api.edge.cors import Cors
from api.edge.error_boundary import ErrorBoundary
from api.edge.gate import Gate
from api.edge.method_dispatch import Handler, Resource
from api.errors import Shape, request_error
from api.node import Node
from api.pages.pages import PageRoutes
from api.resources.batches import BatchRoutes
from api.resources.files import FileRoutes
from api.resources.health import HealthRoutes
from api.resources.listings import ListingRoutes
from api.resources.schedules import ScheduleRoutes
from shared.errors import NotFound

# How errors look at and below a path, where not natively. Not at /v1/models, which native clients
# read too: OpenAI's find message and code there all the same.
SHAPES: tuple[tuple[str, Shape], ...] = (
    ("/ai-sdk", ai_sdk_shape),
    ("/deep-chat", deep_chat_shape),
    ("/v1/chat", openai_shape),
    ("/chat", openai_shape),
    ("/v1/responses", openai_shape),
    ("/v1/batches", openai_shape),
    ("/v1/files", openai_shape),
    ("/models", openai_shape),
)


def create_app(node: Node) -> ASGIApp:
    """Build the application of `node`; its hub must be running when requests come."""
    router = Router(
        [*http_routes(node), *socket_routes(node)],
        redirect_slashes=False,
        default=nothing_here,
    )
    gate = Gate(router, node.authenticator)
    count, hold_back = node.metrics.count_answer, node.slowing.hold_back
    app: ASGIApp = ErrorBoundary(gate, count, SHAPES, hold_back=hold_back)
    origins = node.authenticator.origins
    return Cors(app, origins) if origins else app


def http_routes(node: Node) -> list[StarletteRoute]:
    schedules = ScheduleRoutes(node)
    generations, listings = GenerationRoutes(node, schedules.create), ListingRoutes(node)
    responses, batches = ResponsesRoutes(node), BatchRoutes(node)
    health, pages, chat = HealthRoutes(node), PageRoutes(), ChatRoutes(node)
    deep_chat, ai_sdk = DeepChatRoutes(node), AiSdkRoutes(node)
    files = FileRoutes(node)
    return [
        route("/v1/generations", GET=listings.generations, POST=generations.create),
        route("/v1/generations/{id}", GET=generations.snapshot),
        route("/v1/generations/{id}/cancel", POST=generations.cancel),
        route("/v1/generations/{id}/events", GET=generations.events),
        route("/v1/sessions/{session:path}", GET=listings.session),
        route("/v1/models", GET=listings.models),
        route("/v1/models/{model:path}", GET=listings.model),
        route("/models", GET=listings.models),
        route("/models/{model:path}", GET=listings.model),
        route("/v1/chat/completions", POST=chat.create),
        route("/chat/completions", POST=chat.create),
        route("/v1/responses", POST=responses.create),
        route("/v1/responses/{id}", GET=responses.get, DELETE=responses.delete),
        route("/v1/responses/{id}/cancel", POST=responses.cancel),
        route("/v1/responses/{id}/input_items", GET=responses.input_items),
        route("/v1/files", GET=files.list, POST=files.create),
        route("/v1/files/{id}", GET=files.get, DELETE=files.delete),
        route("/v1/files/{id}/content", GET=files.content),
        route("/v1/schedules", GET=schedules.list),
        route("/v1/schedules/{id}", GET=schedules.get, DELETE=schedules.delete),
        route("/v1/batches", GET=batches.list, POST=batches.create),
        route("/v1/batches/{id}", GET=batches.get),
        route("/v1/batches/{id}/cancel", POST=batches.cancel),
        route("/v1/batches/{id}/redrive", POST=batches.redrive),
        route("/v1/batches/{id}/dead_letters", GET=batches.dead_letters),
        route("/v1/batches/{id}/events", GET=batches.events),
        route("/v1/workers", GET=listings.workers),
        route("/v1/ws", GET=upgrade_required),
        route("/lobe/ws", GET=upgrade_required),
        route("/ai-sdk/chat", POST=ai_sdk.create),
        raw_route("/ai-sdk/chat/{name}/stream", GET=ai_sdk.stream),
        raw_route("/ai-sdk/chat/{name}/stop", POST=ai_sdk.stop),
        route("/ai-sdk/ws", GET=upgrade_required),
        route("/deep-chat", POST=deep_chat.create),
        route("/deep-chat/ws", GET=upgrade_required),
        route("/livez", GET=health.live),
        route("/readyz", GET=health.ready),
        route("/metrics", GET=health.metrics),
        route("/openapi.json", GET=pages.openapi),
        route("/docs", GET=pages.docs),
        route("/", GET=pages.chat),
        route("/page/{name}", GET=pages.asset),
    ]


def socket_routes(node: Node) -> list[WebSocketRoute]:
    return [
        WebSocketRoute("/v1/ws", native_socket(node)),
        WebSocketRoute("/lobe/ws", lobe_socket(node)),
        WebSocketRoute("/ai-sdk/ws", ai_sdk_socket(node)),
        WebSocketRoute("/deep-chat/ws", deep_chat_socket(node)),
    ]


def route(path: str, **methods: Handler) -> StarletteRoute:
    return StarletteRoute(path, Resource(path, **methods))


def raw_route(path: str, **methods: Handler) -> StarletteRoute:
    return RawRoute(path, Resource(path, **methods))


async def upgrade_required(request: object) -> ASGIApp:
    raise request_error("upgrade_required", "this is a WebSocket; docs/protocol.md has its frames")


async def nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    if scope.get("path", "").endswith(("/chat/completions", "/models")):
        raise NotFound("path: the base URL of OpenAI's clients ends with /v1 here, or with nothing")
    raise NotFound("path")
