"""HTTP proxies between a worker and a model server: which one, and the tunnel through it.

The environment is read as curl and most HTTP clients read it: HTTPS_PROXY, HTTP_PROXY and ALL_PROXY
for the scheme of the model's URL, NO_PROXY for exceptions, names in lower case first. As in Go, a
server on this machine is never reached through a proxy of the environment, because local models
would need NO_PROXY otherwise. Requests to https:// go through a tunnel (CONNECT, RFC 9110, 9.3.6);
requests to http:// are sent to the proxy with the whole URL.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from shared.errors import ConfigurationError
from shared.text.addresses import format_authority
from shared.text.redaction import remember, remember_url

HEAD_BYTES_MAX = 65_536  # of the proxy's answer to CONNECT
PORT = 80  # of a proxy whose URL names no port


class ProxyRefused(OSError):
    """The proxy did not open the tunnel. The message names no host.

    Attributes:
        status: of the proxy's answer; 0: the answer is not HTTP.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Proxy(NamedTuple):
    """Where a proxy listens.

    Attributes:
        authorization: the value of `Proxy-Authorization`; "": none.
    """

    host: str
    port: int
    authorization: str = ""

    @property
    def authority(self) -> str:
        """The host and the port, as in a URL."""
        return format_authority(self.host, self.port)

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port})"  # without the credentials


def parse_proxy(url: str, where: str) -> Proxy:
    """Read the URL of a proxy. Without a scheme it is http://.

    Args:
        where: the variable or member that holds the URL, for messages.

    Raises:
        ConfigurationError: no HTTP proxy can be at this URL. The message does not repeat the URL,
            because it may hold a password.
    """
    remember_url(url)
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname or "", parts.port or PORT
    except ValueError as exc:
        # The error may quote a password that stands where the port should be.
        raise ConfigurationError(f"{where}: must be http://host:port") from exc
    if parts.scheme != "http":
        raise ConfigurationError(
            f"{where}: {parts.scheme}:// proxies are not supported; name an HTTP proxy, "
            "http://host:port (requests to https:// servers are encrypted through it)"
        )
    if not host.isascii() or host.split() != [host] or not host.isprintable():
        raise ConfigurationError(f"{where}: must be http://host:port")
    return Proxy(host, port, _authorization(parts.username, parts.password))


def proxy_of(
    host: str, port: int, *, is_tls: bool, environ: Mapping[str, str]
) -> tuple[str, str] | None:
    """Return the variable that names the proxy for a server, and its URL; None: no proxy."""
    for variable in ("HTTPS_PROXY" if is_tls else "HTTP_PROXY", "ALL_PROXY"):
        if found := _value(variable, environ):
            is_excepted = _is_local(host) or in_no_proxy(host, port, _value("NO_PROXY", environ))
            return None if is_excepted else (variable, found)
    return None


def in_no_proxy(host: str, port: int, no_proxy: str) -> bool:
    """Whether NO_PROXY excepts a server.

    An entry is `*`, a domain (with all names in it; a leading dot or `*.` changes nothing), an
    address, or a network such as `10.0.0.0/8`; a domain or address may have a port.
    """
    host = host.lower().rstrip(".")
    for entry in no_proxy.replace(",", " ").lower().split():
        if entry == "*" or _is_in_network(host, entry):
            return True
        name, its_port = _split_port(entry)
        name = name.removeprefix("*").strip(".")
        is_port = its_port in ("", str(port))
        if name and is_port and (host == name or host.endswith(f".{name}")):
            return True
    return False


async def open_tunnel(sock: socket.socket, host: str, port: int, proxy: Proxy) -> None:
    """Ask the proxy behind a connected socket for a tunnel; then the socket leads to the server.

    Raises:
        ProxyRefused: the proxy did not open the tunnel.
        OSError: the connection broke.
    """
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, connect_request(host, port, proxy))
    head = bytearray()
    while b"\r\n\r\n" not in head:
        data = await loop.sock_recv(sock, 4_096)
        if not data:
            raise ProxyRefused("the proxy closed the connection")
        head += data
        if len(head) > HEAD_BYTES_MAX:
            raise ProxyRefused("the proxy's answer is too long")
    version, _, rest = head.split(b"\r\n", 1)[0].partition(b" ")
    status = rest[:3]
    if not version.startswith(b"HTTP/1.") or not status.isdigit():
        raise ProxyRefused("the proxy's answer is not HTTP")
    if not status.startswith(b"2"):
        raise ProxyRefused(f"the proxy answered {status.decode()}", int(status))
    if not head.endswith(b"\r\n\r\n"):
        # A TLS server says nothing before the client does.
        raise ProxyRefused("the proxy sent bytes after its answer")


def connect_request(host: str, port: int, proxy: Proxy) -> bytes:
    """Return the bytes of a CONNECT."""
    authority = format_authority(host, port)
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", "User-Agent: tailrace"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return "\r\n".join([*lines, "", ""]).encode()


def _authorization(user: str | None, password: str | None) -> str:
    if user is None:
        return ""
    pair = f"{unquote(user)}:{unquote(password or '')}"
    encoded = base64.b64encode(pair.encode()).decode()
    remember(encoded)
    return f"Basic {encoded}"


def _value(variable: str, environ: Mapping[str, str]) -> str:
    lower = environ.get(variable.lower())
    return (environ.get(variable, "") if lower is None else lower).strip()


def _is_local(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_in_network(host: str, entry: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:  # a name, or an address with a port
        return False


def _split_port(entry: str) -> tuple[str, str]:
    """Split `host:port` and `[address]:port`; a bare IPv6 address has no port."""
    if entry.startswith("["):
        name, _, port = entry[1:].partition("]")
        return name, port.removeprefix(":")
    if entry.count(":") == 1:
        name, _, port = entry.partition(":")
        return name, port
    return entry, ""
