"""The events of a log: one frozen type each, written by workers and read by every reader.

`type` is always the first member of the JSON. The worker that creates an event encodes it once, and
those bytes never change. Readers ignore unknown types and members, so a newer worker may run beside
an older node.
Source: docs/protocol.md, "Events".
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from shared.errors import Refusal

Status = Literal["completed", "cancelled", "failed"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled", "error"]
TOKENS_MAX = 2**52  # of one answer: Lua and JavaScript represent the sum of two counts exactly


class Event(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """Base class of all events."""


class Start(Event, frozen=True, tag="start"):
    """First event of every attempt, and of each other backend that an attempt goes on with.

    Attributes:
        backend: the table of the models file that writes the answer, if `model` is a route.
    """

    attempt: int
    model: str
    backend: str = ""


class Token(Event, frozen=True, tag="token"):
    """A piece of the answer. The borders between pieces have no meaning.

    For `extra` of every event see shared/log/extra.py. `agent` of every event is the name of the
    agent whose event this is, where several agents write one answer.
    """

    text: str
    extra: dict[str, Any] | None = None
    agent: str = ""


class Reasoning(Event, frozen=True, tag="reasoning"):
    """A piece of the model's reasoning, separate from the answer."""

    text: str
    extra: dict[str, Any] | None = None
    agent: str = ""


class Extra(Event, frozen=True, tag="extra"):
    """Members of a chunk that this system does not interpret, for example pictures."""

    extra: dict[str, Any]


class ToolCall(Event, frozen=True, tag="tool_call"):
    """A piece of a tool call: `arguments` is a delta; the first piece has id and name."""

    index: int
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    extra: dict[str, Any] | None = None
    agent: str = ""


class Progress(Event, frozen=True, tag="progress"):
    """The progress of long work before or between tokens."""

    stage: str
    current: int
    total: int
    percentage: float
    agent: str = ""


class File(Event, frozen=True, tag="file"):
    """A file in the answer: either `url`, or `data` in base64."""

    name: str
    media_type: str
    url: str = ""
    data: str = ""
    agent: str = ""


class Data(Event, frozen=True, tag="data"):
    """Any other JSON value of a backend."""

    name: str
    value: Any
    agent: str = ""


class Reset(Event, frozen=True, tag="reset"):
    """Every event before this one is void."""

    reason: str


class Usage(Event, frozen=True, tag="usage"):
    """The tokens of the whole answer so far, as the backends counted them, or estimated."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    extra: dict[str, Any] | None = None


class Upstream(Event, frozen=True, tag="upstream"):
    """The model server makes this answer under this id, also while no worker is connected."""

    upstream_id: str


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """The reason of a failed generation.

    Attributes:
        upstream: set if the model server refused this request itself, and the client can act on it.
    """

    code: str
    message: str
    retryable: bool
    upstream: Refusal | None = None


class Counts(msgspec.Struct, frozen=True, omit_defaults=True):
    """`usage` inside `end`: the members of `Usage` without a type."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    extra: dict[str, Any] | None = None


class End(Event, frozen=True, tag="end"):
    """The last event; exactly one per generation.

    Attributes:
        cached_at: when the stored answer was made that this answer repeats, Unix seconds; 0: the
            answer is new.
    """

    status: Status
    finish_reason: FinishReason
    usage: Counts | None = None
    error: Failure | None = None
    extra: dict[str, Any] | None = None
    cached_at: int = 0


AnyEvent = (
    Start
    | Token
    | Reasoning
    | Extra
    | ToolCall
    | Progress
    | File
    | Data
    | Reset
    | Usage
    | Upstream
    | End
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(AnyEvent)


def encode(event: Event) -> bytes:
    """Return the JSON of an event, `type` first, without spaces."""
    return _encoder.encode(event)


def encode_counts(counts: Counts) -> bytes:
    """Return the JSON of the member `usage` of an `end`."""
    return _encoder.encode(counts)


def decode(raw: bytes) -> AnyEvent:
    """Decode an entry.

    Raises:
        msgspec.ValidationError: this version does not know the type or the form of the event.
    """
    event: AnyEvent = _decoder.decode(raw)
    return event


def decode_known(raw: bytes) -> AnyEvent | None:
    """Decode an entry; None: the event belongs to a newer version, ignore it."""
    try:
        return decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
