"""Where a request carries its credentials: headers, query, or the subprotocols of a WebSocket.

The first place that is present counts, in this order, so a request with two credentials always gets
the same answer:

    Authorization: Bearer <credential>
    api-key: <credential>
    x-api-key: <credential>
    ?access_token=<credential>
    Sec-WebSocket-Protocol: tailrace.v1, bearer.<credential>

Pure. Source: docs/protocol.md, "Credentials".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

KEY_HEADERS = ("api-key", "x-api-key")
QUERY_NAME = "access_token"
SUBPROTOCOL_PREFIX = "bearer."


class Presented(NamedTuple):
    """The credentials of one request.

    Attributes:
        credential: a key or a token; empty: there is none, or it cannot be one.
        is_silent: the request has no place for credentials at all, not even an empty one.
    """

    credential: bytes
    is_silent: bool


def read_presented(
    headers: Mapping[str, str], query: Mapping[str, str], subprotocols: Sequence[str] = ()
) -> Presented:
    """Return the credentials of a request.

    Args:
        headers: by lower-case name, as latin-1 text (Starlette's `Headers`).
        subprotocols: those that a WebSocket offers.
    """
    if authorization := headers.get("authorization"):
        scheme, _, rest = authorization.partition(" ")
        return Presented(_latin1(rest) if scheme.lower() == "bearer" else b"", is_silent=False)
    for name in KEY_HEADERS:
        if value := headers.get(name):
            return Presented(_latin1(value), is_silent=False)
    if value := query.get(QUERY_NAME):
        return Presented(value.encode("utf-8", "surrogatepass"), is_silent=False)
    for offered in subprotocols:
        if offered.startswith(SUBPROTOCOL_PREFIX):
            return Presented(_latin1(offered.removeprefix(SUBPROTOCOL_PREFIX)), is_silent=False)
    places = ("authorization", *KEY_HEADERS)
    return Presented(b"", not any(name in headers for name in places) and QUERY_NAME not in query)


def _latin1(value: str) -> bytes:
    return value.strip().encode("latin-1", "replace")
