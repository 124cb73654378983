"""The process's connections towards model servers: made, kept while they are idle, used again.

Knows nothing of models and nothing of answers; the worker's slots bound how many connections there
are. Nothing is carried from one request to the next: no cookies, no redirects, no proxies from the
environment.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from aiohappyeyeballs import start_connection

from shared.config.settings import Settings
from shared.text.redaction import remember
from workers.backends.http.exchange import Exchange

# uvicorn, and so vLLM, closes idle connections after 5 s: let go of them before.
IDLE_S = 4.0
NEXT_ADDRESS_S = 0.25  # RFC 8305
_PORTS = {"http": 80, "https": 443}
_PATH_SAFE = "/:@!$&'()*+,;=~%-._"


class AddressInvalid(ValueError):
    """Not a URL of a model server."""


class Origin(NamedTuple):
    """Where connections lead."""

    host: str
    port: int
    is_tls: bool


class UpstreamAddress:
    """A URL as requests to it need it.

    Args:
        below: what follows the URL's own path.
        headers: sent with every request.

    Raises:
        AddressInvalid: it has no host, or nothing can be there.
    """

    def __init__(self, url: str, below: str, headers: Mapping[str, str]) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
            name = host if host.isascii() else host.encode("idna").decode()
        except (ValueError, KeyError) as exc:
            raise AddressInvalid(url) from exc
        if name.split() != [name] or not name.isprintable():
            raise AddressInvalid(url)
        self.origin = Origin(name, port, parts.scheme == "https")
        path = quote(parts.path.rstrip("/") + below, safe=_PATH_SAFE) or "/"
        query = f"?{quote(parts.query, safe=_PATH_SAFE + '?')}" if parts.query else ""
        authority = f"[{name}]" if ":" in name else name
        if port != _PORTS[parts.scheme]:
            authority += f":{port}"
        lines = [f"POST {path}{query} HTTP/1.1", f"Host: {authority}"]
        lines += [f"{header}: {value}" for header, value in headers.items()]
        if parts.username is not None and "Authorization" not in headers:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            encoded = base64.b64encode(pair.encode()).decode()
            remember(encoded)
            lines.append(f"Authorization: Basic {encoded}")
        self._head = "\r\n".join([*lines, "Content-Length: "]).encode()

    def request(self, body: bytes) -> bytes:
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)


class UpstreamHttp:
    """Connections of this process to all its model servers."""

    def __init__(self, settings: Settings) -> None:
        self._connect_s = settings.upstream_connect_s
        self._idle: dict[Origin, list[Exchange]] = {}

    def idle(self, origin: Origin) -> Exchange | None:
        """Return a connection that was used before; the server may just be closing it."""
        waiting = self._idle.get(origin)
        while waiting:
            exchange = waiting.pop()
            if exchange.idle_timer is not None:
                exchange.idle_timer.cancel()
            if not exchange.is_lost:
                return exchange
        return None

    async def connect(self, origin: Origin, deadline: float) -> Exchange:
        """Make a connection.

        Raises:
            OSError: nobody is there, or TLS failed.
            TimeoutError: not before `deadline`, or within the time that a connection may take.
        """
        loop = asyncio.get_running_loop()
        host, port, is_tls = origin
        async with asyncio.timeout_at(min(deadline, loop.time() + self._connect_s)):
            try:
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except UnicodeError as exc:
                raise OSError("no such host") from exc
            # A host of two families of which one leads nowhere costs no more than this delay.
            sock = await start_connection(found, happy_eyeballs_delay=NEXT_ADDRESS_S, interleave=1)
            if is_tls:
                made = await loop.create_connection(
                    Exchange, sock=sock, ssl=_tls(), server_hostname=host
                )
            else:
                made = await loop.create_connection(Exchange, sock=sock)
        return made[1]

    def release(self, origin: Origin, exchange: Exchange) -> None:
        """Take a connection back, whatever has become of the answer."""
        if exchange.finish():
            exchange.idle_timer = asyncio.get_running_loop().call_later(IDLE_S, exchange.abort)
            waiting = self._idle.setdefault(origin, [])
            waiting[:] = [one for one in waiting if not one.is_lost]
            waiting.append(exchange)

    async def aclose(self) -> None:
        """Let go of what is idle; harmless when repeated."""
        idle, self._idle = self._idle, {}
        for exchange in (one for waiting in idle.values() for one in waiting):
            if exchange.idle_timer is not None:
                exchange.idle_timer.cancel()
            exchange.abort()
        await asyncio.sleep(0)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
