"""A validated prompt before its acceptance, and the generation that it has become. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from shared.config.limits import NO_LIMITS, OwnerLimits
from shared.later.webhooks import Webhook
from shared.log.records import Meta
from shared.queue.allowance import Allowance


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
        prompt, dialect: the parts of `request` that meta stores as fields of their own.
        tokens: as `estimated_tokens`; counted against `limits`.
        limits: of the owner, as the node knows them.
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
    prompt: str = ""
    dialect: bytes = b""
    tokens: int = 0
    limits: OwnerLimits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class Accepted:
    """The generation of an accepted prompt.

    Attributes:
        is_new: False: an earlier request with the same key or id created it.
        created_at_ms: Redis's clock, ms since 1970.
        meta: given where this call has created it and no read is needed.
        allowance: what the owner has left; None: without limits, or nothing was counted.
    """

    generation_id: str
    is_new: bool
    created_at_ms: int
    status: str
    meta: Meta | None = None
    allowance: Allowance | None = None


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
    )
