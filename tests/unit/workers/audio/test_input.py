"""How a worker reads an audio input: woken by its bell, never ahead, not for ever in silence."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shared.audio.input import AudioChunk
from shared.audio.media import parse_media_type
from shared.errors import BackendError, Unavailable
from tests.support.hub_harness import settle
from workers.audio import input as audio_input
from workers.audio.bells import AudioBells
from workers.audio.input import AudioInput

ID = "gen_1"


class Inputs:
    """The calls of a reader, and the chunks that it finds."""

    def __init__(self, *chunks: AudioChunk) -> None:
        self.chunks = list(chunks)
        self.calls: list[tuple[int, int]] = []
        self.is_away = False

    async def take(self, name: str, token: str, after: int, read: int) -> list[AudioChunk] | None:
        assert (name, token) == (ID, "t")
        self.calls.append((after, read))
        if self.is_away:
            raise Unavailable("away")
        return [chunk for chunk in self.chunks if chunk.seq > after]


class Scene:
    def __init__(self, *chunks: AudioChunk) -> None:
        self.inputs = Inputs(*chunks)
        self.bells = AudioBells()
        self.now_s = 0.0
        inputs: Any = self.inputs
        self.audio = AudioInput(
            inputs, ID, "t", form=parse_media_type("audio/ogg"), bells=self.bells, idle_s=30,
            clock=lambda: self.now_s,
        )  # fmt: skip

    def read(self) -> asyncio.Task[list[bytes]]:
        async def collect() -> list[bytes]:
            return [data async for data in self.audio]

        return asyncio.create_task(collect())


async def test_a_reading_ends_at_the_last_chunk_and_says_what_it_has_read() -> None:
    scene = Scene(AudioChunk(1, b"ab", False), AudioChunk(2, b"", True))

    assert await scene.read() == [b"ab"]
    assert scene.inputs.calls == [(0, 0), (2, 2)]


async def test_a_bell_wakes_a_reading_and_without_one_it_does_not_ask() -> None:
    scene = Scene(AudioChunk(1, b"a", False))
    reading = scene.read()
    await settle()
    assert scene.inputs.calls == [(0, 0), (1, 1)]

    scene.inputs.chunks.append(AudioChunk(2, b"b", True))
    scene.bells.ring("gen_2")
    await settle()
    assert len(scene.inputs.calls) == 2
    scene.bells.ring(ID)

    assert await reading == [b"a", b"b"]


async def test_a_lost_bell_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_input, "LOOK_S", 0.001)
    scene = Scene()
    reading = scene.read()
    await settle()

    scene.inputs.chunks.append(AudioChunk(1, b"a", True))

    async with asyncio.timeout(5):
        assert await reading == [b"a"]


async def test_a_slow_consumer_reads_nothing_ahead() -> None:
    scene = Scene(AudioChunk(1, b"a", False), AudioChunk(2, b"b", True))
    steps = aiter(scene.audio)

    assert await anext(steps) == b"a"
    await settle()

    assert scene.inputs.calls == [(0, 0)]
    await steps.aclose()  # type: ignore[attr-defined]
    assert not scene.bells._bells


async def test_silence_fails_the_attempt_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_input, "LOOK_S", 0.001)
    scene = Scene(AudioChunk(1, b"a", False))
    reading = scene.read()
    await settle()
    assert not reading.done()

    scene.now_s = 30.0

    with pytest.raises(BackendError) as caught:
        async with asyncio.timeout(5):
            await reading
    assert (caught.value.code, caught.value.retryable) == ("audio_timeout", False)


async def test_a_reading_outlives_an_outage_of_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_input, "LOOK_S", 0.001)
    scene = Scene(AudioChunk(1, b"a", True))
    scene.inputs.is_away = True
    reading = scene.read()
    await settle()

    scene.inputs.is_away = False

    async with asyncio.timeout(5):
        assert await reading == [b"a"]
