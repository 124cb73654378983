"""Our errors as gRPC's and Connect's: code, message, and details of google.rpc. Pure.

The details of each error are an `ErrorInfo` with our code and whether a repeat can help, a
`RetryInfo` where the error says when, and a `BadRequest` where its message names a member. They are
encoded here, so that clients get them also from a node without protobuf.

Sources: gRPC's "Status codes and their use in gRPC", google/rpc/error_details.proto, the Connect
protocol reference, "Error codes".
"""

from __future__ import annotations

import base64
import re
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from api.dialects.grpc.wire import (
    CONNECT_END,
    TRAILERS,
    field_bytes,
    field_int,
    field_text,
    frame,
)
from shared.errors import RequestError


class Code(NamedTuple):
    """A status code: gRPC's number, Connect's name, and Connect's HTTP status."""

    number: int
    name: str
    http: int


CANCELLED = Code(1, "canceled", 499)
INVALID_ARGUMENT = Code(3, "invalid_argument", 400)
DEADLINE_EXCEEDED = Code(4, "deadline_exceeded", 504)
NOT_FOUND = Code(5, "not_found", 404)
PERMISSION_DENIED = Code(7, "permission_denied", 403)
RESOURCE_EXHAUSTED = Code(8, "resource_exhausted", 429)
FAILED_PRECONDITION = Code(9, "failed_precondition", 400)
UNIMPLEMENTED = Code(12, "unimplemented", 501)
INTERNAL = Code(13, "internal", 500)
UNAVAILABLE = Code(14, "unavailable", 503)
UNAUTHENTICATED = Code(16, "unauthenticated", 401)

# By our HTTP status. Another 4xx is a bad argument, another 5xx is internal.
_BY_STATUS = {
    0: UNAVAILABLE, 401: UNAUTHENTICATED, 403: PERMISSION_DENIED, 404: NOT_FOUND,
    405: UNIMPLEMENTED, 408: DEADLINE_EXCEEDED, 409: FAILED_PRECONDITION, 410: NOT_FOUND,
    413: RESOURCE_EXHAUSTED, 415: UNIMPLEMENTED, 429: RESOURCE_EXHAUSTED, 501: UNIMPLEMENTED,
    503: UNAVAILABLE,
}  # fmt: skip
DOMAIN = "tailrace"
_TYPES = "type.googleapis.com/google.rpc."
_MEMBER = re.compile(r"([a-z][a-z_]*(?:\[[0-9]+\])?(?:\.[a-z_]+)*)(?::| must | is | cannot )")
_EITHER = "give either prompt or messages"
MESSAGE_CHARACTERS_MAX = 2_000  # of a status: it travels in a header


class Detail(NamedTuple):
    """One detail: the name of its message in google.rpc, and its bytes."""

    name: str
    value: bytes


def code_of(error: RequestError) -> Code:
    """Return the status code of an error."""
    default = INTERNAL if error.status >= 500 else INVALID_ARGUMENT
    return _BY_STATUS.get(error.status, default)


def member_of(error: RequestError) -> str:
    """Return the member of the request that the message of an error names; empty: none."""
    if code_of(error) is not INVALID_ARGUMENT:
        return ""
    if error.message == _EITHER:
        return "prompt"
    if error.code == "cursor_invalid":
        return "cursor"
    found = _MEMBER.match(error.message)
    return found[1] if found else ""


def details_of(error: RequestError) -> list[Detail]:
    """Return the details of an error, `ErrorInfo` first."""
    facts = {"code": error.code, "retryable": "true" if error.retryable else "false"}
    entries = b"".join(
        field_bytes(3, field_text(1, name) + field_text(2, value)) for name, value in facts.items()
    )
    info = field_text(1, error.code.upper()) + field_text(2, DOMAIN) + entries
    found = [Detail("ErrorInfo", info)]
    if error.retry_after_s is not None:
        found.append(Detail("RetryInfo", field_bytes(1, field_int(1, error.retry_after_s))))
    if member := member_of(error):
        violation = field_text(1, member) + field_text(2, _shortened(error.message))
        found.append(Detail("BadRequest", field_bytes(1, violation)))
    return found


def status_bytes(error: RequestError) -> bytes:
    """Return an error as a google.rpc.Status, for `grpc-status-details-bin`."""
    packed = b"".join(
        field_bytes(3, field_text(1, _TYPES + detail.name) + field_bytes(2, detail.value))
        for detail in details_of(error)
    )
    number = field_int(1, code_of(error).number)
    return number + field_text(2, _shortened(error.message)) + packed


def trailers(error: RequestError | None) -> list[tuple[str, str]]:
    """Return the trailers of a call; None: it went well."""
    if error is None:
        return [("grpc-status", "0")]
    return [
        ("grpc-status", str(code_of(error).number)),
        ("grpc-message", quote(_shortened(error.message), safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}")),
        ("grpc-status-details-bin", unpadded(status_bytes(error))),
    ]


def trailer_frame(error: RequestError | None = None) -> bytes:
    """Return the last frame of gRPC-Web."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in trailers(error))
    return frame(lines.encode("ascii"), TRAILERS)


def connect_error(error: RequestError) -> dict[str, Any]:
    """Return an error as Connect's JSON object."""
    return {
        "code": code_of(error).name,
        "message": error.message,
        "details": [
            {"type": "google.rpc." + detail.name, "value": unpadded(detail.value)}
            for detail in details_of(error)
        ],
    }


def connect_end(error: RequestError | None = None) -> bytes:
    """Return the last frame of a stream of Connect."""
    content = {} if error is None else {"error": connect_error(error)}
    return frame(msgspec.json.encode(content), CONNECT_END)


def unpadded(raw: bytes) -> str:
    """Return base64 without padding, as gRPC and Connect write it."""
    return base64.b64encode(raw).decode("ascii").rstrip("=")


def _shortened(message: str) -> str:
    return message[:MESSAGE_CHARACTERS_MAX]
