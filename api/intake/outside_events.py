"""Reads the body of an append: the events of a producer outside of the workers.

Invariant: whatever the members are, the result is entries as a worker would write them, or a
`RequestError`. Members that are not listed are ignored, as in every body. Pure.
Source: docs/producers.md, "Events".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from api.intake.body import invalid_request
from shared.errors import MESSAGE_CHARACTERS_MAX
from shared.log.events import Data, End, Event, Failure, Progress, Reasoning, Token, encode

EVENTS_MAX = 1_000  # of one append
APPEND_BYTES_MAX = 1_048_576  # the body of one append
NAME_CHARACTERS_MAX = 64  # of an agent, a stage, or the name of data
SEQ_MAX = 2**53 - 1
COUNT_MAX = 2**53 - 1
FINISH_REASONS = {
    "completed": ("stop", "length", "tool_calls", "content_filter"),
    "cancelled": ("cancelled",),
    "failed": ("error",),
}
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")


class CheckedAppend(NamedTuple):
    """The events of one append.

    Attributes:
        first_seq: number of the first one; 0: there are none.
        entries: JSON.
        status: of the `end` event, if the append has one; else empty.
    """

    first_seq: int
    entries: list[bytes]
    status: str


def check_append(body: Mapping[str, Any]) -> CheckedAppend:
    """Return the events of a body.

    Raises:
        RequestError: 422, a wrong member; the message names the event.
    """
    events = body.get("events", [])
    if not isinstance(events, list) or len(events) > EVENTS_MAX:
        raise invalid_request(f"events must be an array of at most {EVENTS_MAX} events")
    if not events:
        return CheckedAppend(0, [], "")
    seq = body.get("seq")
    if isinstance(seq, bool) or not isinstance(seq, int) or not 1 <= seq <= SEQ_MAX:
        raise invalid_request(
            "seq must be the number of the first event: next_seq of the answer before"
        )
    read = [_read(f"events[{index}]", event) for index, event in enumerate(events)]
    for index, event in enumerate(read[:-1]):
        if isinstance(event, End):
            raise invalid_request(f"events[{index}]: nothing may follow the event end")
    last = read[-1]
    return CheckedAppend(seq, list(map(encode, read)), last.status if isinstance(last, End) else "")


def _read(where: str, event: Any) -> Event:
    if not isinstance(event, dict):
        raise invalid_request(f"{where} must be an object with a type")
    kind = event.get("type")
    reader = READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise invalid_request(f"{where}.type must be one of {', '.join(READERS)}")
    given = {name: value for name, value in event.items() if value is not None}
    return reader(where, given)


def _token(where: str, event: dict[str, Any]) -> Event:
    return Token(_text(where, event), agent=_agent(where, event))


def _reasoning(where: str, event: dict[str, Any]) -> Event:
    return Reasoning(_text(where, event), agent=_agent(where, event))


def _progress(where: str, event: dict[str, Any]) -> Event:
    """Read progress. Without `percentage` it follows from the two counts."""
    current, total = (_count(f"{where}.{name}", event.get(name)) for name in ("current", "total"))
    if current > total and total and "percentage" not in event:
        raise invalid_request(f"{where}.current must not be larger than total")
    percentage = event.get("percentage", round(100 * current / total, 1) if total else 0.0)
    is_number = isinstance(percentage, int | float) and not isinstance(percentage, bool)
    if not is_number or not 0 <= percentage <= 100:
        raise invalid_request(f"{where}.percentage must be a number from 0 to 100")
    stage = _name(f"{where}.stage", event.get("stage"))
    return Progress(stage, current, total, float(percentage), agent=_agent(where, event))


def _data(where: str, event: dict[str, Any]) -> Event:
    name = _name(f"{where}.name", event.get("name"))
    return Data(name, event.get("value"), agent=_agent(where, event))


def _end(where: str, event: dict[str, Any]) -> Event:
    status = event.get("status", "completed")
    if status not in FINISH_REASONS:
        raise invalid_request(f"{where}.status must be one of {', '.join(FINISH_REASONS)}")
    reasons = FINISH_REASONS[status]
    reason = event.get("finish_reason", reasons[0])
    if reason not in reasons:
        raise invalid_request(f"{where}.finish_reason of {status} must be {' or '.join(reasons)}")
    error = event.get("error")
    if (error is None) == (status == "failed"):
        raise invalid_request(f"{where}.error belongs to the status failed, and to no other")
    return End(status, reason, error=None if error is None else _failure(f"{where}.error", error))


def _failure(where: str, error: Any) -> Failure:
    if not isinstance(error, dict):
        raise invalid_request(f"{where} must be an object with code and message")
    code, message = error.get("code"), error.get("message")
    if not isinstance(code, str) or _CODE.fullmatch(code) is None:
        raise invalid_request(f"{where}.code must be 1 to 64 of a-z, 0-9 and _, a letter first")
    if not isinstance(message, str) or not 0 < len(message) <= MESSAGE_CHARACTERS_MAX:
        raise invalid_request(
            f"{where}.message must be a string of 1 to {MESSAGE_CHARACTERS_MAX} characters"
        )
    retryable = error.get("retryable", False)
    if not isinstance(retryable, bool):
        raise invalid_request(f"{where}.retryable must be true or false")
    return Failure(code, message, retryable)


def _text(where: str, event: dict[str, Any]) -> str:
    text = event.get("text")
    if not isinstance(text, str) or not text:
        raise invalid_request(f"{where}.text must be a string that is not empty")
    return text


def _agent(where: str, event: dict[str, Any]) -> str:
    return _name(f"{where}.agent", event["agent"]) if "agent" in event else ""


def _name(where: str, value: Any) -> str:
    is_name = isinstance(value, str) and 0 < len(value) <= NAME_CHARACTERS_MAX
    if not is_name or not value.isprintable():
        raise invalid_request(f"{where} must be 1 to {NAME_CHARACTERS_MAX} printable characters")
    return str(value)


def _count(where: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= COUNT_MAX:
        raise invalid_request(f"{where} must be a whole number, 0 or more")
    return value


READERS: Mapping[str, Callable[[str, dict[str, Any]], Event]] = {
    "token": _token,
    "reasoning": _reasoning,
    "progress": _progress,
    "data": _data,
    "end": _end,
}
