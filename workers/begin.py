"""Begins an attempt: asks Redis for the generation until there is a clear answer."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

from shared.errors import Unavailable
from shared.log.records import Absent, Begun, Ended, Held, failed
from shared.queue.lanes import LaneEntry
from workers.parts import Takeover, WorkerParts
from workers.shard_takeover import is_shard_away, takeover_on_shard
from workers.takeover.earlier_entries import read_earlier_entries
from workers.writing.outbox import Outbox

log = logging.getLogger(__name__)

# A worker often reads the entry before the node has created meta: begin again after this pause,
# which doubles up to the maximum.
BEGIN_PAUSE_S = 0.0005
BEGIN_PAUSE_MAX_S = 0.5
ABSENT_ENTRY_DROP_S = 10.0  # a generation absent for so long was never accepted: drop the entry

Outcome = Begun | Held | Ended | Absent


async def become_holder(
    parts: WorkerParts,
    ticket: LaneEntry,
    *,
    survives_worker: bool,
    is_claimed: bool,
    is_stopped: Callable[[], bool],
    writes_start: bool = True,
) -> Outcome | None:
    """Try to become the holder of a generation.

    Args:
        survives_worker: False: a generation whose worker died ends.
        is_claimed: the entry is not new, so an absent generation does not come any more.
        is_stopped: whether the run was told to stop.
        writes_start: False: this worker appends `start` itself.

    Returns:
        the answer of begin. `Absent`: the generation was never accepted. None: stopped before.

    Raises:
        Unavailable: Redis has been away for too long, or the shard of the generation is away. Then
            the slot is free for the generations of other shards.
    """
    token, takeover = secrets.token_hex(12), await takeover_on_shard(parts, ticket.id)
    began_s = parts.clock()
    pause_s = BEGIN_PAUSE_S
    while True:
        outcome = await _try_begin(
            parts, ticket, token, takeover, began_s,
            survives_worker=survives_worker, writes_start=writes_start,
        )  # fmt: skip
        if isinstance(outcome, Begun) and not outcome.meta.request:
            return await _end_without_request(parts, ticket.id)
        if isinstance(outcome, Begun | Ended | Held):
            return outcome
        is_final = is_claimed or parts.clock() > began_s + ABSENT_ENTRY_DROP_S
        if isinstance(outcome, Absent) and is_final:
            return outcome
        if is_stopped():
            return None
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, BEGIN_PAUSE_MAX_S)


async def _try_begin(
    parts: WorkerParts,
    ticket: LaneEntry,
    token: str,
    takeover: Takeover,
    began_s: float,
    *,
    survives_worker: bool,
    writes_start: bool,
) -> Outcome | None:
    """Call begin once; None: Redis did not answer, but the outage is still short."""
    try:
        return await parts.store.begin(
            ticket.id,
            token,
            parts.worker,
            quiet_until_ms=takeover.quiet_until_ms,
            forgive_until_ms=takeover.forgive_until_ms,
            survives_worker=survives_worker,
            writes_start=writes_start,
        )
    except Unavailable:
        # Begin may have happened. Repeated with the same token it gives the same attempt.
        away_s = parts.clock() - max(began_s, parts.appender.last_ok_of(ticket.id))
        if away_s > parts.settings.redis_outage_s or is_shard_away(parts, ticket.id):
            raise
        return None


async def _end_without_request(parts: WorkerParts, generation_id: str) -> Ended:
    """End a generation whose large request has expired or was lost: no attempt can answer it."""
    log.error("request lost", extra={"generation_id": generation_id})
    message = "its request is no longer stored: ask again"
    await parts.store.close(generation_id, failed("lost", message, retryable=True))
    return Ended()


async def open_outbox(parts: WorkerParts, generation_id: str, begun: Begun) -> Outbox:
    """Return the outbox of a new attempt, with the entries of the earlier ones.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    return Outbox(
        generation_id,
        begun.fields[b"token"].decode(),
        found=await read_earlier_entries(parts.store, generation_id, begun.start[0]),
        start=begun.start,
        fields=begun.fields,
        now_s=parts.clock(),
        lease_every_s=parts.settings.lease_s / 4,
        # Meta is kept for twice the retention after an end.
        restore_within_s=2 * parts.settings.retention_s,
    )
