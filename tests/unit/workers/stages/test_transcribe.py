"""The stage `transcribe`: the model gets the text of the audio."""

from __future__ import annotations

from typing import Any

import pytest

from shared.config.models import Model, parse_models
from shared.config.settings import Settings
from shared.config.stages.spec import StageTable
from shared.errors import BackendError, ConfigurationError
from shared.log.events import Progress
from shared.log.request import Request
from tests.support.audio import MEDIA_TYPE, chunks_of, pcm, text_of
from tests.support.hub_harness import make_meta
from workers.backends.plugin.trial import Recorded
from workers.stages.contract import Answer, Services
from workers.stages.transcribe.stage import AnswerTranscriber, Transcriber

TABLE = {"backend": "demo", "stages": [{"stage": "transcribe", "backend": "demo_transcriber"}]}
SYSTEM = {"role": "system", "content": "Be brief."}


def opened(audio: Any) -> AnswerTranscriber | None:
    services: Any = Services(Settings(), None)  # type: ignore[arg-type]
    table = StageTable(stage="transcribe", options={"backend": "demo_transcriber"})
    request = Request([SYSTEM], audio=MEDIA_TYPE if audio else "")
    model = Model(name="m", backend="demo")
    answer = Answer(model, request, make_meta(), (), is_first=True, held_s=0.0, audio=audio)
    return Transcriber(table, services).open(answer)


async def steps_of(audio: bytes) -> list[Any]:
    stage = opened(Recorded(MEDIA_TYPE, chunks_of(audio)))
    assert stage is not None
    steps = stage.prepare(Request([SYSTEM], audio=MEDIA_TYPE))
    assert steps is not None
    return [step async for step in steps]


async def test_the_text_becomes_the_last_message_and_the_model_gets_no_audio() -> None:
    audio = pcm(20)

    *reports, request = await steps_of(audio)

    assert request.messages == [SYSTEM, {"role": "user", "content": text_of(audio)}]
    assert request.audio == ""
    assert reports and all(isinstance(item, Progress) for step in reports for item in step)


async def test_audio_without_words_is_refused() -> None:
    with pytest.raises(BackendError, match="no words") as caught:
        await steps_of(bytes(16_000))

    assert not caught.value.retryable


def test_a_request_without_audio_passes_by() -> None:
    assert opened(None) is None


def test_a_model_with_this_stage_reads_audio() -> None:
    assert parse_models({"models": {"chat": TABLE}}, "models.toml")["chat"].takes_audio


@pytest.mark.parametrize("backend", ["openai", "demo", "route", "nothing", 5])
def test_a_backend_that_reads_no_audio_is_refused(backend: Any) -> None:
    table = {"backend": "demo", "stages": [{"stage": "transcribe", "backend": backend}]}

    with pytest.raises(ConfigurationError, match="demo_transcriber, or a plug-in"):
        parse_models({"models": {"chat": table}}, "models.toml")
