r"""The native frames for a client that takes the bytes of `file` events as they are.

    log        {"type":"file","name":"a.wav","media_type":"audio/wav","data":"UklG…"}
    WebSocket  {"type":"file","id":"gen_…","event_id":"1-4","name":…,"media_type":…} LF <bytes>

Only a file with `data` in good base64 becomes a binary frame; every other event is a text frame.
Source: docs/protocol.md, "Files as binary frames".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import msgspec

from api.compression.deflated_messages import text_frame
from api.dialects.native.fold import NativeFrameFold
from shared.log.fold import BinaryFrame, ByteFold, Dialect
from shared.log.ids import EventId
from shared.log.records import Meta

FILE_PREFIX = b'{"type":"file"'
_BINARY_BIT = 0x82  # the first byte of a text frame is 0x81


class BinaryFileFold(NativeFrameFold):
    """`NativeFrameFold` with files as binary frames, which have no compressed form."""

    deflated = None

    def add(self, event_id: EventId, raw: bytes) -> Sequence[bytes]:
        frames = super().add(event_id, raw)
        if not raw.startswith(FILE_PREFIX):
            return frames
        binary = as_binary(frames[0])
        return frames if binary is None else (binary,)


class BinaryWireFold(ByteFold):
    """The frames of `BinaryFileFold` as bytes of the WebSocket protocol."""

    def __init__(self, meta: Meta) -> None:
        self._fold = BinaryFileFold(meta)

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        return b"".join(map(_wire_frame, self._fold.add(event_id, raw)))


BinaryFileFold.shared = Dialect("websocket_binary", BinaryWireFold, heartbeat=b"", is_lines=False)


def as_binary(frame: bytes) -> BinaryFrame | None:
    """Return the binary frame for the text frame of a file; None: it has no data to decode."""
    members = msgspec.json.decode(frame)
    data = members.pop("data", None)
    if not isinstance(data, str) or not data:
        return None
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None
    return BinaryFrame(msgspec.json.encode(members) + b"\n" + content)


def _wire_frame(frame: bytes) -> bytes:
    wire = text_frame(frame)
    return b"%c%b" % (_BINARY_BIT, wire[1:]) if type(frame) is BinaryFrame else wire
