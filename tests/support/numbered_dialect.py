"""A dialect for tests: numbered, with an opening, and over at a reset. Each chunk says its number.

    data: {"n":2,"at":"1-1","part":0} LF LF          one for a token, two for the start
    data: [DONE] LF LF                               not counted

Chunks 0 and 1 are the opening.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.log.fold import ByteFold, Dialect, FrameFold
from shared.log.ids import EventId
from shared.log.records import Meta

DONE = b"data: [DONE]\n\n"
PARTS = {b"start": 2, b"token": 1, b"tool_call": 3, b"end": 1, b"reset": 1}
RESET_WORDS = b'data: {"error":"stream_reset"}\n\n'


def kind_of(raw: bytes) -> bytes:
    return raw.split(b'"')[3]


class NumberedFold(ByteFold):
    def __init__(self, meta: Meta) -> None:
        pass

    def opening(self) -> bytes:
        return self._chunks("opening", 2)

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        kind = kind_of(raw)
        if kind == b"reset":
            self.over_at = event_id.seq
        chunks = self._chunks(str(event_id), PARTS.get(kind, 0))
        return chunks + DONE if kind in (b"end", b"reset") else chunks

    def _chunks(self, at: str, count: int) -> bytes:
        chunks = b""
        for part in range(count):
            chunks += b'data: {"n":%d,"at":"%b","part":%d}\n\n' % (self.given, at.encode(), part)
            self.given += 1
        return chunks

    def aside(self, raw: bytes) -> bytes:
        return RESET_WORDS if kind_of(raw) == b"reset" else DONE


TOY = Dialect("toy", NumberedFold, is_numbered=True)


class NumberedFrames(FrameFold):
    """The same on a socket: a frame for each chunk, named by the client."""

    def __init__(self, name: str) -> None:
        self._name = name.encode()
        self._given = 0

    def add(self, event_id: EventId, raw: bytes) -> Sequence[bytes]:
        kind = kind_of(raw)
        self.is_over = kind == b"reset"
        frames = []
        for _ in range(PARTS.get(kind, 0)):
            frames.append(self._frame(b"%d" % self._given))
            self._given += 1
        return frames

    def caught_up(self) -> Sequence[bytes]:
        return [self._frame(b'"caught"'), self._frame(b'"up"')]

    def aside(self, raw: bytes) -> Sequence[bytes] | None:
        return [self._frame(b'"reset"')] if kind_of(raw) == b"reset" else None

    def expired(self) -> Sequence[bytes]:
        return [self._frame(b'"expired"')]

    def _frame(self, said: bytes) -> bytes:
        return b'{"%b":%b}' % (self._name, said)
