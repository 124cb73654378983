"""Whose address a request comes from: the peer's own, or the one that a trusted proxy names.

A limit per address needs an address that its owner cannot choose. The peer of a connection is one.
`X-Forwarded-For` is one only where a trusted proxy has written it: each proxy appends the address
that it saw, so the list is read from the right, past proxies that are trusted themselves, to the
first that is not. What stands to the left of that one is what the client wrote, and is not read.

An IPv6 address counts as its /64: one customer's line has at least so many addresses.

Pure: no I/O, no time. Source: docs/operations.md, `TAILRACE_TRUSTED_PROXIES`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from shared.errors import ConfigurationError
from shared.text.addresses import Address, as_address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

VARIABLE = "TAILRACE_TRUSTED_PROXIES"
IPV6_PREFIX = 64
NO_ADDRESS = "unknown"  # of a peer on a Unix socket, or one that is gone
FORWARDED = b"x-forwarded-for"

Headers = Iterable[tuple[bytes, bytes]]


class Peers:
    """Knows which peers are proxies that may name somebody else.

    Args:
        trusted: the networks of those proxies.
    """

    def __init__(self, trusted: Iterable[Network] = ()) -> None:
        self._trusted = tuple(trusted)

    @classmethod
    def read(cls, value: str) -> Peers:
        """Read addresses and networks (`10.0.0.0/8`), separated by commas.

        Raises:
            ConfigurationError: one is neither, or a network has bits set behind its prefix.
        """
        networks: list[Network] = []
        for part in filter(None, map(str.strip, value.split(","))):
            try:
                networks.append(ipaddress.ip_network(part))
            except ValueError as exc:
                raise ConfigurationError(
                    f"{VARIABLE}: {part!r} is neither an address nor a network like 10.0.0.0/8"
                ) from exc
        return cls(networks)

    def is_trusted(self, host: str | None) -> bool:
        """Whether the peer at `host` may name another address."""
        address = read_address(host or "")
        return address is not None and self._trusts(address)

    def origin(self, host: str | None, headers: Headers) -> str:
        """Return the address that asks, as limits count it.

        Args:
            host: of the peer; None where it has no address.
            headers: of the request, names in lower case.
        """
        found = self._find(host, headers)
        return NO_ADDRESS if found is None else counted_as(found)

    def limited(self, host: str | None, headers: Headers) -> str | None:
        """Return the same for a limit on connections; None: the address has no limit.

        Loopback has none, because local programs and a proxy beside the node come from there; nor
        has a trusted proxy that names nobody.
        """
        found = self._find(host, headers)
        if found is None or found.is_loopback or self._trusts(found):
            return None
        return counted_as(found)

    def _find(self, host: str | None, headers: Headers) -> Address | None:
        address = read_address(host or "")
        if address is None or not self._trusts(address):
            return address
        for entry in reversed(_entries(headers)):
            named = read_address(entry)
            if named is None:
                return address  # whoever stands behind it: this proxy answers for them
            address = named
            if not self._trusts(address):
                break
        return address

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def read_address(text: str) -> Address | None:
    """Return the address in `text`, which may have a port, brackets or a zone; None: none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    return as_address(text)


def counted_as(address: Address) -> str:
    """Return the name under which limits count an address."""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))


def _entries(headers: Headers) -> list[str]:
    lines = [value.decode("latin-1") for name, value in headers if name == FORWARDED]
    return [entry for line in lines for entry in line.split(",")]
