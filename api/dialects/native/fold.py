r"""The native dialect, in three framings. None of them decodes an event: the bytes are cut and put.

    log        1-42  {"type":"token","text":" Hello"}
    SSE        id: 1-42 LF event: token LF data: {"text":" Hello"} LF LF
    NDJSON     {"id":"1-42","type":"token","text":" Hello"} LF
    WebSocket  {"type":"token","id":"<generation>","event_id":"1-42","text":" Hello"}

LF and not CRLF, and a heartbeat without a blank line: everything else breaks some client's parser.
Source: docs/protocol.md, "Events" and "WebSocket".
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shared.log.event_bytes import TOKEN_PREFIX
from shared.log.fold import Dialect, Fold, FrameFold
from shared.log.ids import START, EventId
from shared.log.records import Meta

TYPE_PREFIX = b'{"type":"'
TYPE_START = len(TYPE_PREFIX)
TOKEN_REST = len(b'{"type":"token",')
EXPIRED = (
    b'{"type":"error","id":"%b","code":"expired","message":"the log of this generation has expired '
    b'before its end was read","retryable":false}'
)


class SseFold(Fold):
    """Server-sent events."""

    def __init__(self, meta: Meta) -> None:
        pass

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        if raw.startswith(TOKEN_PREFIX) and raw.splitlines() == [raw]:
            attempt, seq = event_id
            return b"id: %d-%d\nevent: token\ndata: {%b\n\n" % (attempt, seq, raw[TOKEN_REST:])
        raw = as_one_line(raw)
        close = raw.index(b'"', TYPE_START)
        # What follows the type starts with a comma, or is the closing brace alone.
        rest = raw[close + 2 :] if raw[close + 1] == 0x2C else b"}"
        return b"id: %d-%d\nevent: %b\ndata: {%b\n\n" % (*event_id, raw[TYPE_START:close], rest)

    def aside(self, raw: bytes) -> bytes:
        return self.add(START, raw)


class NdjsonFold(Fold):
    """One JSON object a line."""

    def __init__(self, meta: Meta) -> None:
        pass

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        return b'{"id":"%d-%d",%b\n' % (*event_id, as_one_line(raw)[1:])

    def aside(self, raw: bytes) -> bytes:
        return self.add(START, raw)


class FramedFold(Fold):
    """What SocketFold gives, as it goes over the wire."""

    def __init__(self, meta: Meta) -> None:
        self._fold = SocketFold(meta)

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        return b"".join(map(text_frame, self._fold.add(event_id, raw)))


FRAMED = Dialect("websocket", FramedFold, heartbeat=b"")


class SocketFold(FrameFold):
    """One JSON object a text frame; each names its generation, because many share a socket."""

    joins = True
    restarts = True
    shared = FRAMED

    def __init__(self, meta: Meta) -> None:
        self._id = meta.generation_id.encode()

    def add(self, event_id: EventId, raw: bytes) -> Sequence[bytes]:
        raw = as_one_line(raw)
        close = raw.index(b'"', TYPE_START) + 1
        named = b',"id":"%b","event_id":"%d-%d"' % (self._id, *event_id)
        return (raw[:close] + named + raw[close:],)

    def caught_up(self) -> Sequence[bytes]:
        return (b'{"type":"caught_up","id":"%b"}' % self._id,)

    def aside(self, raw: bytes) -> Sequence[bytes]:
        return self.add(START, raw)

    def expired(self) -> Sequence[bytes]:
        return (EXPIRED % self._id,)


SSE = Dialect("sse", SseFold, restarts=True)
NDJSON = Dialect(
    "ndjson",
    NdjsonFold,
    heartbeat=b"\n",
    content_type=b"application/x-ndjson; charset=utf-8",
    restarts=True,
)


def text_frame(payload: bytes) -> bytes:
    """Return a server's whole text message: one frame, not masked (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return b"\x81%c%b" % (size, payload)
    if size < 65_536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), payload)


def as_one_line(raw: bytes) -> bytes:
    """Return the entry as our worker writes it: `type` first, no line breaks.

    A foreign writer may order members differently or indent; its bytes must not break the framing.
    """
    if raw.startswith(TYPE_PREFIX) and raw.splitlines() == [raw]:
        return raw
    try:
        fields = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        fields = None
    if not isinstance(fields, dict):
        fields = {}
    kind = fields.pop("type", "unreadable")
    kind = kind if isinstance(kind, str) and kind.isidentifier() else "unreadable"
    return msgspec.json.encode({"type": kind, **fields})
