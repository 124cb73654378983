"""Writes the log of a generation as a producer outside of the workers, through an API node.

A generation with the field `producer` in its meta is on no lane of the queue: no worker begins it.
Its holder's token goes to a client, which appends through any node. The events of an append have
numbers of the log, so a repeated append writes nothing twice. Each append extends the lease; a
producer without a lease is lost (shared/redis/scripts/lapse.lua).
Source: docs/producers.md.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.log.ids import EventId, parse_event_id
from shared.log.store import Store
from shared.redis import keys
from shared.redis.client import translated

LEASE_S_MIN, LEASE_S_MAX = 1.0, 3_600.0
INITIAL_HOLDER_TOKEN = "first_token"  # of meta: of the producer that the creation has begun


@dataclass(frozen=True, slots=True)
class ProducerTerms:
    """How a producer holds its generation.

    Attributes:
        lease_s: it is lost if it is silent for longer, s.
        initial_holder_token: random and new, for the first attempt.
    """

    lease_s: float
    initial_holder_token: str


@dataclass(frozen=True, slots=True)
class Tenure:
    """A producer is the holder now.

    Attributes:
        token: the holder's token in meta.
        next_seq: number of its next event.
    """

    generation_id: str
    token: str
    attempt: int
    next_seq: int
    lease_s: float


@dataclass(frozen=True, slots=True)
class Appended:
    """The events of an append are in the log.

    Attributes:
        status: after the append.
        top: id of the newest event.
        bytes_before, bytes_after: of all events of the producers, without this append and with it.
        age_s: since the creation of the generation.
        lease_s: of the producer.
    """

    status: str
    top: EventId
    bytes_before: int
    bytes_after: int
    age_s: float = 0.0
    lease_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Denied:
    """Nothing was written.

    Attributes:
        reason: `absent`, `ended`, `fenced`, `worker` (a worker writes it), `gap`, `conflict` or
            `full`.
        detail: the status of an ended generation; the next number after a gap; the number of an
            event that the log has with other members.
    """

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class OutsideEvents:
    """One append.

    Attributes:
        first_seq: number of the first event; 0 if there are none: only the lease is extended.
        entries: JSON events, at most 1,000.
        status: given where the last entry is the `end` event.
    """

    generation_id: str
    token: str
    attempt: int
    first_seq: int
    entries: Sequence[bytes]
    status: str = ""


def draw_token() -> str:
    """Return a new holder's token."""
    return secrets.token_hex(16)


def producer_fields(terms: ProducerTerms) -> dict[str, str | bytes]:
    """Return the fields of meta for a generation of an outside producer."""
    return {
        "producer": str(round(terms.lease_s * 1000)),
        INITIAL_HOLDER_TOKEN: terms.initial_holder_token,
    }


async def initial_holder_token(store: Store, generation_id: str) -> str:
    """Return the token of the first producer; empty: a worker writes the generation.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    with translated():
        found: bytes | None = await store.redis.hget(keys.meta(generation_id), INITIAL_HOLDER_TOKEN)  # type: ignore[misc]
    return (found or b"").decode()


async def begin_producing(
    store: Store, generation_id: str, token: str, *, is_first: bool, is_reset: bool = False
) -> Tenure | Denied:
    """Make a producer the holder. A repeat with the same token returns the same attempt.

    Args:
        is_first: only if nobody has begun; False: take over from any producer.
        is_reset: the answer begins anew.

    Raises:
        Unavailable: Redis did not answer in time; repeating it is safe.
    """
    names = [keys.meta(generation_id), keys.log(generation_id)]
    args = [token, "1" if is_first else "", "1" if is_reset else "", store.retention_ms]
    reply = await store.scripts.run("produce_begin", names, args)
    if reply[0] != b"ok":
        return _denied(reply)
    attempt, next_seq, lease_ms = (int(part) for part in reply[1:])
    return Tenure(generation_id, token, attempt, next_seq, lease_ms / 1000)


async def append_outside(store: Store, events: OutsideEvents) -> Appended | Denied:
    """Append the events of a producer, and extend its lease.

    Raises:
        Unavailable: Redis did not answer in time; repeating it is safe.
    """
    name = events.generation_id
    names = [keys.meta(name), keys.log(name), keys.readers(name)]
    args = [
        events.token, events.attempt, events.first_seq, events.status, store.retention_ms,
        store.settings.answer_bytes_max, *events.entries,
    ]  # fmt: skip
    script = "produce_end" if events.status else "produce"
    reply = await store.scripts.run(script, names, args)
    if reply[0] != b"ok":
        return _denied(reply)
    return read_appended(reply)


def read_appended(reply: Sequence[Any]) -> Appended:
    """Decode the `ok` of an append. The repeated append of an end has neither age nor lease."""
    before, after = int(reply[3]), int(reply[4])
    age_s, lease_s = (int(part) / 1000 for part in reply[5:] or (0, 0))
    return Appended(reply[1].decode(), parse_event_id(reply[2]), before, after, age_s, lease_s)


def _denied(reply: Sequence[Any]) -> Denied:
    return Denied(reply[0].decode(), b"".join(reply[1:]).decode())
