"""Decides whether a stream is compressed, and how: once, before the head of the answer.

A stream is compressed only if the operator has configured an encoding, the client has asked for it,
and the clients of the dialect are known to decode it piece by piece. Knows no log.
"""

from __future__ import annotations

from typing import cast

from starlette.types import Scope

from api.compression.encoding import Encoding, SharedEncoding
from api.compression.encodings import Encodings
from api.intake.negotiation import choose_encodings
from api.readers.encoded_body import EncodedBody, PrivateBody, SharedBody
from api.transport.extensions import WIRE
from shared.log.fold import Dialect, Headers

VARY = (b"vary", b"Accept-Encoding")


def choose_encoding(scope: Scope, encodings: Encodings, dialect: Dialect) -> Encoding | None:
    """Return the encoding of a stream; None: its bytes are sent as they are."""
    if not encodings.by_name or not dialect.is_compressible:
        return None
    accept = b",".join(value for name, value in scope["headers"] if name == b"accept-encoding")
    for name in choose_encodings(accept.decode("latin-1"), encodings.by_name):
        encoding = encodings.by_name[name]
        if _is_shared(scope, encoding) or encodings.has_room:
            return encoding
    return None


def encoding_headers(encodings: Encodings, dialect: Dialect, encoding: Encoding | None) -> Headers:
    """Return `Content-Encoding`, and `Vary`, because the encoding depends on the request."""
    if not encodings.by_name or not dialect.is_compressible:
        return ()
    if encoding is None:
        return (VARY,)
    return (VARY, (b"content-encoding", encoding.name.encode()))


def new_body(scope: Scope, encodings: Encodings, encoding: Encoding) -> EncodedBody:
    """Return the body of one response."""
    if _is_shared(scope, encoding):
        return SharedBody(cast(SharedEncoding, encoding))
    return PrivateBody(encoding, encodings)


def _is_shared(scope: Scope, encoding: Encoding) -> bool:
    """Whether readers share the pieces: only the wire writes one piece to many connections."""
    return hasattr(encoding, "window") and WIRE in scope.get("extensions", {})
