"""Reads the body of a generation that a producer outside of the workers writes.

The members are those of POST /v1/generations with two differences: prompt and messages may both be
left out, and `model` is any name, because no model server is asked. Pure.
Source: docs/producers.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.intake.audio_members import refuse_audio
from api.intake.body import (
    CheckedMembers,
    check_idempotency_key,
    check_params,
    has_controls,
    invalid_request,
    read_grace_s,
    read_messages,
    read_metadata,
    read_priority,
    read_session,
)
from api.intake.part_urls import check_urls
from api.intake.schedule_members import is_scheduled
from api.intake.time_limit_members import read_time_limits
from api.intake.webhook_members import read_webhook
from shared.config.settings import Settings
from shared.log.producing import LEASE_S_MAX, LEASE_S_MIN, ProducerTerms, draw_token
from shared.log.request import Request, shown_prompt
from shared.queue.new_generation import NewGeneration

MODEL = "producer"  # without `model`
MODEL_CHARACTERS_MAX = 128


def is_produced(body: Mapping[str, Any]) -> bool:
    """Whether a body asks for a generation that no worker takes; false and null are no."""
    return body.get("producer") not in (None, False)


def check_produced(
    body: Mapping[str, Any], *, owner: str, settings: Settings, idempotency_key: str = ""
) -> CheckedMembers:
    """Return the generation that a body with `producer` asks for, with a new first token.

    Args:
        body: as `read_object` returns it; unknown members are ignored.

    Raises:
        RequestError: 400 a bad key; 422 a wrong member.
    """
    if is_scheduled(body) or "queue_wait_s" in body:
        raise invalid_request(
            "a generation with producer waits for no worker: leave out run_at, cron, queue_wait_s"
        )
    refuse_audio(body, "a producer outside of the workers writes this answer, and reads no audio")
    has_prompt = "prompt" in body or "messages" in body
    request = Request(messages=read_messages(body) if has_prompt else [], params=check_params(body))
    check_urls(request, settings)
    new = NewGeneration(
        owner=owner,
        model=_model(body.get("model", MODEL)),
        request=b"",
        session=read_session(body),
        metadata=read_metadata(body),
        priority=read_priority(body),
        grace_s=read_grace_s(body["on_disconnect"]) if "on_disconnect" in body else None,
        idempotency_key=check_idempotency_key(idempotency_key) if idempotency_key else "",
        webhook=read_webhook(body, settings),
        time_limits=read_time_limits(body),
        prompt=shown_prompt(request),
        producer=ProducerTerms(_lease_s(body["producer"], settings), draw_token()),
    )
    return CheckedMembers(new, request)


def _model(value: Any) -> str:
    is_name = isinstance(value, str) and 0 < len(value) <= MODEL_CHARACTERS_MAX
    if not is_name or has_controls(value):
        raise invalid_request(
            f"model: with producer any name of 1 to {MODEL_CHARACTERS_MAX} characters, without "
            "control characters"
        )
    return str(value)


def _lease_s(value: Any, settings: Settings) -> float:
    lease_s: Any = settings.producer_lease_s
    if isinstance(value, dict):
        lease_s = value.get("lease_s", lease_s)
    is_number = isinstance(lease_s, int | float) and not isinstance(lease_s, bool)
    is_form = value is True or isinstance(value, dict)
    if is_form and is_number and LEASE_S_MIN <= lease_s <= LEASE_S_MAX:
        return float(lease_s)
    raise invalid_request(
        'producer must be true or {"lease_s": seconds}, '
        f"from {LEASE_S_MIN:.0f} to {LEASE_S_MAX:.0f}"
    )
