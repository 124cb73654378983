"""The pool of connections to model servers, shared by all backends of the process.

Opens connections, keeps them while they are idle, and hands them out again. The worker's slots
bound their number. No state passes from one request to the next: no cookies and no redirects.
Connections with other certificates or another proxy are other connections. Knows no models and no
answers.
"""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar
from urllib.parse import quote, unquote, urlsplit

from aiohappyeyeballs import start_connection

from shared.config.settings import Settings
from shared.text.redaction import remember
from workers.backends.http.exchange import Exchange
from workers.backends.http.proxy import Proxy, open_tunnel
from workers.backends.http.tls import TlsFiles, client_context
from workers.backends.reading.rate_limit import RateLimit

IDLE_S = 4.0  # uvicorn, and so vLLM, closes idle connections after 5 s: close them before
NEXT_ADDRESS_DELAY_S = 0.25  # RFC 8305, "Connection Attempt Delay"
_PORTS = {"http": 80, "https": 443}
P = TypeVar("P", bound=asyncio.BaseProtocol)
_PATH_SAFE = "/:@!$&'()*+,;=~%-._"


class AddressInvalid(ValueError):
    """The URL cannot be the address of a model server."""


class Origin(NamedTuple):
    """The end point of a connection, and the way to it."""

    host: str
    port: int
    is_tls: bool
    tls: TlsFiles = TlsFiles()
    proxy: Proxy | None = None


class UpstreamAddress:
    """The parsed URL of a model server, ready to make requests.

    Args:
        url: http or https; a user and password in it become a Basic authorization.
        subpath: appended to the path of the URL.
        headers: sent with every request.
        method: of each request.
        query: appended to the query of the URL, without `?`.
        tls: the files of the connection.
        proxy: the proxy on the way; None: none.

    Raises:
        AddressInvalid: the scheme is not http or https, or the host or port is missing or invalid.
    """

    def __init__(
        self,
        url: str,
        subpath: str,
        headers: Mapping[str, str],
        *,
        method: str = "POST",
        query: str = "",
        tls: TlsFiles = TlsFiles(),  # noqa: B008
        proxy: Proxy | None = None,
    ) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
            name = host if host.isascii() else host.encode("idna").decode()
        except (ValueError, KeyError) as exc:
            raise AddressInvalid(url) from exc
        if name.split() != [name] or not name.isprintable():
            raise AddressInvalid(url)
        self.origin = Origin(name, port, parts.scheme == "https", tls, proxy)
        path = quote(parts.path.rstrip("/") + subpath, safe=_PATH_SAFE) or "/"
        whole = "&".join(filter(None, (parts.query, query)))
        query = f"?{quote(whole, safe=_PATH_SAFE + '?')}" if whole else ""
        authority = f"[{name}]" if ":" in name else name
        if port != _PORTS[parts.scheme]:
            authority += f":{port}"
        # A proxy for http:// reads the server from the request line (RFC 9112, 3.2.2).
        is_forwarded = proxy is not None and not self.origin.is_tls
        line_start = f"{method} http://{authority}" if is_forwarded else f"{method} "
        lines = [f"{line_start}{path}{query} HTTP/1.1", f"Host: {authority}"]
        if is_forwarded and proxy is not None and proxy.authorization:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        lines += [f"{header}: {value}" for header, value in headers.items()]
        has_authorization = any(header.lower() == "authorization" for header in headers)
        if parts.username is not None and not has_authorization:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            encoded = base64.b64encode(pair.encode()).decode()
            remember(encoded)
            lines.append(f"Authorization: Basic {encoded}")
        self._head = "\r\n".join([*lines, "Content-Length: "]).encode()

    def request(self, body: bytes) -> bytes:
        """Return the bytes of a request with this body."""
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)


class UpstreamHttp:
    """The connections of this process to all its model servers.

    Attributes:
        on_limit: is told what an answer says about rate limits, with the name of the model.
    """

    def __init__(self, settings: Settings) -> None:
        self.on_limit: Callable[[str, RateLimit], None] | None = None
        self._connect_s = settings.upstream_connect_s
        self._idle: dict[Origin, list[Exchange]] = {}

    def idle(self, origin: Origin) -> Exchange | None:
        """Take an idle connection from the pool; None: there is none.

        The server may close it at this moment: `Exchange.send` and `head` then raise.
        """
        idle = self._idle.get(origin)
        while idle:
            exchange = idle.pop()
            if exchange.idle_timer is not None:
                exchange.idle_timer.cancel()
            if not exchange.is_lost:
                return exchange
        return None

    async def connect(self, origin: Origin, deadline: float) -> Exchange:
        """Open a connection for requests over HTTP; raises as `connect_as`."""
        return await self.connect_as(Exchange, origin, deadline, is_tunnelled=origin.is_tls)

    async def connect_as(
        self, protocol: Callable[[], P], origin: Origin, deadline: float, *, is_tunnelled: bool
    ) -> P:
        """Open a connection that `protocol` reads.

        Args:
            is_tunnelled: a proxy only passes bytes on. Otherwise it reads the requests itself.

        Raises:
            OSError: no server answers there, TLS failed, or the proxy refused.
            TimeoutError: not connected before `deadline`, or within `upstream_connect_s`.
        """
        loop = asyncio.get_running_loop()
        proxy = origin.proxy
        async with asyncio.timeout_at(min(deadline, loop.time() + self._connect_s)):
            sock = await _open_socket(*(proxy[:2] if proxy else (origin.host, origin.port)))
            try:
                if proxy is not None and is_tunnelled:
                    await open_tunnel(sock, origin.host, origin.port, proxy)
                tls = client_context(origin.tls) if origin.is_tls else None
            except BaseException:
                sock.close()
                raise
            name = origin.host if origin.is_tls else None
            made = await loop.create_connection(protocol, sock=sock, ssl=tls, server_hostname=name)
        return made[1]

    def release(self, origin: Origin, exchange: Exchange) -> None:
        """Take a connection back: keep it if it can be used again, otherwise close it."""
        if exchange.finish():
            exchange.idle_timer = asyncio.get_running_loop().call_later(IDLE_S, exchange.abort)
            idle = self._idle.setdefault(origin, [])
            idle[:] = [other for other in idle if not other.is_lost]
            idle.append(exchange)

    async def aclose(self) -> None:
        """Close the idle connections. May be repeated."""
        by_origin, self._idle = self._idle, {}
        for exchange in (exchange for idle in by_origin.values() for exchange in idle):
            if exchange.idle_timer is not None:
                exchange.idle_timer.cancel()
            exchange.abort()
        await asyncio.sleep(0)


async def _open_socket(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as exc:
        raise socket.gaierror(socket.EAI_NONAME, "no such host") from exc
    # If the addresses of one family do not answer, this costs only the delay.
    return await start_connection(found, happy_eyeballs_delay=NEXT_ADDRESS_DELAY_S, interleave=1)
