r"""The native dialect in three framings. No framing decodes an event: each rearranges its bytes.

    log        1-42  {"type":"token","text":" Hello"}
    SSE        id: 1-42 LF event: token LF data: {"text":" Hello"} LF LF
    NDJSON     {"id":"1-42","type":"token","text":" Hello"} LF
    WebSocket  {"type":"token","id":"<generation>","event_id":"1-42","text":" Hello"}

Lines end with LF, not CRLF, and a heartbeat has no blank line: other forms break the parsers of
some clients.
Source: docs/protocol.md, "Events" and "WebSocket".
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from api.compression.deflated_messages import (
    CHAIN_MEMORY_BYTES,
    FrameChain,
    last_key,
    lone_frame,
    text_frame,
)
from shared.log.event_bytes import END_PREFIX, TOKEN_PREFIX
from shared.log.fold import ByteFold, DeflatedDialects, Dialect, FrameFold
from shared.log.ids import START, EventId
from shared.log.records import Meta

TYPE_PREFIX = b'{"type":"'
TYPE_START = len(TYPE_PREFIX)
TOKEN_MEMBERS_START = len(b'{"type":"token",')
COMMA = 0x2C
EXPIRED = (
    b'{"type":"error","id":"%b","code":"expired","message":"the log of this generation has expired '
    b'before its end was read","retryable":false}'
)


class SseFold(ByteFold):
    """Server-sent events."""

    def __init__(self, meta: Meta) -> None:
        pass

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        if raw.startswith(TOKEN_PREFIX) and raw.splitlines() == [raw]:
            attempt, seq = event_id
            return b"id: %d-%d\nevent: token\ndata: {%b\n\n" % (
                attempt,
                seq,
                raw[TOKEN_MEMBERS_START:],
            )
        raw = as_one_line(raw)
        close = raw.index(b'"', TYPE_START)
        # After the type comes a comma and more members, or only the closing brace.
        rest = raw[close + 2 :] if raw[close + 1] == COMMA else b"}"
        return b"id: %d-%d\nevent: %b\ndata: {%b\n\n" % (*event_id, raw[TYPE_START:close], rest)

    def aside(self, raw: bytes) -> bytes:
        return self.add(START, raw)


class NdjsonFold(ByteFold):
    """Newline-delimited JSON: one object on each line."""

    def __init__(self, meta: Meta) -> None:
        pass

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        return b'{"id":"%d-%d",%b\n' % (*event_id, as_one_line(raw)[1:])

    def aside(self, raw: bytes) -> bytes:
        return self.add(START, raw)


class WireFold(ByteFold):
    """The text frames of `NativeFrameFold` as bytes of the WebSocket protocol."""

    def __init__(self, meta: Meta) -> None:
        self._fold = NativeFrameFold(meta)

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        return b"".join(map(text_frame, self._fold.add(event_id, raw)))


class LoneWireFold(WireFold):
    """`WireFold`; each frame that is long enough is compressed alone."""

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        return b"".join(map(lone_frame, self._fold.add(event_id, raw)))


class ChainedWireFold(WireFold):
    """`WireFold`, compressed; the frames refer to earlier ones, up to the last key frame.

    Every entry is one frame, so the key frames follow after the same entries in every log.
    """

    def __init__(self, meta: Meta) -> None:
        super().__init__(meta)
        self._chain = FrameChain()

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        (payload,) = self._fold.add(event_id, raw)
        framed = self._chain.add(payload)
        if raw.startswith(END_PREFIX):
            self._chain.release()
        return framed


WIRE = Dialect("websocket", WireFold, heartbeat=b"", is_lines=False)
DEFLATED = DeflatedDialects(
    lone=Dialect(
        "websocket-deflated", LoneWireFold, heartbeat=b"", is_lines=False, fold_entries_max=100
    ),
    chained=Dialect(
        "websocket-chained",
        ChainedWireFold,
        heartbeat=b"",
        is_lines=False,
        last_key=last_key,
        fold_entries_max=100,
        state_bytes=CHAIN_MEMORY_BYTES,
    ),
)


class NativeFrameFold(FrameFold):
    """One JSON object in each text frame.

    Each frame names its generation, because many generations share a socket.
    """

    joins = True
    restarts = True
    shared = WIRE
    deflated: DeflatedDialects | None = DEFLATED

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


SSE = Dialect("sse", SseFold, restarts=True, is_compressible=True)
NDJSON = Dialect(
    "ndjson",
    NdjsonFold,
    heartbeat=b"\n",
    content_type=b"application/x-ndjson; charset=utf-8",
    restarts=True,
    is_compressible=True,
)


def as_one_line(raw: bytes) -> bytes:
    """Return the entry in the form that our workers write: `type` first, no line breaks.

    Other programs may write to a log too, with another order of members or with indentation. Their
    bytes must not break the framing.
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
