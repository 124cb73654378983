"""The stage `transcribe`: reads the audio input, and gives the model its text.

A backend that reads audio makes the text, in each attempt from the first byte. When the client has
ended the input, the text becomes the last message of the user, and the model is asked without
audio. Readers see `progress` with the number of characters so far.
"""

from __future__ import annotations

import os
from contextlib import aclosing

import msgspec

from shared.config.models import Model
from shared.config.stages.spec import StageTable
from shared.errors import BackendError
from shared.log.events import Progress, Token
from shared.log.request import Request
from workers.backends.contract import AudioBackend, AudioSource
from workers.backends.http.upstream_http import UpstreamHttp
from workers.backends.kinds import builder_of
from workers.stages.contract import Answer, AnswerStage, Preparation, Services

STAGE = "transcribe"
REPORT_CHARACTERS = 200  # between two events `progress`


class Transcriber:
    """The transcriber of one model.

    Raises:
        ConfigurationError: the backend cannot be built.
    """

    def __init__(self, table: StageTable, services: Services) -> None:
        model = Model(
            name=STAGE, backend=table.options["backend"], audio=True, on_takeover="restart",
            options=table.options.get("options", {}),
        )  # fmt: skip
        settings = services.settings
        build = builder_of(model.kind.name)
        self.backend = build(model, settings, UpstreamHttp(settings), os.environ)
        assert isinstance(self.backend, AudioBackend), model.backend

    def open(self, answer: Answer) -> AnswerTranscriber | None:
        """Return the transcriber of one attempt; None: the request has no audio."""
        if answer.audio is None:
            return None
        assert isinstance(self.backend, AudioBackend)
        return AnswerTranscriber(self.backend, answer.audio, answer.meta.generation_id)


class AnswerTranscriber(AnswerStage):
    """The transcriber in one attempt at an answer."""

    def __init__(self, backend: AudioBackend, audio: AudioSource, seed: str) -> None:
        self._backend = backend
        self._audio = audio
        self._seed = seed

    def prepare(self, request: Request) -> Preparation | None:
        """Wait for the whole input."""
        return self._transcribe(request) if request.audio else None

    async def _transcribe(self, request: Request) -> Preparation:
        text, reported = "", 0
        heard = self._backend.transcribe(request, self._audio, prefix="", seed=self._seed, form="")
        async with aclosing(heard) as stream:
            async for items in stream:
                text += "".join(item.text for item in items if isinstance(item, Token))
                if len(text) >= reported + REPORT_CHARACTERS:
                    reported = len(text)
                    yield [Progress(STAGE, reported, 0, 0.0)]
        if not (said := text.strip()):
            message = "the audio has no words"
            raise BackendError("upstream_refused", message, retryable=False)
        messages = [*request.messages, {"role": "user", "content": said}]
        yield msgspec.structs.replace(request, messages=messages, audio="")


def build(table: StageTable, model: Model, services: Services) -> Transcriber:
    """Build the transcriber of a model: see workers/stages/kinds.py."""
    return Transcriber(table, services)
