"""Reads the body of a line as the API reads a request of the same endpoint. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from api.dialects.chat.request import parse_chat
from api.dialects.responses.request import parse_response
from api.intake.audio_members import refuse_audio
from api.intake.body import check_members, invalid_request, parse_new_generation, read_object
from api.intake.dialect_request import DialectRequest
from jobs.batch.check import decode_line
from shared.config.limits import NO_LIMITS, OwnerLimits
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import RequestError
from shared.log.ids import GENERATION_PREFIX, derived_id
from shared.queue.accept import NewGeneration


@dataclass(frozen=True, slots=True)
class Query:
    """The prompt of a line, or the error with which the API would refuse it."""

    custom_id: str
    new: NewGeneration | None = None
    error: RequestError | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """The properties that all lines of a batch share."""

    batch_id: str
    owner: str
    endpoint: str
    models: Mapping[str, Model]
    settings: Settings
    limits: OwnerLimits = NO_LIMITS


def read_query(raw: bytes, terms: Terms, wait_s: float) -> Query:
    """Read a line that `InputCheck` accepted.

    Args:
        wait_s: the longest wait for a worker: until the batch expires.
    """
    line = decode_line(raw)
    try:
        body = read_object(bytes(line.body), bytes_max=terms.settings.body_bytes_max)
        if "queue_wait_s" in body:
            raise invalid_request(
                "queue_wait_s: the lines of a batch wait until its window ends; use deadline_s"
            )
        new = _read_body(body, terms)
    except RequestError as exc:
        return Query(line.custom_id, error=exc)
    new = replace(
        new, session=terms.batch_id, priority="batch", grace_s=None, wait_s=wait_s, webhook=None,
        limits=terms.limits,
    )  # fmt: skip
    return Query(line.custom_id, new)


def _read_body(body: dict[str, Any], terms: Terms) -> NewGeneration:
    if terms.endpoint == "/v1/generations":
        refuse_audio(body, "a line of a batch has no client that could send audio")
        return parse_new_generation(
            body, owner=terms.owner, models=terms.models, settings=terms.settings
        )
    dialect_request = _read_dialect(body, terms.endpoint)
    return check_members(
        body,
        dialect_request.request,
        owner=terms.owner,
        models=terms.models,
        settings=terms.settings,
    ).encoded()


def _read_dialect(body: dict[str, Any], endpoint: str) -> DialectRequest:
    """Read the body. `stream` has no effect, because the output holds complete answers."""
    if endpoint == "/v1/chat/completions":
        return parse_chat(body, grace_s=0.0)
    dialect_request = parse_response(body, grace_s=0.0)
    if dialect_request.previous:
        raise invalid_request("previous_response_id is not supported in a batch")
    if dialect_request.references:
        raise invalid_request("item_reference is not supported in a batch: send the item itself")
    return dialect_request


def line_generation_id(batch_id: str, line: int, tries: int) -> str:
    """Return the id of a line's generation, the same in every process."""
    return derived_id(GENERATION_PREFIX, batch_id, line, tries)
