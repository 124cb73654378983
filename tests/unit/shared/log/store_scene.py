"""What the tests of shared.log.store share: one queued generation, and access to its meta."""

from __future__ import annotations

from shared.redis import keys
from tests.support.generation import ID

RETENTION_MS = 60_000


async def field(store, name):
    return await store.redis.hget(keys.meta(ID), name)


async def set_field(store, name, value):
    await store.redis.hset(keys.meta(ID), name, value)


async def next_message(pubsub):
    for _ in range(3):
        message = await pubsub.get_message(timeout=1.0)
        if message is not None:
            return message["data"]
    raise AssertionError("nothing was published")
