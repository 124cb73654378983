"""What the scripts answer, as types: one generation's state and the outcome of each write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from shared.errors import Unavailable
from shared.log.events import Counts, End, Failure, Status
from shared.log.ids import EventId, parse_event_id

Entry = tuple[EventId, bytes]
ENDED = ("completed", "cancelled", "failed")
# What is read of meta by whoever looks at it: all that `parse_meta` knows but the request, which
# may be a megabyte long.
META_FIELDS = (
    b"status", b"owner", b"session", b"model", b"priority", b"created", b"attempt", b"lease",
    b"waiting", b"failures", b"grace", b"metadata", b"end", b"ended", b"prompt", b"dialect",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Meta:
    """One generation, as its meta hash has it. Times are Redis's, ms since 1970."""

    generation_id: str
    status: str  # queued, running, completed, cancelled, failed, sealed
    owner: str
    session: str
    model: str
    priority: str
    created_at_ms: int
    attempt: int  # 0 before the first begin
    lease_ms: int  # when the lease runs out; 0: nobody holds it
    waiting_since_ms: int  # 0 while somebody holds it
    failures: int
    grace_s: float | None  # None: goes on without readers
    metadata: bytes  # a JSON object
    request: bytes  # shared.request.Request, JSON; b"" unless it was asked for (Store.with_request)
    end: bytes  # the End event, b"" while unfinished
    ended_at_ms: int
    prompt: str = ""  # what a listing shows of the request
    dialect: bytes = b""  # a JSON object, Request.dialect; b"": an empty one

    @property
    def is_ended(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class Top:
    """What a node compares to find out that it missed something."""

    status: str | None  # None: no meta
    id: EventId | None  # None: no log
    lease_ms: int
    waiting_since_ms: int
    now_ms: int


@dataclass(frozen=True, slots=True)
class Held:
    """Somebody else's lease lives for `wait_ms` more, or it is too early to take over."""

    wait_ms: int


@dataclass(frozen=True, slots=True)
class Begun:
    """The caller holds the generation.

    Attributes:
        start: the `start` that was written.
        failures: how many attempts have failed before this one.
        fields: meta as it is, so that the holder can write it again after a loss.
    """

    start: Entry
    failures: int
    fields: Mapping[bytes, bytes]
    meta: Meta


@dataclass(frozen=True, slots=True)
class Absent:
    """There is no such generation, or not yet."""


@dataclass(frozen=True, slots=True)
class Ended:
    """It has its end, or is sealed: nothing may be written any more."""


@dataclass(frozen=True, slots=True)
class Ok:
    """Accepted; what was there already was skipped."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """Somebody else holds it. Stop the backend; do not retry."""


@dataclass(frozen=True, slots=True)
class Behind:
    """Still the holder, but Redis lost the tail: send again what follows `top`."""

    top: EventId


@dataclass(frozen=True, slots=True)
class Lost:
    """Redis went back to before this attempt: restore on top of `top`, or stop."""

    top: EventId


@dataclass(frozen=True, slots=True)
class Moved:
    """The top is another one by now: look again."""

    top: EventId


@dataclass(frozen=True, slots=True)
class Released:
    failures: int


Writing = Ok | Ended | Fenced | Behind | Lost


class Append(msgspec.Struct, frozen=True):
    """One batch of a holder's entries; with `status` the last entry is the end.

    Attributes:
        before_attempt: of the entry before the first one; 0: the same as this one.
        pushes_lease: no renewal has done it lately.
    """

    generation_id: str
    token: str
    attempt: int
    before_seq: int
    entries: Sequence[bytes]
    status: Status | None = None
    before_attempt: int = 0
    pushes_lease: bool = True


def parse_writing(reply: Any) -> Writing | Unavailable:
    """Decode what a holder's script answered."""
    if isinstance(reply, Exception):
        return Unavailable(f"Redis refuses: {reply}")
    match reply[0]:
        case b"ok":
            return Ok()
        case b"ended":
            return Ended()
        case b"fenced":
            return Fenced()
        case b"behind":
            return Behind(parse_event_id(reply[2]))
    return Lost(parse_event_id(reply[1]))


def parse_meta(generation_id: str, fields: Mapping[bytes, bytes]) -> Meta:
    """Decode a meta hash."""

    def text(name: bytes) -> str:
        return fields.get(name, b"").decode()

    def number(name: bytes) -> int:
        return int(fields.get(name) or b"0")

    grace_ms = fields.get(b"grace", b"")
    return Meta(
        generation_id=generation_id,
        status=text(b"status"),
        owner=text(b"owner"),
        session=text(b"session"),
        model=text(b"model"),
        priority=text(b"priority") or "interactive",
        created_at_ms=number(b"created"),
        attempt=number(b"attempt"),
        lease_ms=number(b"lease"),
        waiting_since_ms=number(b"waiting"),
        failures=number(b"failures"),
        grace_s=int(grace_ms) / 1000 if grace_ms else None,
        metadata=fields.get(b"metadata", b"{}"),
        request=fields.get(b"request", b""),
        end=fields.get(b"end", b""),
        ended_at_ms=number(b"ended"),
        prompt=text(b"prompt"),
        dialect=fields.get(b"dialect", b""),
    )


def parse_top(meta: Sequence[bytes | None], log: Sequence[Any], now_ms: int) -> Top:
    """Decode one row of the tail recheck."""
    status, lease, waiting = meta
    return Top(
        status=status.decode() if status else None,
        id=parse_event_id(log[0][0]) if log else None,
        lease_ms=int(lease or 0),
        waiting_since_ms=int(waiting or 0),
        now_ms=now_ms,
    )


def failed(code: str, message: str, *, retryable: bool, usage: Counts | None = None) -> End:
    """Return the end of a generation that did not complete."""
    return End("failed", "error", usage=usage, error=Failure(code, message, retryable))
