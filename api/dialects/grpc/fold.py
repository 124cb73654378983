"""An answer as frames of gRPC, gRPC-Web and Connect, in protobuf and in protobuf's JSON.

    log            1-42  {"type":"token","text":" Hello"}
    protobuf       00 length Event{id: "1-42", token: {text: " Hello"}}
    JSON           00 length {"id":"1-42","token":{"text":" Hello"}}
    gRPC-Web text  the frames of one entry in base64

The first frame names the generation. A heartbeat is an event without members. Behind `end` stands
the last frame of the protocol; native gRPC has none, because its trailers are HTTP/2's.

A token is put together from its bytes, because protobuf's mapping of JSON takes fifty times as
long. Source: docs/dialects/grpc.md.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

import msgspec

from api.dialects.grpc.installed import messages
from api.dialects.grpc.status import connect_end, trailer_frame
from api.dialects.grpc.wire import field_bytes, frame
from shared.log.event_bytes import END_PREFIX, plain_text
from shared.log.fold import ByteFold, Dialect
from shared.log.ids import START, EventId
from shared.log.records import Meta

_BACKSLASH, _ESCAPED_UNIT = b"\\", b"\\u"
ID, TOKEN, TEXT = 1, 4, 1  # numbers of the fields in tailrace.proto
# Encodes an entry: its id, its JSON.
Encode = Callable[[str, bytes], bytes]


def protobuf_event(event_id: str, raw: bytes) -> bytes:
    """Return an entry as an Event in protobuf."""
    text = plain_text(raw)
    if text is None:
        return _encoded(event_id, raw, is_json=False)
    if _BACKSLASH in text:
        try:
            text = msgspec.json.decode(b'"%b"' % text, type=str).encode()
        except (msgspec.MsgspecError, ValueError):
            return _encoded(event_id, raw, is_json=False)
    token = field_bytes(TEXT, text) if text else b""
    return field_bytes(ID, event_id.encode()) + field_bytes(TOKEN, token)


def json_event(event_id: str, raw: bytes) -> bytes:
    """Return an entry as an Event in protobuf's JSON."""
    text = plain_text(raw)
    if text is None or _ESCAPED_UNIT in text:  # which may be half a surrogate pair
        return _encoded(event_id, raw, is_json=True)
    return b'{"id":"%b","token":{"text":"%b"}}' % (event_id.encode(), text)


def _encoded(event_id: str, raw: bytes, *, is_json: bool) -> bytes:
    module = messages()
    encoded: bytes = module.encode_message(module.event_message(event_id, raw), is_json=is_json)
    return encoded


def _unchanged(framed: bytes) -> bytes:
    return framed


class GrpcFold(ByteFold):
    """One generation in one of the forms.

    Args:
        encode: encodes an entry.
        last: the last frame of the protocol.
        wrap: is given the frames of each entry.
    """

    def __init__(
        self,
        meta: Meta,
        encode: Encode,
        last: bytes,
        wrap: Callable[[bytes], bytes] = _unchanged,
    ) -> None:
        self._generation_id = meta.generation_id
        self._encode = encode
        self._last = last
        self._wrap = wrap

    def opening(self) -> bytes:
        module = messages()
        event = module.opened_event(self._generation_id)
        encoded = module.encode_message(event, is_json=self._encode is json_event)
        return self._wrap(frame(encoded))

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        framed = frame(self._encode(str(event_id), raw))
        return self._wrap(framed + self._last if is_end(raw) else framed)

    def aside(self, raw: bytes) -> bytes:
        return self.add(START, raw)

    def only_last(self) -> bytes:
        """Return the bytes for a client that has had all entries."""
        return self._wrap(self._last)


def is_end(raw: bytes) -> bool:
    """Whether an entry is the `end` of its log."""
    if raw.startswith(END_PREFIX):
        return True
    if b'"end"' not in raw:
        return False
    try:  # a foreign writer's order of members
        fields = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return isinstance(fields, dict) and fields.get("type") == "end"


def _dialect(
    name: str,
    content_type: bytes,
    encode: Encode,
    last: bytes,
    wrap: Callable[[bytes], bytes] = _unchanged,
) -> Dialect:
    heartbeat = frame(b"{}" if encode is json_event else b"")
    return Dialect(
        name,
        lambda meta: GrpcFold(meta, encode, last, wrap),
        heartbeat=wrap(heartbeat),
        content_type=content_type,
        restarts=True,
        is_lines=False,
    )


GRPC = _dialect("grpc", b"application/grpc", protobuf_event, b"")
GRPC_WEB = _dialect("grpc-web", b"application/grpc-web+proto", protobuf_event, trailer_frame())
GRPC_WEB_TEXT = _dialect(
    "grpc-web-text",
    b"application/grpc-web-text+proto",
    protobuf_event,
    trailer_frame(),
    base64.b64encode,
)
CONNECT = _dialect("connect", b"application/connect+proto", protobuf_event, connect_end())
CONNECT_JSON = _dialect("connect-json", b"application/connect+json", json_event, connect_end())
