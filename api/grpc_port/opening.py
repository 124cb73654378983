"""Opens the port for gRPC of a node, if its settings name one.

Without one, or without the extra `grpc`, grpcio is not loaded.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from starlette.types import ASGIApp

from api.node import Node
from api.resources.health import HealthRoutes
from api.transport.certificate import Certificate
from api.transport.connection_limit import process_connections_max
from shared.errors import ConfigurationError

NEEDS = "--grpc-port needs the extra grpc: pip install 'tailrace[grpc]'"


class GrpcService:
    """The port for gRPC of one node, or none."""

    def __init__(self, node: Node, app: ASGIApp) -> None:
        self._node = node
        self._app = app
        self._port: Any = None  # a GrpcPort
        self._watching: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """On which it listens; 0: it does not."""
        return 0 if self._port is None else int(self._port.port)

    async def open(self, certificate: Certificate | None, *, is_shared: bool) -> None:
        """Listen, if the settings name a port.

        Args:
            certificate: of the node; None: it speaks no TLS.
            is_shared: other nodes listen on the same port.

        Raises:
            ConfigurationError: grpcio is not installed, or the port cannot be opened.
        """
        if not self._node.settings.grpc_port:
            return
        try:
            module = import_module("api.grpc_port.port")
        except ImportError as exc:
            raise ConfigurationError(NEEDS) from exc
        health = HealthRoutes(self._node)

        async def is_ready() -> bool:
            return all((await health.checks()).values())

        self._port = module.GrpcPort(self._app, self._node.settings, is_ready, self._node.peers)
        await self._port.start(
            certificate, calls_max=process_connections_max(), is_shared=is_shared
        )

    def watch_health(self, group: asyncio.TaskGroup) -> None:
        """Tell clients the node's health from now on, in a task of `group`, until `close`."""
        if self._port is not None:
            self._watching = group.create_task(self._port.watch_health(), name="grpc health")

    def begin_drain(self, group: asyncio.TaskGroup, within_s: float) -> None:
        """Turn new calls away; the present ones may go on for `within_s`."""
        if self._port is not None:
            group.create_task(self._port.drain(within_s), name="grpc drain")

    async def close(self) -> None:
        """End the calls that still go on."""
        if self._watching is not None:
            self._watching.cancel()
        if self._port is not None:
            await self._port.close()
