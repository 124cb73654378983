"""Drops references to deleted records: idempotency keys, and entries of the indexes of chats.

The names of these keys are digests, so they cannot be computed from the name of an owner. A walk
through all keys finds them by the ids in their values. The idempotency key of a generation is not
among them: meta names this key, and the key is deleted with the generation.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.log.ids import is_batch_id
from shared.log.store import Store
from shared.redis import keys
from shared.redis.client import Client, translated

CHATS, RUNS, STOPS = "tr:{chat:", ":runs", ":stops"
RUNS_READ = 1_000  # the newest runs of one chat; older runs expire


async def drop_references(redis: Client, store: Store, names: Sequence[str]) -> None:
    """Drop the references to deleted records in those of the keys `names` that hold references.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    guards = [name for name in names if name.startswith((keys.IDEMPOTENCY, keys.SCHEDULE_KEYS))]
    if guards:
        await _drop_guards(redis, guards)
    for name in names:
        if name.startswith(CHATS) and name.endswith(RUNS):
            await _drop_runs(redis, store, name)


async def _drop_guards(redis: Client, names: Sequence[str]) -> None:
    """Delete the idempotency keys of batches and schedules that are gone."""
    with translated():
        pipeline = redis.pipeline(transaction=False)
        for name in names:
            pipeline.get(name)
        values = await pipeline.execute()
    records = []
    for name, raw in zip(names, values, strict=True):
        subject = "" if raw is None else raw.decode().partition(" ")[0]
        if name.startswith(keys.SCHEDULE_KEYS) and subject:
            records.append((name, keys.schedule(subject)))
        elif is_batch_id(subject):
            records.append((name, keys.batch(subject)))
    if not records:
        return
    with translated():
        pipeline = redis.pipeline(transaction=False)
        for _, record in records:
            pipeline.exists(record)
        found = await pipeline.execute()
        gone = [name for (name, _), is_there in zip(records, found, strict=True) if not is_there]
        pipeline = redis.pipeline(transaction=False)
        for name in gone:
            pipeline.delete(name)
        await pipeline.execute()


async def _drop_runs(redis: Client, store: Store, name: str) -> None:
    with translated():
        found = await redis.zrevrange(name, 0, RUNS_READ - 1)
    ids = [raw.decode() for raw in found]
    statuses = await store.statuses(ids)
    sealed = [each for each, status in zip(ids, statuses, strict=True) if status == "sealed"]
    if sealed:
        with translated():
            await redis.zrem(name, *sealed)
            if len(sealed) == len(ids):
                await redis.delete(name.removesuffix(RUNS) + STOPS)
