"""The process of `tailrace api`: listens, serves, drains, and ends with an exit code.

uvicorn by itself would wait for endless streams, or break all sockets at once, so the signals are
taken here. SIGTERM: readiness fails and new prompts are refused, the readers are broken off spread
over the drain time, plain requests finish, then uvicorn stops. A second signal ends it at once. The
node never ends because Redis is away: it says so at /readyz and answers 503 meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator

import uvicorn
import uvloop

from api.app import create_app
from api.edge.auth import Authenticator
from api.edge.metrics import Metrics
from api.hub.hub import Hub
from api.node import Node
from api.transport.connection_limit import Crowd, room_of_process
from api.transport.http import HttpProtocol
from api.transport.websocket import WebSocketProtocol
from shared.config.credentials import named
from shared.config.gc_tuning import settle
from shared.config.models import load_models
from shared.config.settings import Settings
from shared.errors import ConfigurationError, Unavailable
from shared.files.store import FileStore
from shared.log.store import Store
from shared.queue.accept import Acceptor
from shared.queue.janitor import Janitor
from shared.redis.client import ANSWER_S, check_server, connect
from shared.redis.resp import AutoPipeline

logger = logging.getLogger(__name__)

BACKLOG = 2_048
KEEP_ALIVE_S = 60
# Of the drain time, what is left for plain requests after the readers have gone.
LAST_SHARE = 0.2
LAST_S_MAX = 3.0
EXIT_AT_ONCE = 1


class Server(uvicorn.Server):
    """uvicorn's server, without its own signals, that says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: Settings, *, shares_port: bool = False) -> int:
    """Run one API node until it is told to stop; return the exit code.

    Args:
        shares_port: other nodes listen on the same port, each with a socket of its own.

    Raises:
        ConfigurationError: it cannot start as configured.
    """
    with listen(settings.host, settings.port, is_shared=shares_port) as listener:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(run(settings, listener))
        except asyncio.CancelledError:
            return EXIT_AT_ONCE


async def run(settings: Settings, listener: socket.socket) -> int:
    """Serve on `listener` until a signal, then drain."""
    stopping = take_signals()
    authenticator = Authenticator.from_settings(settings)
    if owners := authenticator.owners_of_short_keys:
        logger.warning("api keys short", extra={"keys": len(owners), "owners": named(owners)})
    models = load_models(settings.models)
    redis = connect(settings)
    with contextlib.suppress(Unavailable):  # then its workers, which cannot do without it, refuse
        await check_server(redis)
    pipeline = AutoPipeline(settings.redis_url, answer_s=ANSWER_S)
    store = Store(redis, settings, pipeline)
    name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    async with (
        contextlib.aclosing(redis),
        contextlib.aclosing(pipeline),
        Hub(store, settings, node=name) as hub,
    ):
        node = Node(
            name=name,
            settings=settings,
            models=models,
            redis=redis,
            store=store,
            acceptor=Acceptor(redis, store, settings),
            files=FileStore(redis, settings),
            hub=hub,
            authenticator=authenticator,
            metrics=Metrics(),
            started_at=int(time.time()),
        )
        node.metrics.watch_hub(hub.statistics)
        await serve_node(node, listener, stopping)
    return 0


async def serve_node(node: Node, listener: socket.socket, stopping: asyncio.Event) -> None:
    """Serve until `stopping` is set, then drain within the drain time."""
    drain_s = node.settings.drain_s
    last_s = min(LAST_S_MAX, drain_s * LAST_SHARE)
    server = Server(configuration(node, last_s))
    settle()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(node.metrics.watch_loop(), name="loop lag")
        janitor = Janitor(node.redis, node.store, node.settings)
        keeping = group.create_task(janitor.run(), name="janitor")
        serving = group.create_task(server.serve([listener]), name="uvicorn")
        await server.is_listening.wait()
        print(f"tailrace api ready on {url_of(listener)}", file=sys.stderr, flush=True)  # noqa: T201
        await stopping.wait()
        logger.info("api draining", extra={"readers": len(node.hub.connections)})
        node.is_draining = True
        async with asyncio.TaskGroup() as leaving:
            for transfers in (node.uploads, node.downloads):
                leaving.create_task(transfers.drain(drain_s - last_s))
            await node.hub.drain(drain_s - last_s)
        server.should_exit = True
        await serving
        watching.cancel()
        keeping.cancel()
    logger.info("api stopped")


def configuration(node: Node, last_s: float) -> uvicorn.Config:
    settings = node.settings
    # It has a line for each WebSocket, with the query, and so with ?access_token=.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    crowd = Crowd(
        room=room_of_process(),
        now=time.monotonic,
        peers=node.peers,
        address_max=settings.address_connections_max,
    )
    return uvicorn.Config(
        create_app(node),
        http=functools.partial(HttpProtocol, crowd=crowd),  # type: ignore[arg-type]
        ws=functools.partial(WebSocketProtocol, crowd=crowd),  # type: ignore[arg-type]
        ws_max_size=settings.body_bytes_max,
        ws_ping_interval=None,  # the hub has all of them pinged (api/readers/websocket_sender.py)
        ws_per_message_deflate=False,
        lifespan="off",  # the parts live around the server, not inside it
        log_config=None,
        access_log=False,  # it would show access_token
        # X-Forwarded-For is read by api/transport/peer.py, of trusted proxies only
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(last_s),
    )


def take_signals() -> asyncio.Event:
    """Return the event that the first SIGTERM or SIGINT sets; the second cancels the caller."""
    stopping = asyncio.Event()
    task = asyncio.current_task()
    assert task is not None

    def take() -> None:
        if stopping.is_set():
            task.cancel()
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, take)
    return stopping


def listen(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    """Return a listening socket; port 0 takes a free one, a shared one may have others beside it.

    Raises:
        ConfigurationError: the port is taken, or the address is not this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # A name with both kinds of address means the older one here, as most clients try it.
        family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:
        raise ConfigurationError(f"cannot listen on {host}: {exc.strerror}") from exc
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as exc:
        listener.close()
        what = f"cannot listen on {host}:{port}: {exc.strerror}"
        raise ConfigurationError(f"{what}; TAILRACE_PORT or --port names another") from exc
    return listener


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
