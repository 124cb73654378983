"""The replies of the scripts as types: the state of a generation and the outcome of each write.

Invariant: this module does no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from shared.errors import Refusal, Unavailable
from shared.log.events import Counts, End, Failure, Status
from shared.log.ids import START, EventId, parse_event_id

Entry = tuple[EventId, bytes]  # the JSON of one event, and its place in the log
# A holder restores lost entries within this time after its last accepted call, or never. So a
# generation that stays absent for longer is lost.
RESTORE_WITHIN_S = 10.0
ENDED = ("completed", "cancelled", "failed")
# The fields of meta that a normal read fetches: all fields of `parse_meta` except the request,
# which may be a megabyte long.
META_FIELDS = (
    b"status", b"owner", b"session", b"model", b"priority", b"created", b"attempt", b"lease",
    b"waiting", b"failures", b"grace", b"metadata", b"end", b"ended", b"prompt", b"dialect",
    b"worker", b"begins", b"held", b"held_ms", b"node", b"by", b"producer", b"request_id",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Meta:
    """The meta hash of one generation. Times are Redis's clock, ms since 1970."""

    generation_id: str
    status: str  # queued, running, completed, cancelled, failed, sealed
    owner: str
    session: str
    model: str
    priority: str
    created_at_ms: int
    attempt: int  # 0 before the first begin
    lease_ms: int  # when the lease expires; 0: no holder
    waiting_since_ms: int  # 0 while a worker holds the generation
    failures: int
    grace_s: float | None  # None: the generation continues without readers
    metadata: bytes  # a JSON object
    request: (
        bytes | bytearray
    )  # JSON of shared.log.request.Request; b"": not read (MetaReader.with_request)
    end: bytes  # JSON of the End event; b"" while unfinished
    ended_at_ms: int
    prompt: str = ""  # the part of the request that a listing shows
    dialect: bytes = b""  # JSON of Request.dialect; b"": an empty object
    worker: str = ""  # the present or last holder; "": none yet
    begins: int = 0  # the number of attempts
    held_since_ms: int = 0  # 0: no worker holds the generation
    held_ms: int = 0  # for how long earlier holders held the generation
    node: str = ""  # the API node that accepted the prompt; "": the jobs role
    is_produced: bool = False  # a producer outside of the workers writes it
    request_id: str = ""  # the X-Request-Id under which the prompt came
    cancelled_by: str = ""  # who asked for the end from outside, and through which node

    @property
    def is_ended(self) -> bool:
        return self.status in ENDED

    def waited_ms(self, now_ms: int) -> int:
        """Return for how long the generation has been without a worker, in all its waits."""
        until_ms = self.ended_at_ms or now_ms
        held_ms = self.held_ms
        if self.held_since_ms:
            held_ms += max(0, min(until_ms, self.lease_ms or until_ms) - self.held_since_ms)
        return max(0, until_ms - self.created_at_ms - held_ms)


@dataclass(frozen=True, slots=True)
class Top:
    """The newest state of a generation, by which a node notices that it missed an entry.

    Times are Redis's clock, ms since 1970; the lease and the waiting time are 0 as in `Meta`.
    """

    status: str | None  # None: no meta
    id: EventId | None  # of the newest entry; None: no log
    lease_ms: int
    waiting_since_ms: int
    now_ms: int  # when Redis read these


@dataclass(frozen=True, slots=True)
class Held:
    """Another worker holds the lease for `wait_ms` more ms, or a takeover is not allowed yet."""

    wait_ms: int


@dataclass(frozen=True, slots=True)
class Begun:
    """The caller holds the generation.

    Attributes:
        start: the `start` event that `begin` wrote; with empty bytes if it wrote none: then the
            holder appends `start` under this id.
        failures: the number of failed attempts before this one.
        fields: the whole meta hash, from which the holder can restore it after a loss.
    """

    start: Entry
    failures: int
    fields: Mapping[bytes, bytes]
    meta: Meta


@dataclass(frozen=True, slots=True)
class Absent:
    """The generation does not exist, or not yet."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The generation has its `end` or is sealed: further writes are refused."""


@dataclass(frozen=True, slots=True)
class Ok:
    """Redis accepted the write, and skipped entries that the log held already."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """Another worker holds the generation: stop the backend, and do not retry."""


@dataclass(frozen=True, slots=True)
class Behind:
    """The caller still holds the generation, but Redis lost the tail: resend what follows `top`."""

    top: EventId


@dataclass(frozen=True, slots=True)
class Lost:
    """Redis returned to a state before this attempt: restore on top of `top`, or stop."""

    top: EventId


@dataclass(frozen=True, slots=True)
class Moved:
    """The log has another newest entry now, `top`: compare again before a restore."""

    top: EventId


@dataclass(frozen=True, slots=True)
class Released:
    """The generation waits for the next holder.

    Attributes:
        failures: the number of failed attempts so far.
        at_ms: when, Redis's clock.
    """

    failures: int
    at_ms: int = field(default=0, compare=False)


Writing = Ok | Ended | Fenced | Behind | Lost


class Append(msgspec.Struct, frozen=True):
    """Consecutive entries of one holder, to append in one step.

    Attributes:
        before_seq: the seq of the entry before the first one.
        entries: JSON events.
        status: given where the last entry is the `end` event.
        before_attempt: the attempt of the entry before the first one; 0: the same as `attempt`.
        pushes_lease: extend the lease too, because no renewal has done so recently.
    """

    generation_id: str
    token: str
    attempt: int
    before_seq: int
    entries: Sequence[bytes]
    status: Status | None = None
    before_attempt: int = 0
    pushes_lease: bool = True

    @property
    def before(self) -> EventId:
        """The id of the entry before the first one."""
        if not self.before_seq:
            return START
        return EventId(self.before_attempt or self.attempt, self.before_seq)


def parse_writing(reply: Any) -> Writing | Unavailable:
    """Decode the reply of a script that only the holder may run."""
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
        worker=text(b"worker"),
        begins=number(b"begins"),
        held_since_ms=number(b"held"),
        held_ms=number(b"held_ms"),
        node=text(b"node"),
        is_produced=b"producer" in fields,
        request_id=text(b"request_id"),
        cancelled_by=text(b"by"),
    )


def parse_top(meta: Any, log: Any, now: tuple[int, int]) -> Top | None:
    """Decode the status, lease and waiting time of a meta, and the newest entry of its log.

    Args:
        now: the reply of TIME: s and µs since 1970.

    Returns:
        None: the server refused one of the two.
    """
    if isinstance(meta, Exception) or isinstance(log, Exception):
        return None
    status, lease, waiting = meta
    return Top(
        status=status.decode() if status else None,
        id=parse_event_id(log[0][0]) if log else None,
        lease_ms=int(lease or 0),
        waiting_since_ms=int(waiting or 0),
        now_ms=now[0] * 1000 + now[1] // 1000,
    )


def failed(
    code: str,
    message: str,
    *,
    retryable: bool,
    usage: Counts | None = None,
    upstream: Refusal | None = None,
) -> End:
    """Return the `end` event of a failed generation."""
    return End("failed", "error", usage=usage, error=Failure(code, message, retryable, upstream))
