"""Adds another queue entry for a generation whose entry may be lost.

Janitors and nodes call `requeue` for each generation that no worker has held for a while. Most of
these still have their entries: all workers are busy, or no worker has the model. So the key
`…:entry` remembers the entry that was added last, and nothing is added while this entry is on
`resume`. So a generation has at most one entry more than it needs, however long it waits.
"""

from __future__ import annotations

from shared.log.store import Store
from shared.queue.entries import encode_entry
from shared.queue.lanes import REQUEUE_APART_S
from shared.queue.partitions import partitions_of
from shared.queue.time_limits import end_hopeless
from shared.queue.turns import ensure_turns, is_delivered
from shared.redis import keys
from shared.redis.client import translated

# Each look at a waiting generation starts this time anew. It ends only if no process has looked for
# so long; then one entry more is added.
ENTRY_KEPT_S = 600.0


async def requeue(store: Store, generation_id: str, priority: str) -> bool:
    """Queue a generation again; whether it was. Safe at any time, because `begin` decides.

    All processes together look at a generation at most once in `REQUEUE_APART_S`.

    Raises:
        Unavailable: Redis did not answer in time. Repeating it is safe.
    """
    if await ensure_turns(store, [generation_id], priority):
        return False  # it has its entry, and its owner is not on turn
    tag = partitions_of(store.settings).of(generation_id)
    guard = keys.requeued(generation_id, tag)
    with translated():
        if not await store.redis.set(guard, b"1", nx=True, px=round(REQUEUE_APART_S * 1000)):
            return False
        fields = await store.redis.hmget(keys.meta(generation_id), ["model", "producer"])  # type: ignore[misc]
    model, is_produced = fields
    if is_produced:  # by a producer outside of the workers: it goes on itself, or is lost
        await end_hopeless(store, [generation_id])
        return bool(model)
    if not model:  # the meta of a batch has no model: no worker runs a batch
        return False
    if await _has_entry(store, f"{guard}:entry", tag):
        return False
    await _add_entry(store, f"{guard}:entry", tag, (generation_id, priority, model.decode()))
    return True


async def _has_entry(store: Store, added: str, tag: str) -> bool:
    """Whether the entry that was added last is still to be read, or to be acknowledged."""
    lane = keys.lane("resume", tag)
    with translated():
        entry_id = await store.redis.get(added)
        if entry_id is None or not await store.redis.xrange(lane, entry_id, entry_id):
            return False
        if await is_delivered(store, "resume", tag, entry_id):
            # Deleted a moment after it is acknowledged. If the deletion was lost, the entry stays
            # on the lane and nobody reads it again.
            pending = await store.redis.xpending_range(lane, keys.GROUP, entry_id, entry_id, 1)
            if not pending:
                return False
        await store.redis.pexpire(added, round(ENTRY_KEPT_S * 1000))
    return True


async def _add_entry(store: Store, added: str, tag: str, entry: tuple[str, str, str]) -> None:
    generation_id, priority, _ = entry
    with translated():
        entry_id = await store.redis.xadd(
            keys.lane("resume", tag), {keys.FIELD: encode_entry(*entry)}
        )
        since_ms = int(entry_id.partition(b"-")[0])  # Redis's clock
        pipeline = store.redis.pipeline(transaction=False)
        pipeline.zadd(keys.waiting(priority, tag), {generation_id: since_ms}, nx=True)
        pipeline.set(added, entry_id, px=round(ENTRY_KEPT_S * 1000))
        await pipeline.execute()
