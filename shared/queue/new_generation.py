"""A validated prompt, the fields of meta that are made from it, and the answer to its client."""

from __future__ import annotations

from dataclasses import dataclass

from shared.config.limits import NO_LIMITS, OwnerLimits
from shared.later.webhooks import Webhook, encode_webhook
from shared.log.owner_bytes import request_bytes
from shared.log.producing import ProducerTerms, producer_fields
from shared.log.records import Meta
from shared.log.request_pieces import PIECES, piece_count
from shared.queue.allowance import MARK, Allowance
from shared.queue.time_limits import TimeLimits, limit_fields
from shared.redis import keys


@dataclass(frozen=True, slots=True)
class NewGeneration:
    """A validated prompt.

    Attributes:
        request: JSON of shared.log.request.Request; a bytearray where it is too large to be copied.
        metadata: a JSON object of the client.
        grace_s: no reader for this long cancels it; None: it continues without readers.
        idempotency_key: of the client; may be empty.
        body_digest: of the meaning of the request; the same key with another digest is refused.
        webhook: to be delivered at its end.
        wait_s: the longest wait for a worker, s; None: `Settings.queue_wait_s`.
        time_limits: of the request.
        prompt, dialect: the parts of `request` that meta stores as fields of their own.
        tokens: as `estimated_tokens`; counted against `limits`.
        limits: of the owner, as the node knows them.
        node: the API node that accepts it; empty: the jobs role.
        request_id: the `X-Request-Id` of the request; empty: there is none.
        producer: set if a producer outside of the workers writes the answer.
        audio: media type of the audio input; empty: it has none.
        fed: the key in Redis by which its feeder finds it; empty: no feeder writes it.
    """

    owner: str
    model: str
    request: bytes | bytearray
    session: str = ""
    metadata: bytes = b"{}"
    priority: str = "interactive"
    grace_s: float | None = None
    idempotency_key: str = ""
    body_digest: str = ""
    webhook: Webhook | None = None
    wait_s: float | None = None
    time_limits: TimeLimits = TimeLimits()
    prompt: str = ""
    dialect: bytes = b""
    tokens: int = 0
    limits: OwnerLimits = NO_LIMITS
    node: str = ""
    request_id: str = ""
    producer: ProducerTerms | None = None
    audio: str = ""
    fed: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The generation of an accepted prompt.

    Attributes:
        is_new: False: an earlier request with the same key or id created it.
        created_at_ms: Redis's clock, ms since 1970.
        meta: given where this call has created it and no read is needed.
        allowance: the rest of the owner's limits; None: no limits, or nothing was counted.
    """

    generation_id: str
    is_new: bool
    created_at_ms: int
    status: str
    meta: Meta | None = None
    allowance: Allowance | None = None


def meta_fields(new: NewGeneration) -> dict[str, str | bytes]:
    """Return the fields of meta that a prompt decides."""
    fields: dict[str, str | bytes] = {
        "owner": new.owner,
        "session": new.session,
        "model": new.model,
        "priority": new.priority,
        "metadata": new.metadata,
        "prompt": new.prompt,
    }
    if count := piece_count(new.request):
        fields[PIECES.decode()] = str(count)
    else:
        fields["request"] = bytes(new.request)
    if new.dialect:
        fields["dialect"] = new.dialect
    if new.node:
        fields["node"] = new.node
    if new.request_id:
        fields["request_id"] = new.request_id
    if new.grace_s is not None:
        fields["grace"] = str(round(new.grace_s * 1000))
    if new.wait_s is not None:
        fields["wait"] = str(round(new.wait_s * 1000))
    fields |= limit_fields(new.time_limits)
    if new.producer is not None:
        fields |= producer_fields(new.producer)
    if new.audio:
        fields["audio"] = new.audio
    if new.fed:
        fields["fed"] = new.fed
    if new.idempotency_key:
        fields["idem"] = keys.idempotency(new.owner, new.idempotency_key)
    if new.limits.has_prompt_limit:
        fields[MARK] = "1"
    if new.webhook is not None:
        # Also in meta: a worker that restores a lost generation restores its webhook, too.
        fields["webhook"] = encode_webhook(new.webhook)
    return fields


def queued_meta(generation_id: str, new: NewGeneration, created_at_ms: int) -> Meta:
    """Return the meta that a read would find just after the creation of a generation."""
    return Meta(
        generation_id=generation_id,
        status="queued",
        owner=new.owner,
        session=new.session,
        model=new.model,
        priority=new.priority,
        created_at_ms=created_at_ms,
        attempt=0,
        lease_ms=0,
        waiting_since_ms=created_at_ms,
        failures=0,
        grace_s=None if new.grace_s is None else round(new.grace_s * 1000) / 1000,
        metadata=new.metadata,
        request=b"",
        end=b"",
        ended_at_ms=0,
        prompt=new.prompt,
        dialect=new.dialect,
        node=new.node,
        request_id=new.request_id,
    )


def request_size(new: NewGeneration) -> int:
    """Return the bytes that a prompt counts against `TAILRACE_OWNER_BYTES_MAX` of its owner."""
    return request_bytes(new.request, new.metadata, new.prompt)
