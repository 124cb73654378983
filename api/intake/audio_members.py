"""Reads the member `audio` of a body: the generation gets an audio input. Pure.

    {"model": "demo-transcriber", "audio": {"media_type": "audio/pcm;rate=16000;channels=1"}}

Source: docs/audio.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.errors import request_error
from shared.audio.media import parse_media_type
from shared.config.models import Model
from shared.errors import RequestError


def has_audio(body: Mapping[str, Any]) -> bool:
    """Whether a native body asks for an audio input; null counts as absent."""
    return body.get("audio") is not None


def read_audio(body: Mapping[str, Any]) -> str:
    """Return the media type of the audio input; empty: the body has no `audio`.

    Raises:
        RequestError: 422, a wrong member.
    """
    if not has_audio(body):
        return ""
    value = body["audio"]
    if not isinstance(value, dict) or set(value) != {"media_type"}:
        raise _invalid('audio must be {"media_type": "audio/…"}')
    media_type = value["media_type"]
    if not isinstance(media_type, str):
        raise _invalid("audio.media_type must be a string")
    try:
        return parse_media_type(media_type).media_type
    except ValueError as exc:
        raise _invalid(f"audio.media_type {exc}") from None


def check_takes_audio(model: Model) -> None:
    """Refuse an audio input for a model that reads none.

    Raises:
        RequestError: 422.
    """
    if not model.takes_audio:
        raise _invalid(
            f"audio: the model {model.name} reads no audio; GET /v1/models shows which models do"
        )


def refuse_audio(body: Mapping[str, Any], why: str) -> None:
    """Refuse the member in a request that cannot have it. Raises RequestError 422."""
    if has_audio(body):
        raise _invalid(f"audio: {why}")


def _invalid(message: str) -> RequestError:
    # Not imported from api.intake.body, which imports this module.
    return request_error("invalid_request", message)
