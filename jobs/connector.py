"""How receivers of webhooks are called: only at public addresses, and never for long.

The check stands where the socket for one address is made, after every look-up and before every
connection, so that there is no second answer of a name server between the two, and no spelling of
an address that it does not see.
"""

from __future__ import annotations

import socket
from typing import Any

import aiohttp

from shared.text.addresses import is_public

ATTEMPT_S = 15.0
HOST_CONNECT_S = 5.0
REPLY_BYTES_MAX = 16_384  # of a reply's body, which says nothing to us


class AddressRefused(OSError):
    """The name led to an address that is not public."""


def open_session(*, is_private_allowed: bool) -> aiohttp.ClientSession:
    """Return a session that forgets names, cookies and connections between two calls."""
    connector = aiohttp.TCPConnector(
        limit=0,  # the queue of deliveries has the limits
        use_dns_cache=False,
        force_close=True,
        socket_factory=_any_socket if is_private_allowed else _public_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=ATTEMPT_S, sock_connect=HOST_CONNECT_S),
        auto_decompress=False,
        trust_env=False,
    )


def _public_socket(address: Any) -> socket.socket:
    if not is_public(str(address[4][0])):
        raise AddressRefused("not a public address")
    return _any_socket(address)


def _any_socket(address: Any) -> socket.socket:
    family, kind, protocol, *_ = address
    found = socket.socket(family=family, type=kind, proto=protocol)
    found.setblocking(False)
    return found
