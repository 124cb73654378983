"""The audio input of a generation in Redis: clients append chunks, its worker reads them.

Chunks are numbered 1, 2, 3 …. Invariant: a number has one content, no number is left out, and
nothing is appended after the last chunk or after the end of the generation. So a repeat is safe,
at any node. Redis may lose the newest chunks; then `next_seq` falls, and the client sends them
again. When the generation has ended, the input is deleted, and only its state stays.
Source: docs/audio.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.config.settings import Settings
from shared.log.lifetimes import request_ms
from shared.log.store import Store
from shared.redis import keys

CHUNK_BYTES_MAX = 65_536
UNREAD_BYTES_MAX = 1_048_576  # that no worker has read; beyond it the client has to wait
SEQ_MAX = 2**53 - 1
ACTIVE = ("queued", "running")  # the statuses in which an input takes chunks
CHUNKS_AT_ONCE = 8  # that a worker takes: at most half a megabyte


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """One chunk as it arrives.

    Attributes:
        is_last: the input is complete with it; then `data` may be empty.
    """

    seq: int
    data: bytes
    is_last: bool


@dataclass(frozen=True, slots=True)
class AudioState:
    """How far an input has got.

    Attributes:
        next_seq: the number of the chunk that is missing next.
        size: bytes of all chunks.
        bytes_read: that a worker has read.
        status, media_type: of the generation; only from `state`.
    """

    next_seq: int
    size: int
    bytes_read: int
    is_complete: bool
    is_repeat: bool = False
    status: str = ""
    media_type: str = ""

    @property
    def window_bytes(self) -> int:
        """How many further bytes may come before a worker reads more."""
        if self.is_complete or (self.status and self.status not in ACTIVE):
            return 0
        return max(0, UNREAD_BYTES_MAX - max(0, self.size - self.bytes_read))

    def would_store(self, seq: int) -> bool:
        """Whether a chunk with this number may be stored, and is not yet; needs `status`."""
        return self.status in ACTIVE and not self.is_complete and seq == self.next_seq


@dataclass(frozen=True, slots=True)
class AudioRefusal:
    """A chunk was not stored.

    Attributes:
        reason: `absent` (also for another owner), `ended`, `none` (the generation has no audio
            input), `conflict`, `complete` (after the last chunk), `gap`, `full`, `long`, or
            `expired`: of a state, past the retention.
        next_seq: 0: not told.
        detail: the status of an ended generation.
    """

    reason: str
    next_seq: int = 0
    detail: str = ""


class AudioInputs:
    """The audio inputs on one Redis.

    Every coroutine may raise `Unavailable`: Redis did not answer in time; repeating it is safe.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._bytes_max = settings.audio_bytes_max
        self._kept_ms = request_ms(settings, None)

    async def append(
        self, generation_id: str, owner: str, chunk: AudioChunk
    ) -> AudioState | AudioRefusal:
        """Append a chunk of the owner. The caller has checked its size and its number."""
        args = [
            chunk.seq, "1" if chunk.is_last else "", chunk.data,
            UNREAD_BYTES_MAX, self._bytes_max, self._kept_ms, owner,
        ]  # fmt: skip
        reply = await self._store.scripts.run("audio_append", _keys(generation_id), args)
        word = reply[0].decode()
        if word in ("ok", "again"):
            return _state(reply, is_repeat=word == "again")
        if word == "ended":
            return AudioRefusal(word, detail=reply[1].decode())
        return AudioRefusal(word, int(reply[1]) if word in ("complete", "gap", "full") else 0)

    async def state(self, generation_id: str, owner: str) -> AudioState | AudioRefusal:
        """Return how far the input has got, or `absent`, `none` or `expired`."""
        names = (*_keys(generation_id), keys.log(generation_id))
        reply = await self._store.scripts.run("audio_state", names, [owner])
        if reply[0] != b"ok":
            return AudioRefusal(reply[0].decode())
        return _state(reply, status=reply[5].decode(), media_type=reply[6].decode())

    async def take(
        self, generation_id: str, token: str, after: int, bytes_read: int
    ) -> list[AudioChunk] | None:
        """Return the chunks behind the number `after`; None: the caller is not the holder.

        Args:
            token: the holder's.
            bytes_read: from the start of the input: the client may send as many more.
        """
        args = [token, after, bytes_read, CHUNKS_AT_ONCE]
        reply = await self._store.scripts.run("audio_take", _keys(generation_id), args)
        if reply[0] != b"ok":
            return None
        return [AudioChunk(int(seq), data, last == b"1") for seq, data, last in reply[1:]]


def _keys(generation_id: str) -> tuple[str, str]:
    return keys.meta(generation_id), keys.audio(generation_id)


def _state(reply: Sequence[Any], **more: Any) -> AudioState:
    return AudioState(int(reply[1]), int(reply[2]), int(reply[3]), reply[4] == b"1", **more)
