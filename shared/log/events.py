"""The vocabulary of a log: what a worker writes and every reader understands.

One frozen type per event, told apart by `type`, which is always the first member of its JSON.
An event is encoded once, by the worker that made it; those bytes are the entry, for ever.
Unknown types and fields are ignored by readers, so a newer worker may run beside an older node.
Source: docs/protocol.md, "Events".
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Status = Literal["completed", "cancelled", "failed"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled", "error"]


class Event(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """Base of all events."""


class Start(Event, frozen=True, tag="start"):
    """First event of every attempt."""

    attempt: int
    model: str


class Token(Event, frozen=True, tag="token"):
    """A piece of the answer; piece borders mean nothing."""

    text: str


class Reasoning(Event, frozen=True, tag="reasoning"):
    """A piece of the model's thinking, apart from the answer."""

    text: str


class ToolCall(Event, frozen=True, tag="tool_call"):
    """A piece of a tool call; `arguments` is a string delta, names come with the first piece."""

    index: int
    call_id: str = ""
    name: str = ""
    arguments: str = ""


class Progress(Event, frozen=True, tag="progress"):
    """Long work before or between tokens."""

    stage: str
    current: int
    total: int
    percentage: float


class File(Event, frozen=True, tag="file"):
    """A file in the answer: `url`, or `data` in base64."""

    name: str
    media_type: str
    url: str = ""
    data: str = ""


class Data(Event, frozen=True, tag="data"):
    """Anything else, as JSON."""

    name: str
    value: Any


class Reset(Event, frozen=True, tag="reset"):
    """Everything before is void."""

    reason: str


class Usage(Event, frozen=True, tag="usage"):
    """Token counts as the backend reported them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Failure(msgspec.Struct, frozen=True):
    """Why a generation ended without completing."""

    code: str
    message: str
    retryable: bool


class Counts(msgspec.Struct, frozen=True):
    """`usage` inside `end`: the same numbers as the Usage event, without a type."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class End(Event, frozen=True, tag="end"):
    """Exactly one per generation, and nothing after it."""

    status: Status
    finish_reason: FinishReason
    usage: Counts | None = None
    error: Failure | None = None


AnyEvent = Start | Token | Reasoning | ToolCall | Progress | File | Data | Reset | Usage | End

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(AnyEvent)


def encode(event: Event) -> bytes:
    """Return the event's JSON, `type` first, without spaces."""
    return _encoder.encode(event)


def decode(raw: bytes) -> AnyEvent:
    """Read an entry back.

    Raises:
        msgspec.ValidationError: a type or shape that this version does not know.
    """
    event: AnyEvent = _decoder.decode(raw)
    return event


def decode_known(raw: bytes) -> AnyEvent | None:
    """Read an entry back; None: it is an event of a newer version, which says nothing here."""
    try:
        return decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
