"""The process of `tailrace api`: listens, serves, drains, and ends with an exit code.

This module handles the signals itself: uvicorn would wait for endless streams, or close all sockets
at once. After the first SIGTERM or SIGINT, /readyz fails and new prompts are refused; the readers
are broken off one after the other during the drain time; plain requests finish; then uvicorn stops.
A second signal ends the process at once. Invariant: an outage of Redis does not end the node; until
Redis is back, /readyz fails and requests are answered 503.
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
from collections.abc import Coroutine, Iterator

import uvicorn
import uvloop

from api.app import create_app
from api.console.node_report import NodeReporter
from api.edge.auth import Authenticator
from api.edge.metrics import Metrics
from api.grpc_port.opening import GrpcService
from api.hub.hub import Hub
from api.node import Node
from api.transport.certificate import Certificate
from api.transport.connection_limit import ConnectionLimit, process_connections_max
from api.transport.http import HttpProtocol
from api.transport.tls_listener import TlsListener
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
from shared.queue.model_lists import follow_list
from shared.queue.partitions import agree
from shared.redis.client import REDIS_ANSWER_S
from shared.redis.connections import connect, open_pipeline
from shared.redis.following import follow_redis
from shared.redis.server_check import check_server
from shared.redis.shards import shard_states
from shared.timeline.writer import TimelineWriter

logger = logging.getLogger(__name__)

BACKLOG = 2_048  # connections that the kernel queues until the node accepts them
# The end of the drain time is for plain requests, when all readers have been broken off: this share
# of the drain time, at most `PLAIN_REQUESTS_S_MAX`.
PLAIN_REQUESTS_SHARE = 0.2
PLAIN_REQUESTS_S_MAX = 3.0
EXIT_SECOND_SIGNAL = 1
DATE_S = 1.0  # between two renewals of the date header


class Server(uvicorn.Server):
    """uvicorn's server without its signal handlers.

    Args:
        tls: accepts the connections instead of uvicorn, if the node has a certificate.

    Attributes:
        is_listening: set once the server accepts connections, or lets `tls` accept them.
    """

    def __init__(self, config: uvicorn.Config, tls: TlsListener | None = None) -> None:
        super().__init__(config)
        self.is_listening = asyncio.Event()
        self._stopping = asyncio.Event()
        self._tls = tls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([] if self._tls is not None else sockets)
        self.is_listening.set()

    async def main_loop(self) -> None:
        """Renew the date header until `stop`. uvicorn's own loop looks ten times a second."""
        while not await self.on_tick(0):  # tick 0 renews the header
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DATE_S):
                    await self._stopping.wait()

    def stop(self) -> None:
        """Make `serve` close the connections and return."""
        self.should_exit = True
        self._stopping.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._tls is not None:
            await self._tls.close()
        await super().shutdown(sockets)

    def protocol(self) -> asyncio.Protocol:
        """Return a protocol for a new connection, as uvicorn makes it."""
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: Settings, *, shares_port: bool = False) -> int:
    """Run one API node until a signal stops it.

    Args:
        shares_port: other nodes listen on the same port, each with its own socket.

    Returns:
        The exit code: 0 after a drain, `EXIT_SECOND_SIGNAL` after a second signal.

    Raises:
        ConfigurationError: the node cannot start with these settings.
    """
    with listen(settings.host, settings.port, is_shared=shares_port) as listener:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(run(settings, listener, shares_port=shares_port))
        except asyncio.CancelledError:
            return EXIT_SECOND_SIGNAL


async def run(settings: Settings, listener: socket.socket, *, shares_port: bool = False) -> int:
    """Build the node's parts, serve on `listener` until a signal, then drain; return 0.

    Raises:
        ConfigurationError: keys, the models file or the Redis server cannot be used.
    """
    stopping = take_signals()
    certificate = None
    if settings.tls_cert:
        certificate = Certificate(settings.tls_cert, settings.tls_key)
    authenticator = Authenticator.from_settings(settings)
    if owners := authenticator.owners_of_short_keys:
        logger.warning("api keys short", extra={"keys": len(owners), "owners": named(owners)})
    if authenticator.tokens is not None and authenticator.tokens.has_short_secret:
        logger.warning("token secret short")
    models = load_models(settings.models, settings.models_skip).for_clients()
    redis = connect(settings)
    # Without an answer of Redis the check is skipped: a worker makes it too, and cannot skip it.
    with contextlib.suppress(Unavailable):
        await check_server(redis)
        await agree(redis, settings)
    pipeline = open_pipeline(settings.redis_url, answer_s=REDIS_ANSWER_S)
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
        node.metrics.watch_shards(functools.partial(shard_states, redis))
        hub.first_tokens.observe = node.metrics.first_tokens.observe
        node.acceptance.on_asked = hub.first_tokens.expect
        moments = open_pipeline(settings.redis_url, answer_s=REDIS_ANSWER_S)
        node.timeline = TimelineWriter(redis, settings, pipeline=moments)
        if node.timeline.is_on:
            hub.audience.listener = node.note_readers
        await serve_node(node, listener, stopping, certificate, shares_port=shares_port)
    return 0


async def serve_node(
    node: Node,
    listener: socket.socket,
    stopping: asyncio.Event,
    certificate: Certificate | None = None,
    *,
    shares_port: bool = False,
) -> None:
    """Serve until `stopping` is set, then drain within the setting `drain_s`."""
    drain_s = node.settings.drain_s
    plain_s = min(PLAIN_REQUESTS_S_MAX, drain_s * PLAIN_REQUESTS_SHARE)
    tls = None
    if certificate is not None:
        tls = TlsListener(listener, certificate, is_tls_only=node.settings.is_tls_only)
    config = configuration(node, plain_s)
    server = Server(config, tls)
    calls = GrpcService(node, config.app)  # type: ignore[arg-type]
    await calls.open(certificate, is_shared=shares_port)
    settle()
    async with asyncio.TaskGroup() as group:
        background = [
            group.create_task(work, name=name) for name, work in background_work(node, certificate)
        ]
        calls.watch_health(group)
        serving = group.create_task(server.serve([listener]), name="uvicorn")
        await server.is_listening.wait()
        if tls is not None:
            group.create_task(tls.run(server.protocol), name="tls")
        say_ready(url_of(listener, "http" if tls is None else "https"))
        await stopping.wait()
        logger.info("api draining", extra={"readers": len(node.hub.connections)})
        node.is_draining = True
        calls.begin_drain(group, drain_s)
        async with asyncio.TaskGroup() as leaving:
            for transfers in (node.uploads, node.downloads):
                leaving.create_task(transfers.drain(drain_s - plain_s))
            await node.hub.drain(drain_s - plain_s)
        server.stop()
        await serving
        await calls.close()
        with contextlib.suppress(Unavailable):
            await node.places.write()
        for task in background:
            task.cancel()
        node.hub.audience.tell(is_last=True)
        await node.timeline.close()
    logger.info("api stopped")


def background_work(
    node: Node, certificate: Certificate | None
) -> Iterator[tuple[str, Coroutine[None, None, None]]]:
    """Yield the name of each task that runs until the node stops, and its work."""
    yield "loop lag", node.metrics.watch_loop()
    yield "node report", NodeReporter(node).run()
    yield "janitor", Janitor(node.redis, node.store, node.settings).run()
    yield "credentials", node.authenticator.run()
    yield "limits", node.limits.run()
    yield "readers", node.places.run()
    yield "shares", node.share_watch.run()
    yield "planners", node.renew_planners()
    yield "redis", follow_redis(node.settings)
    yield "model list", follow_list(node.redis, node.models)
    yield "timeline", node.timeline.run()
    if certificate is not None:
        yield "certificate", certificate.run()


def say_ready(url: str) -> None:
    """Tell a supervisor, and a person, where the node listens."""
    print(f"tailrace api ready on {url}", file=sys.stderr, flush=True)  # noqa: T201


def configuration(node: Node, plain_s: float) -> uvicorn.Config:
    """Return uvicorn's configuration.

    Args:
        plain_s: how long a stopping server waits for plain requests, s.
    """
    settings = node.settings
    # This logger writes a line for each WebSocket with its query, which may hold ?access_token=.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    limit = ConnectionLimit(
        connections_max=process_connections_max(),
        now=time.monotonic,
        peers=node.peers,
        address_max=settings.address_connections_max,
    )
    return uvicorn.Config(
        create_app(node),
        http=functools.partial(HttpProtocol, connection_limit=limit),  # type: ignore[arg-type]
        ws=functools.partial(  # type: ignore[arg-type]
            WebSocketProtocol,
            connection_limit=limit,
            room=node.bodies,
            is_deflating=settings.is_ws_deflate,
        ),
        ws_max_size=settings.body_bytes_max,
        ws_ping_interval=None,  # the hub's heartbeats ping (api/readers/websocket_sender.py)
        ws_per_message_deflate=False,  # api/transport/websocket_deflate.py has its own
        lifespan="off",  # `run` opens and closes the node's parts
        log_config=None,
        access_log=False,  # its lines would hold access_token
        # api/transport/peer.py reads X-Forwarded-For, and only from trusted proxies.
        proxy_headers=False,
        server_header=False,
        # uvicorn passes the value to `call_later`, which takes fractions.
        timeout_keep_alive=settings.keep_alive_s,  # type: ignore[arg-type]
        timeout_graceful_shutdown=math.ceil(plain_s),
    )


def take_signals() -> asyncio.Event:
    """Return an event that the first SIGTERM or SIGINT sets; the second cancels the caller."""
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
    """Return a listening socket.

    Args:
        port: 0: any free port.
        is_shared: other sockets may listen on the same port (SO_REUSEPORT).

    Raises:
        ConfigurationError: the port is taken, or this machine does not have the address.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # For a name with IPv4 and IPv6 addresses take IPv4, because most clients try it.
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


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """Return the base URL of a listening socket, with an IPv6 address in brackets."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
