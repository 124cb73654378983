"""Draws ids for new generations, so that a generation lies on shards that answer.

The id decides the slot of a generation and its partition of the queue. On a cluster with a shard
away, an id is drawn again until neither lies there. On a single server the first id is taken.
"""

from __future__ import annotations

from shared.log.ids import new_generation_id
from shared.queue.partitions import Partitions
from shared.redis import keys
from shared.redis.client import Client
from shared.redis.shards import serves

DRAWS_MAX = 200  # with one of three shards away, each draw fits with a probability of 4 in 9


def draw_id(redis: Client, partitions: Partitions) -> str:
    """Return a new id, on shards that answer if some do."""
    generation_id = new_generation_id()
    for _ in range(DRAWS_MAX):
        if is_placed(redis, partitions, generation_id):
            break
        generation_id = new_generation_id()
    return generation_id


def is_placed(redis: Client, partitions: Partitions, generation_id: str) -> bool:
    """Whether the shards of a generation and of its partition answer, as far as known."""
    queue = keys.running(partitions.of(generation_id))
    return serves(redis, keys.meta(generation_id), queue)
