"""The audio input of one attempt, as a backend or a stage reads it.

Each reading begins at the first chunk, because a backend that starts again needs the whole input.
A step of a reading is one call to Redis, which also says how much was read before. While there is
no new chunk, a reading waits for the bell of its generation (workers/audio/bells.py).
Invariant: at most `CHUNKS_AT_ONCE` chunks of a reading are in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Protocol

from shared.audio.input import AudioChunk, AudioInputs
from shared.audio.media import AudioFormat, parse_media_type
from shared.config.settings import Settings
from shared.errors import BackendError, Unavailable
from shared.log.records import Begun
from shared.log.request import Request
from shared.log.store import Store
from workers.audio.bells import AudioBells

LOOK_S = 1.0  # without a bell a reading looks for a new chunk so often
TOKEN = b"token"  # of meta: the holder's


class AudioParts(Protocol):
    """The parts of a worker that an audio input needs."""

    @property
    def settings(self) -> Settings: ...

    @property
    def store(self) -> Store: ...

    @property
    def bells(self) -> AudioBells: ...

    @property
    def clock(self) -> Callable[[], float]: ...


class AudioInput:
    """See `workers.backends.contract.AudioSource`.

    Args:
        token: the holder's.
        idle_s: an incomplete input without a new chunk for so long has lost its client.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        inputs: AudioInputs,
        generation_id: str,
        token: str,
        *,
        form: AudioFormat,
        bells: AudioBells,
        idle_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.format = form
        self._inputs = inputs
        self._id = generation_id
        self._token = token
        self._bells = bells
        self._idle_s = idle_s
        self._clock = clock

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._read()

    async def _read(self) -> AsyncGenerator[bytes, None]:
        after = bytes_read = 0
        heard_s = self._clock()
        with self._bells.listen(self._id) as bell:
            while True:
                bell.clear()
                chunks = await self._take(after, bytes_read)
                for chunk in chunks:
                    if chunk.data:
                        yield chunk.data
                    after, bytes_read = chunk.seq, bytes_read + len(chunk.data)
                    heard_s = self._clock()
                    if chunk.is_last:
                        await self._take(after, bytes_read)
                        return
                if not chunks:
                    self._check_silence(heard_s)
                    await _wait(bell)

    async def _take(self, after: int, bytes_read: int) -> list[AudioChunk]:
        """Return the next chunks; none: there is nothing new, or Redis does not answer.

        A worker that is the holder no longer gets none, and its run is stopped soon.
        """
        try:
            return await self._inputs.take(self._id, self._token, after, bytes_read) or []
        except Unavailable:
            return []

    def _check_silence(self, heard_s: float) -> None:
        if self._clock() - heard_s >= self._idle_s:
            raise BackendError(
                "audio_timeout",
                f"no audio came for {self._idle_s:g} s, and the last chunk is missing",
                retryable=False,
            )


async def _wait(bell: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(LOOK_S):
            await bell.wait()
    except TimeoutError:
        pass


def open_audio(parts: AudioParts, begun: Begun, request: Request) -> AudioInput | None:
    """Return the audio input of an attempt; None: the generation has none."""
    if not request.audio:
        return None
    return AudioInput(
        AudioInputs(parts.store, parts.settings),
        begun.meta.generation_id,
        begun.fields[TOKEN].decode(),
        form=parse_media_type(request.audio),
        bells=parts.bells,
        idle_s=parts.settings.audio_idle_s,
        clock=parts.clock,
    )
