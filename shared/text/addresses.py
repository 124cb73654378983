"""Decides which network addresses may be called for a client: only public ones.

This system calls a client's URL from inside the operator's network. So these are refused: loopback,
private ranges, link-local (where clouds serve credentials), carrier NAT, multicast, and every IPv6
form that contains such an IPv4 address. Pure: resolves no names.
Source: RFC 6890; OWASP, "Server-Side Request Forgery Prevention".
"""

from __future__ import annotations

import ipaddress
import re
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address

NAT64 = IPv6Network("64:ff9b::/96")
# Forms that the C library accepts as an IPv4 address: 127.1, 2130706433, 0x7f.1, 0177.0.0.1.
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}\.?", re.IGNORECASE)
_LOCAL_NAMES = ("localhost", "local", "internal", "localdomain", "home.arpa")


def as_address(text: str) -> Address | None:
    """Parse an address, without its zone; None: `text` is no address.

    An IPv4 address in IPv6 form (`::ffff:192.0.2.1`) becomes the IPv4 address. A socket for both
    families reports IPv4 peers in this form.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def format_authority(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_public(address: str) -> bool:
    """Whether an address from a resolver is public. False: it is not, or is no address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        inner = _inner_ipv4(found)
        if inner is not None:
            return _is_public(inner)
        return _is_public(found) and not found.is_site_local
    return _is_public(found)


def _is_public(address: Address) -> bool:
    return (
        address.is_global
        and not address.is_private
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_loopback
        and not address.is_unspecified
    )


def _inner_ipv4(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address to which a router would translate an IPv6 address, or None."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def is_plainly_private(host: str) -> bool:
    """Whether the host of a URL is not public by its text alone, in any spelling.

    False for most names: their addresses are checked when a connection is made.
    """
    host = host.lower().rstrip(".")
    if any(host == name or host.endswith("." + name) for name in _LOCAL_NAMES):
        return True
    if ":" in host:
        return not is_public(host.strip("[]").partition("%")[0])
    if _NUMERIC.fullmatch(host):
        try:
            return not is_public(socket.inet_ntoa(socket.inet_aton(host)))
        except OSError:
            return True  # a number that is no address
    return False
