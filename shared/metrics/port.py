"""The metrics port of a role that serves nothing else: HTTP/1.1, `GET /metrics`, one answer each.

The port is for a scraper in the same network. It has no credentials, so by default it listens on
loopback. A peer cannot hold it: head, time and number of connections are bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from shared.errors import ConfigurationError

HEAD_BYTES_MAX = 16_384
EXCHANGE_S = 10.0  # for the head of a request and for its answer
CONNECTIONS_MAX = 16

Refresh = Callable[[], Awaitable[None]]


async def _nothing() -> None:
    """Refresh nothing: all metrics are in the registry."""


def new_registry() -> CollectorRegistry:
    """Return a registry with the metrics of this process: CPU time, memory, open files."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


class MetricsPort:
    """The port of one role.

    Args:
        refresh: reads what is read at each scrape. It must bound its own time.
    """

    def __init__(self, registry: CollectorRegistry, refresh: Refresh = _nothing) -> None:
        self._registry = registry
        self._refresh = refresh
        self._open = 0

    @contextlib.asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[int]:
        """Listen within `async with`, which gives the port; 0 takes a free one.

        Raises:
            ConfigurationError: the port is taken, or this machine does not have the address.
        """
        try:
            server = await asyncio.start_server(
                self._answer, host or None, port, limit=HEAD_BYTES_MAX
            )
        except OSError as exc:
            what = f"cannot listen on {host}:{port} for metrics: {exc.strerror}"
            raise ConfigurationError(f"{what}; --metrics-port names another port") from exc
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            # A scraper that goes away, or sends rubbish, gets no answer and needs no log line.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError,
                                     asyncio.LimitOverrunError, TimeoutError):  # fmt: skip
                async with asyncio.timeout(EXCHANGE_S):
                    writer.write(await self._response(reader))
                    await writer.drain()
        finally:
            self._open -= 1
            writer.close()

    async def _response(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, *_ = [*head.split(b" ", 2), b"", b""]
        if self._open > CONNECTIONS_MAX:
            return _response(503, b"too many scrapes at once\n")
        if target.partition(b"?")[0] != b"/metrics":
            return _response(404, b"this port serves /metrics only\n")
        if method not in (b"GET", b"HEAD"):
            return _response(405, b"use GET\n", allow="GET, HEAD")
        await self._refresh()
        body = await asyncio.to_thread(generate_latest, self._registry)
        return _response(200, body, kind=CONTENT_TYPE_LATEST, has_body=method == b"GET")


_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


def _response(
    status: int, body: bytes, *, kind: str = "text/plain", allow: str = "", has_body: bool = True
) -> bytes:
    allowed = f"Allow: {allow}\r\n" if allow else ""
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\n{allowed}"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if has_body else b"")
