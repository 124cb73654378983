"""The client address of a request: the peer's address, or the address that a trusted proxy names.

A limit for each address needs an address that the client cannot choose. The peer's address of a
connection is such an address. `X-Forwarded-For` is trusted only where a trusted proxy has written
it: each proxy appends the address that it saw. So the list is read from the right, past the
addresses of trusted proxies, to the first other address. The client may have written everything
to the left of that address, so the rest is not read.

An IPv6 address counts as its /64 network, because one customer's line has at least a /64.

Pure: no I/O, no time. Source: docs/operations.md, `TAILRACE_TRUSTED_PROXIES`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from shared.errors import ConfigurationError
from shared.text.addresses import Address, as_address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PROXIES_VARIABLE = "TAILRACE_TRUSTED_PROXIES"
IPV6_PREFIX = 64
NO_ADDRESS = "unknown"  # a peer on a Unix socket, or a peer that has disconnected
FORWARDED = b"x-forwarded-for"
# A proxy that passes a request on writes one of these headers, unless it hides the client.
PROXY_HEADERS = frozenset({FORWARDED, b"x-forwarded-host", b"x-real-ip", b"forwarded", b"via"})

Headers = Iterable[tuple[bytes, bytes]]


class TrustedProxies:
    """The trusted proxies, and the client addresses of requests that come through them.

    Args:
        trusted: the networks of the trusted proxies.
    """

    def __init__(self, trusted: Iterable[Network] = ()) -> None:
        self._trusted = tuple(trusted)

    @classmethod
    def read(cls, value: str) -> TrustedProxies:
        """Read addresses and networks (`10.0.0.0/8`), separated by commas.

        Raises:
            ConfigurationError: an entry is not an address or a network, or a network has bits set
                behind its prefix.
        """
        networks: list[Network] = []
        for part in filter(None, map(str.strip, value.split(","))):
            try:
                networks.append(ipaddress.ip_network(part))
            except ValueError as exc:
                raise ConfigurationError(
                    f"{PROXIES_VARIABLE}: {part!r} is neither an address nor a network "
                    "like 10.0.0.0/8"
                ) from exc
        return cls(networks)

    def is_trusted(self, host: str | None) -> bool:
        """Return whether the peer at `host` is a trusted proxy."""
        address = read_address(host or "")
        return address is not None and self._trusts(address)

    def client_address(self, host: str | None, headers: Headers) -> str:
        """Return the client's address as limits count it; `NO_ADDRESS` where there is none.

        Args:
            host: the peer's address; None: the peer has no address.
            headers: the request's headers, names in lower case.
        """
        address = self._find(host, headers)
        return NO_ADDRESS if address is None else limit_key(address)

    def limited_address(self, host: str | None, headers: Headers) -> str | None:
        """Return the client's address for a limit on connections; None: it has no limit.

        Loopback has no limit, because local programs and a proxy on the same machine use it. A
        trusted proxy that names no client has no limit either.
        """
        address = self._find(host, headers)
        if address is None or address.is_loopback or self._trusts(address):
            return None
        return limit_key(address)

    def _find(self, host: str | None, headers: Headers) -> Address | None:
        address = read_address(host or "")
        if address is None or not self._trusts(address):
            return address
        for entry in reversed(_forwarded_entries(headers)):
            forwarded = read_address(entry)
            if forwarded is None:
                return address  # an unreadable entry: count the proxy that wrote the entry
            address = forwarded
            if not self._trusts(address):
                break
        return address

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def read_address(text: str) -> Address | None:
    """Return the address in `text`, without port, brackets and zone; None: not an address."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    return as_address(text)


def limit_key(address: Address) -> str:
    """Return the key under which limits count an address: IPv4 as it is, IPv6 as its /64."""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))


def is_passed_on(headers: Headers) -> bool:
    """Whether a proxy has passed a request on, as far as its headers show."""
    return any(name in PROXY_HEADERS for name, _ in headers)


def _forwarded_entries(headers: Headers) -> list[str]:
    lines = [value.decode("latin-1") for name, value in headers if name == FORWARDED]
    return [entry for line in lines for entry in line.split(",")]
