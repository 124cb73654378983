"""The audio input of a plug-in: read in its thread, one chunk for each step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from shared.audio.media import parse_media_type
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError
from shared.log.request import Request
from workers.backends.contract import Finish
from workers.backends.plugin import Backend, PluginRequest, Token, transcript_of
from workers.backends.plugin.api import Piece
from workers.backends.plugin.backend import PluginBackend

MEDIA_TYPE = "audio/pcm;rate=8000"


class Blocking(Backend):
    def answer(self, request: PluginRequest) -> Iterator[Piece]:
        assert request.audio is not None
        yield f"{request.audio.format.rate_hz}:"
        for data in request.audio:
            yield data.decode()


class Asynchronous(Backend):
    async def answer(self, request: PluginRequest) -> AsyncIterator[Piece]:
        assert request.audio is not None
        yield f"{request.audio.format.rate_hz}:"
        async for data in request.audio:
            yield data.decode()


class Twice(Backend):
    def answer(self, request: PluginRequest) -> Iterator[Piece]:
        assert request.audio is not None
        yield str(len(b"".join(request.audio)))
        yield str(len(b"".join(request.audio)))


class Silent:
    """An input in which the next chunk never comes."""

    format = parse_media_type(MEDIA_TYPE)

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.left = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            yield b"a"
            self.asked.set()
            await asyncio.Event().wait()
        finally:
            self.left.set()


class Broken:
    format = parse_media_type(MEDIA_TYPE)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"a"
        raise BackendError("audio_timeout", "no audio", retryable=False)


@pytest.mark.parametrize("plugin", [Blocking, Asynchronous])
def test_a_plugin_reads_every_chunk_in_order(plugin: type[Backend]) -> None:
    text, items = transcript_of(plugin, MEDIA_TYPE, [b"a", b"b", b"c"])

    assert text == "8000:abc" and items[-1] == Finish("stop")


def test_a_second_iteration_begins_at_the_first_chunk() -> None:
    assert transcript_of(Twice, MEDIA_TYPE, [b"ab", b"c"])[0] == "33"


@pytest.mark.parametrize("plugin", [Blocking, Asynchronous])
async def test_a_stopped_answer_ends_the_thread_and_the_reading(plugin: type[Backend]) -> None:
    model = Model(name="m", backend="x:Y")
    backend, source = PluginBackend(model, Settings(), plugin(model)), Silent()
    async with aclosing(backend.transcribe(Request([]), source, prefix="", seed="s")) as stream:
        async for items in stream:
            if Token("a") in items:
                break
        async with asyncio.timeout(5):
            await source.asked.wait()

    async with asyncio.timeout(5):
        await source.left.wait()
    assert backend._left == []


@pytest.mark.parametrize("plugin", [Blocking, Asynchronous])
async def test_an_error_of_the_input_fails_the_attempt_with_its_code(plugin: type[Backend]) -> None:
    model = Model(name="m", backend="x:Y")
    backend = PluginBackend(model, Settings(), plugin(model))

    with pytest.raises(BackendError, match="no audio") as caught:
        async with aclosing(
            backend.transcribe(Request([]), Broken(), prefix="", seed="s")
        ) as stream:
            async for _ in stream:
                pass

    assert caught.value.code == "audio_timeout" and not caught.value.retryable
