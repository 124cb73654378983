"""Which network addresses may be called on behalf of a client: those of the public internet.

A URL that a client names is fetched from inside the operator's network, so what is only reachable
there must not be: loopback, private ranges, link-local (where clouds keep their credentials),
carrier NAT, multicast, and every IPv6 form with such an IPv4 address inside. Pure: resolves no
names. Source: RFC 6890; OWASP, "Server-Side Request Forgery Prevention".
"""

from __future__ import annotations

import ipaddress
import re
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address

NAT64 = IPv6Network("64:ff9b::/96")
# What the C library takes for an IPv4 address: 127.1, 2130706433, 0x7f.1, 0177.0.0.1.
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}\.?", re.IGNORECASE)
_LOCAL_NAMES = ("localhost", "local", "internal", "localdomain", "home.arpa")


def as_address(text: str) -> Address | None:
    """Return the address that `text` spells, without its zone; None: it spells none.

    An IPv4 address within an IPv6 one (`::ffff:192.0.2.1`) is the IPv4 address: that is how a
    socket for both names it.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_public(address: str) -> bool:
    """Whether an address, as a resolver gives it, may be connected to."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        inner = _inner(found)
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


def _inner(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a router would make of this one."""
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
    """Whether a URL's host says by itself, in whatever spelling, that it is not public.

    What a name leads to can only be judged when it is connected to.
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
            return True  # a number that is no address: nothing public answers there
    return False
