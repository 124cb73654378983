"""Counters of the jobs role in Redis, which any node can show, and the sizes of its indexes.

One hash, whose counters only rise. A test compares the names with docs/operations.md, "Metrics".
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.redis import keys
from shared.redis.client import Client, translated

COUNTERS = (
    "webhooks_delivered", "webhook_attempts_failed", "webhook_addresses_refused",
    "webhooks_given_up", "schedules_fired", "schedules_late", "schedules_refused",
    # findings of the janitors
    "generations_put_back", "queue_timeouts", "deadlines_exceeded", "waits_abandoned",
    "producers_lost",
    "queue_entries_dropped", "workers_forgotten", "generations_listed",
    "consumers_dropped", "index_entries_dropped",
    "files_expired", "files_orphaned", "files_missing", "files_unfinished", "audit_expired",
    "batch_parts_orphaned",
    "streams_expired",
    "schedules_mended", "webhooks_mended",
)  # fmt: skip
INDEXES = {
    "webhooks": keys.HOOKS_WAITING,
    "webhook_hosts": keys.HOOKS_HOSTS,  # plus the index of each owner
    "schedules": keys.SCHEDULES,
    "batches": keys.BATCHES_ACTIVE,
}
OWNERS_COUNTED_MAX = 1_000  # owners whose webhook hosts one reading counts


async def count(redis: Client, found: Mapping[str, int]) -> None:
    """Add to the counters.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    assert all(name in COUNTERS for name in found), found
    if not any(found.values()):
        return
    with translated():
        pipeline = redis.pipeline(transaction=False)
        for name, number in found.items():
            if number:
                pipeline.hincrby(keys.JOBS_COUNTS, name, number)
        await pipeline.execute()


async def read_counts(redis: Client) -> tuple[dict[str, int], dict[str, int]]:
    """Return all counters, and the size of each index in `INDEXES`.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    with translated():
        pipeline = redis.pipeline(transaction=False)
        pipeline.hgetall(keys.JOBS_COUNTS)
        for key in INDEXES.values():
            pipeline.zcard(key)
        pipeline.zrange(keys.HOOKS_OWNERS, 0, OWNERS_COUNTED_MAX - 1)
        found, *numbers, owners = await pipeline.execute()
        for owner in filter(None, owners):
            pipeline.zcard(keys.hooks_hosts(owner.decode()))
        hosts = await pipeline.execute() if owners else []
    sizes = dict(zip(INDEXES, numbers, strict=True))
    sizes["webhook_hosts"] += sum(hosts)
    counts = {name.decode(): int(number) for name, number in found.items()}
    return {name: counts.get(name, 0) for name in COUNTERS}, sizes
