"""Runs a plug-in as a worker does, for the tests of its author."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from shared.audio.media import parse_media_type
from shared.config.models import Model
from shared.config.settings import Settings
from shared.log.events import Token
from shared.log.request import Request
from workers.backends.contract import AudioSource, BackendItem
from workers.backends.plugin.api import Backend
from workers.backends.plugin.backend import PluginBackend


class Recorded:
    """An audio input that is complete from the beginning: see `AudioSource`."""

    def __init__(self, media_type: str, chunks: Sequence[bytes]) -> None:
        self.format = parse_media_type(media_type)
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


def transcript_of(
    plugin: type[Backend], media_type: str, chunks: Sequence[bytes], **options: Any
) -> tuple[str, list[BackendItem]]:
    """Return what `answer_of` returns, of a generation with an audio input and without a prompt.

    Raises:
        BackendError: as a worker would get it.
        ValueError: the media type is wrong.
    """
    return asyncio.run(_answer_of(plugin, None, options, Recorded(media_type, chunks)))


def answer_of(plugin: type[Backend], prompt: str, **options: Any) -> tuple[str, list[BackendItem]]:
    """Return the text of an answer, and all its items; the last item is `Finish`.

    Args:
        options: the members of the model's table in the models file.

    Raises:
        BackendError: as a worker would get it.
    """
    return asyncio.run(_answer_of(plugin, prompt, options))


async def _answer_of(
    plugin: type[Backend],
    prompt: str | None,
    options: dict[str, Any],
    audio: AudioSource | None = None,
) -> tuple[str, list[BackendItem]]:
    model = Model(name="trial", backend=f"{plugin.__module__}:{plugin.__name__}", options=options)
    backend = PluginBackend(model, Settings(), plugin(model))
    request = Request([] if prompt is None else [{"role": "user", "content": prompt}])
    items: list[BackendItem] = []
    if audio is None:
        answer = backend.stream(request, prefix="", seed="trial")
    else:
        answer = backend.transcribe(request, audio, prefix="", seed="trial")
    async with aclosing(answer) as stream:
        async for batch in stream:
            items += batch
    return "".join(item.text for item in items if isinstance(item, Token)), items
