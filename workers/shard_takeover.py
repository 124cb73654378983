"""Decides when a worker may take over a lapsed lease on a shard that has been away.

On a cluster one shard may be away while the other shards answer this worker. Workers that hold
generations on the shard that is away cannot renew their leases. So after the shard is back, or
another server has taken its slots, no worker takes over there for the time of one lease, and living
holders restore their logs first. The rule does not affect the other shards.
"""

from __future__ import annotations

from shared.redis import keys
from shared.redis.shards import back_since_s, serves
from workers.parts import Takeover, WorkerParts


async def takeover_on_shard(parts: WorkerParts, generation_id: str) -> Takeover:
    """Return the worker's rule, which the shard of a generation may make stricter.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    rule, lease_s = parts.takeover(), parts.settings.lease_s
    back_s = back_since_s(parts.store.redis, keys.meta(generation_id))
    if back_s is None or back_s >= lease_s:
        return rule
    until_ms = await parts.store.now_ms() + round((lease_s - back_s) * 1000)
    return Takeover(
        max(rule.quiet_until_ms, until_ms),
        max(rule.forgive_until_ms, until_ms),
    )


def is_shard_away(parts: WorkerParts, generation_id: str) -> bool:
    """Whether the shard of a generation does not answer, as far as this process knows."""
    return not serves(parts.store.redis, keys.meta(generation_id))
