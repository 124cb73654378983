"""The form of a call: which protocol frames it, and how its messages are encoded. Pure.

The content type decides, as the protocols say. Native gRPC comes from the port for gRPC
(api/grpc_port/), which marks the request; its message has no frame any more.
Sources: the gRPC document "PROTOCOL-WEB" and the Connect protocol reference.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from starlette.types import Scope

from api.dialects.grpc import fold
from api.dialects.grpc.status import code_of, connect_end, connect_error, trailer_frame
from api.dialects.grpc.wire import COMPRESSED, HEAD_BYTES, MESSAGE, FrameReader, frame
from api.errors import ErrorBody, ErrorShape, native_shape, request_error
from api.intake.arriving_body import Buffer
from api.transport.extensions import GRPC_CALL
from shared.errors import RequestError
from shared.log.fold import Dialect

NATIVE_ELSEWHERE = (
    "native gRPC needs the node's own port for it (tailrace api --grpc-port); this port takes "
    "application/grpc-web, application/connect+proto, application/proto and their JSON forms"
)
_PIECE = re.compile(rb"[^=]+=*|=+")


@dataclass(frozen=True)
class Form:
    """One form of a call.

    Attributes:
        content_type: of the answer.
        dialect: of a stream; None: calls with one answer only.
        is_json: messages are protobuf's JSON.
        is_framed: the request's message stands in a frame.
        is_text: the request is base64.
        is_stream_only: not for calls with one answer.
        error_type: the content type of an error, where it is another one.
        answer: makes the body of one message.
        fail: makes the body of an error.
        status_of: the HTTP status of an error.
    """

    content_type: bytes
    dialect: Dialect | None
    answer: Callable[[bytes], bytes]
    fail: Callable[[RequestError], bytes]
    is_json: bool = False
    is_framed: bool = True
    is_text: bool = False
    is_stream_only: bool = False
    error_type: bytes = b""
    status_of: Callable[[RequestError], int] = lambda error: 200

    def fits(self, *, is_stream: bool) -> bool:
        """Whether a method that answers with a stream, or with one message, has this form."""
        return self.dialect is not None if is_stream else not self.is_stream_only

    def shape(self, error: RequestError) -> ErrorBody:
        """Return the body of an error response: an `ErrorShape`."""
        return ErrorBody(
            self.fail(error), self.error_type or self.content_type, status=self.status_of(error)
        )

    def message_in(self, body: Buffer) -> Buffer:
        """Return the one message of a request.

        Raises:
            RequestError: 400, it is not one message; 415, it is compressed.
        """
        if self.is_text:
            body = _from_base64(body)
        return _unframed(body) if self.is_framed else body


def _web(dialect: Dialect, wrap: Callable[[bytes], bytes], *, is_text: bool = False) -> Form:
    return Form(
        dialect.content_type,
        dialect,
        answer=lambda message: wrap(frame(message) + trailer_frame()),
        fail=lambda error: wrap(trailer_frame(error)),
        is_text=is_text,
    )


def _connect_status(error: RequestError) -> int:
    """Return the HTTP status of an error: Connect's by its code, but HTTP's own about HTTP."""
    return error.status if error.status in (405, 415) else code_of(error).http


def _connect_unary(content_type: bytes, *, is_json: bool) -> Form:
    return Form(
        content_type,
        None,
        answer=bytes,
        fail=lambda error: msgspec.json.encode(connect_error(error)),
        is_json=is_json,
        is_framed=False,
        error_type=b"application/json",
        status_of=_connect_status,
    )


def _connect_stream(dialect: Dialect, *, is_json: bool) -> Form:
    return Form(
        dialect.content_type,
        dialect,
        answer=frame,
        fail=connect_end,
        is_json=is_json,
        is_stream_only=True,
    )


NATIVE = Form(
    fold.GRPC.content_type,
    fold.GRPC,
    answer=frame,
    fail=trailer_frame,  # the port makes trailers of HTTP/2 of it
    is_framed=False,
)
WEB = _web(fold.GRPC_WEB, bytes)
WEB_TEXT = _web(fold.GRPC_WEB_TEXT, base64.b64encode, is_text=True)
PROTO = _connect_unary(b"application/proto", is_json=False)
JSON = _connect_unary(b"application/json", is_json=True)
FORMS = {
    "application/grpc-web": WEB,
    "application/grpc-web+proto": WEB,
    "application/grpc-web-text": WEB_TEXT,
    "application/grpc-web-text+proto": WEB_TEXT,
    "application/proto": PROTO,
    "application/json": JSON,
    "application/connect+proto": _connect_stream(fold.CONNECT, is_json=False),
    "application/connect+json": _connect_stream(fold.CONNECT_JSON, is_json=True),
}


def form_of(scope: Scope) -> Form | None:
    """Return the form of a request; None: its content type is none of ours."""
    if GRPC_CALL in scope.get("extensions", {}):
        return NATIVE
    return FORMS.get(_media_type(scope))


def choose_form(scope: Scope, *, is_stream: bool) -> Form:
    """Return the form of a call.

    Args:
        is_stream: the method answers with a stream.

    Raises:
        RequestError: 415.
    """
    form = form_of(scope)
    if form is not None and form.fits(is_stream=is_stream):
        return form
    if form is None and _media_type(scope).startswith("application/grpc"):
        raise request_error("unsupported_media_type", NATIVE_ELSEWHERE)
    fitting = [name for name, each in FORMS.items() if each.fits(is_stream=is_stream)]
    raise request_error("unsupported_media_type", f"send one of: {', '.join(fitting)}")


def shape_of(scope: Scope) -> ErrorShape:
    """Return the shape of errors for a request; the native one for a content type of others."""
    form = form_of(scope)
    return native_shape if form is None else form.shape


def _media_type(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"content-type":
            return str(value.partition(b";")[0].strip().lower().decode("latin-1"))
    return ""


def _unframed(body: Buffer) -> Buffer:
    if len(body) < HEAD_BYTES:
        raise unreadable("the body ends inside of a frame")
    reader = FrameReader(len(body))
    try:
        frames = list(reader.feed(bytes(body)))
    except ValueError:
        frames = []
    if len(frames) != 1 or not reader.is_between:
        raise unreadable("the body must be one frame with one message")
    if frames[0].flags & COMPRESSED:
        raise request_error("unsupported_media_type", "send messages without compression")
    if frames[0].flags != MESSAGE:
        raise unreadable(f"flags {frames[0].flags} are not those of a message")
    return frames[0].payload


def _from_base64(body: Buffer) -> bytes:
    """Decode base64; its pieces may be padded, each for itself."""
    pieces = _PIECE.findall(bytes(body))
    try:
        return b"".join(base64.b64decode(piece, validate=True) for piece in pieces)
    except (binascii.Error, ValueError):
        raise unreadable("the body is no base64") from None


def unreadable(what: str) -> RequestError:
    """Return the 400 error for a body that is not the message of its method."""
    return request_error("invalid_protobuf", what[:300])
