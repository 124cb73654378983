"""The chunks of an audio input between the caller and the server. Without I/O and without a clock.

Each chunk gets its number when it is cut, and keeps it. The last `KEPT_BYTES` that the server has
confirmed stay here: if Redis loses its newest chunks, the server names the number that it expects,
and the same chunks are sent again. Source: docs/audio.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from tailrace_client.errors import TailraceError, usage

CHUNK_BYTES_MAX = 65_536  # of the server
KEPT_BYTES = 4_194_304  # confirmed, and kept for a server that lost them: minutes of speech
TYPE = "application/octet-stream"


class Chunk(NamedTuple):
    """One chunk, as it is sent and sent again."""

    seq: int
    data: bytes
    is_last: bool

    @property
    def query(self) -> str:
        return f"?seq={self.seq}&last={'true' if self.is_last else 'false'}"


class ChunkLog:
    """The chunks of one input."""

    def __init__(self) -> None:
        self._waiting: deque[Chunk] = deque()
        self._kept: deque[Chunk] = deque()
        self._kept_bytes = 0
        self._next_seq = 1

    def write(self, data: bytes) -> None:
        """Take audio of the caller.

        Raises:
            TailraceError: `usage`, no bytes.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise usage(f"audio is bytes, not {type(data).__name__}")
        audio = bytes(data)
        for at in range(0, len(audio), CHUNK_BYTES_MAX):
            self._add(audio[at : at + CHUNK_BYTES_MAX], is_last=False)

    def finish(self) -> None:
        """Take the end of the input."""
        self._add(b"", is_last=True)

    def _add(self, data: bytes, *, is_last: bool) -> None:
        self._waiting.append(Chunk(self._next_seq, data, is_last))
        self._next_seq += 1

    @property
    def next(self) -> Chunk | None:
        """The chunk to send; None: all have been confirmed."""
        return self._waiting[0] if self._waiting else None

    def confirm(self, chunk: Chunk, answer: Mapping[str, Any]) -> None:
        """Take the answer to a chunk.

        Raises:
            TailraceError: `connection`, it is no answer of a Tailrace node.
        """
        if answer.get("received_seq") != chunk.seq:
            raise TailraceError("connection", "no answer to a chunk of audio", retryable=True)
        self._kept.append(self._waiting.popleft())
        self._kept_bytes += len(chunk.data)
        while self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popleft().data)

    def go_back(self, error: TailraceError) -> None:
        """Go back to the chunk that the server expects.

        Raises:
            TailraceError: `error`, if it names none that is still here.
        """
        expected = error.members.get("next_seq")
        if error.code != "sequence_gap" or not isinstance(expected, int):
            raise error
        if not self._kept or not self._kept[0].seq <= expected <= self._kept[-1].seq:
            raise error
        while self._kept and self._kept[-1].seq >= expected:
            chunk = self._kept.pop()
            self._kept_bytes -= len(chunk.data)
            self._waiting.appendleft(chunk)


def audio_member(media_type: str | None) -> dict[str, str] | None:
    """Return the member `audio` of a start; None: it has none."""
    return None if media_type is None else {"media_type": media_type}
