"""The HTTP session for webhook deliveries: only public addresses, with short timeouts.

The address is checked when its socket is created: after each DNS lookup and before each connection.
So no second DNS answer can come between check and connection, and the spelling of the address does
not matter.
"""

from __future__ import annotations

import socket
from typing import Any

import aiohttp

from shared.text.addresses import is_public

ATTEMPT_S = 15.0  # one attempt, from the DNS lookup to the head of the response
BODY_WAIT_S = 0.5  # for the body of the response, whose content is ignored
HOST_CONNECT_S = 5.0  # one TCP connection
REPLY_BYTES_MAX = 16_384  # read of a response body


class AddressRefused(OSError):
    """The host name resolves to an address that is not public."""


def open_session(*, is_private_allowed: bool) -> aiohttp.ClientSession:
    """Return a session that keeps no DNS answers, cookies or connections between two calls."""
    connector = aiohttp.TCPConnector(
        limit=0,  # jobs/webhook_slots.py limits the deliveries
        use_dns_cache=False,
        force_close=True,
        socket_factory=_any_socket if is_private_allowed else _public_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=ATTEMPT_S + BODY_WAIT_S, sock_connect=HOST_CONNECT_S),
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
