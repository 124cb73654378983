"""The events of a generation, as docs/protocol.md describes them, and the order of their ids.

An event's class follows from its `type`: a type checker narrows `event` by `event.type == "token"`.
Each event keeps all members as the server sent them in `members`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

START_CURSOR = "0-0"  # of a `reset` or `end` that stands in no log; as a cursor: from the start
_EVENT_ID = re.compile(r"(?:0|[1-9][0-9]{0,18})-(?:0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class _Base:
    id: str  # the event id, `<attempt>-<seq>`
    members: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class StartEvent(_Base):
    type: Literal["start"] = "start"
    attempt: int = 0
    model: str = ""
    backend: str = ""  # which backend of a route writes the answer from here on


@dataclass(frozen=True, slots=True)
class TokenEvent(_Base):
    type: Literal["token"] = "token"
    text: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class ReasoningEvent(_Base):
    type: Literal["reasoning"] = "reasoning"
    text: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class ExtraEvent(_Base):
    type: Literal["extra"] = "extra"
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCallEvent(_Base):
    type: Literal["tool_call"] = "tool_call"
    index: int = 0
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class ProgressEvent(_Base):
    type: Literal["progress"] = "progress"
    stage: str = ""
    current: float = 0
    total: float = 0
    percentage: float = 0
    agent: str = ""


@dataclass(frozen=True, slots=True)
class FileEvent(_Base):
    type: Literal["file"] = "file"
    name: str = ""
    media_type: str = ""
    url: str | None = None
    data: str | None = None
    agent: str = ""


@dataclass(frozen=True, slots=True)
class DataEvent(_Base):
    type: Literal["data"] = "data"
    name: str = ""
    value: Any = None
    agent: str = ""


@dataclass(frozen=True, slots=True)
class ResetEvent(_Base):
    """All earlier events are void. The answer starts again after this event."""

    type: Literal["reset"] = "reset"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class UsageEvent(_Base):
    type: Literal["usage"] = "usage"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


@dataclass(frozen=True, slots=True)
class EndEvent(_Base):
    type: Literal["end"] = "end"
    status: Literal["completed", "cancelled", "failed"] = "completed"
    finish_reason: str = ""
    usage: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None


Event: TypeAlias = (
    StartEvent
    | TokenEvent
    | ReasoningEvent
    | ExtraEvent
    | ToolCallEvent
    | ProgressEvent
    | FileEvent
    | DataEvent
    | ResetEvent
    | UsageEvent
    | EndEvent
)
_CLASSES: dict[str, type[Event]] = {
    "start": StartEvent,
    "token": TokenEvent,
    "reasoning": ReasoningEvent,
    "extra": ExtraEvent,
    "tool_call": ToolCallEvent,
    "progress": ProgressEvent,
    "file": FileEvent,
    "data": DataEvent,
    "reset": ResetEvent,
    "usage": UsageEvent,
    "end": EndEvent,
}
_TEXTS = {
    name: [key for key, each in fields.__dataclass_fields__.items() if each.type == "str"]
    for name, fields in _CLASSES.items()
}
_FIELDS = {
    name: {*each.__dataclass_fields__} - {"id", "members", "type"}
    for name, each in _CLASSES.items()
}


def is_event_id(value: object) -> bool:
    """Return whether `value` has the form of an event id."""
    return isinstance(value, str) and _EVENT_ID.fullmatch(value) is not None


def order(event_id: str) -> tuple[int, int]:
    """Return the pair by which event ids are compared."""
    attempt, _, seq = event_id.partition("-")
    return int(attempt), int(seq)


def read_event(members: object, event_id: object) -> Event | None:
    """Return the event, or None if it is none, or of a type that this version does not know."""
    if not isinstance(members, dict) or not is_event_id(event_id):
        return None
    kind = members.get("type")
    if not isinstance(kind, str) or kind not in _CLASSES:
        return None
    fields = _FIELDS[kind] & members.keys()
    known = {key: members[key] for key in fields if members[key] is not None}
    if not all(isinstance(known.get(key, ""), str) for key in _TEXTS[kind]):
        return None
    return _CLASSES[kind](id=str(event_id), members=members, **known)
