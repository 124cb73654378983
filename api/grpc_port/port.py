"""The port for gRPC of an API node: the service, its health, its description; listens and drains.

The server of grpcio runs in the node's event loop. At the drain the health turns to NOT_SERVING and
the server sends GOAWAY, so clients open their next call elsewhere; the streams go on until the hub
breaks them off, one after the other. Source: docs/dialects/grpc.md.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from starlette.types import ASGIApp

from api.dialects.grpc.messages import REQUESTS, SERVICE
from api.grpc_port.arriving import MESSAGE_BYTES_MAX, SlowMessages
from api.grpc_port.call import GrpcCall
from api.grpc_port.credentials import credentials
from api.transport.certificate import Certificate
from api.transport.connection_limit import UNLIMITED, ConnectionLimit
from api.transport.peer import TrustedProxies
from shared.config.settings import Settings
from shared.errors import ConfigurationError

logger = logging.getLogger(__name__)

CALLS_MAX = 10_000  # open calls of one node; `calls_max` of `GrpcPort.start` may be lower
STREAMS_OF_CONNECTION = 1_000  # the client opens further calls when one of these has ended
METADATA_BYTES_MAX = 16_384
PING_EVERY_S = 30.0  # a connection without traffic is asked whether it lives
PING_ANSWER_S = 20.0
CLIENT_PING_EVERY_S = 5.0  # a client that pings more often is sent away
HEALTH_EVERY_S = 1.0
UNREADY_EVERY_S = 0.25
WATCHED = ("", SERVICE)  # the names under which clients ask for the health

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class GrpcPort:
    """The listening server.

    Args:
        is_ready: whether the node would answer a prompt.
        peers: the trusted proxies.

    Attributes:
        port: on which it listens.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        is_ready: Callable[[], Awaitable[bool]],
        peers: TrustedProxies | None = None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._is_ready = is_ready
        self._slow = SlowMessages()
        self._addresses = ConnectionLimit(
            connections_max=UNLIMITED,
            now=time.monotonic,
            peers=peers,
            address_max=settings.address_connections_max,
        )
        self._health = health.aio.HealthServicer()
        self._is_stopping = False
        self.port = 0

    async def start(
        self, certificate: Certificate | None, *, calls_max: int, is_shared: bool
    ) -> None:
        """Listen.

        Args:
            certificate: of the node; None: the port speaks no TLS.
            calls_max: open calls, at most.
            is_shared: other nodes listen on the same port.

        Raises:
            ConfigurationError: the port is taken.
        """
        self._server = grpc.aio.server(
            options=options(self._settings, is_shared=is_shared),
            maximum_concurrent_rpcs=min(CALLS_MAX, calls_max),
        )
        handlers = {
            name: grpc.stream_stream_rpc_method_handler(self._handler(f"/{SERVICE}/{name}"))
            for name in REQUESTS
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, handlers),)
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        await self._tell(is_ready=False)
        self.port = self._listen(certificate)
        await self._server.start()

    def _listen(self, certificate: Certificate | None) -> int:
        settings = self._settings
        address = f"{_bracketed(settings.host)}:{settings.grpc_port}"
        try:
            if certificate is None:
                return int(self._server.add_insecure_port(address))
            return int(self._server.add_secure_port(address, credentials(certificate)))
        except RuntimeError as exc:
            raise ConfigurationError(
                f"cannot listen on {address}; TAILRACE_GRPC_PORT or --grpc-port names another"
            ) from exc

    def _handler(self, method: str) -> Callable[[Any, Any], Awaitable[None]]:
        async def handle(_: AsyncIterator[bytes], context: Any) -> None:
            call = GrpcCall(self._app, method, context, slow=self._slow, addresses=self._addresses)
            await call.run()

        return handle

    async def watch_health(self) -> None:
        """Tell clients the node's health until cancelled."""
        is_ready = False
        while True:
            if not self._is_stopping:
                is_ready = await self._is_ready()
                await self._tell(is_ready=is_ready and not self._is_stopping)
            await asyncio.sleep(HEALTH_EVERY_S if is_ready else UNREADY_EVERY_S)

    async def _tell(self, *, is_ready: bool) -> None:
        for name in WATCHED:
            await self._health.set(name, SERVING if is_ready else NOT_SERVING)

    async def drain(self, within_s: float) -> None:
        """Turn new calls away; return when the present ones are over, or after `within_s`."""
        self._is_stopping = True
        await self._tell(is_ready=False)
        await self._server.stop(within_s)

    async def close(self) -> None:
        """End the calls that still go on."""
        await self._server.stop(0)


def options(settings: Settings, *, is_shared: bool) -> list[tuple[str, int]]:
    """Return the options of grpcio's server."""
    return [
        ("grpc.so_reuseport", int(is_shared)),
        ("grpc.max_receive_message_length", min(MESSAGE_BYTES_MAX, settings.body_bytes_max)),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", METADATA_BYTES_MAX),
        ("grpc.max_concurrent_streams", STREAMS_OF_CONNECTION),
        ("grpc.max_connection_idle_ms", _ms(settings.keep_alive_s)),
        ("grpc.max_connection_age_ms", _ms(settings.connection_age_s)),
        ("grpc.keepalive_time_ms", _ms(PING_EVERY_S)),
        ("grpc.keepalive_timeout_ms", _ms(PING_ANSWER_S)),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(CLIENT_PING_EVERY_S)),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def _ms(seconds: float) -> int:
    return max(1, min(2**31 - 1, round(seconds * 1000)))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
