"""The names under which feeders find the generations that they write.

A feeder names a generation by its own name for the operation, also where the generation belongs to
another owner. The key is no Idempotency-Key of a client: it has a space.
Source: docs/dialects/lobehub-gateway.md.
"""

from __future__ import annotations

from shared.log.lifetimes import named_ms
from shared.log.store import Store
from shared.queue.idempotency import find, reserve
from shared.redis import keys


async def name_fed(store: Store, feeder: str, operation: str, generation_id: str) -> None:
    """Let a feeder find a generation by the name of its operation.

    Args:
        feeder: the owner of the key that feeds.

    Raises:
        Unavailable: Redis did not answer in time; repeating the call is safe.
    """
    kept_ms = named_ms(store.settings)
    await reserve(store.scripts, fed_key(feeder, operation), generation_id, "", kept_ms)


async def find_fed(store: Store, feeder: str, operation: str) -> str | None:
    """Return the generation of an operation; None: the feeder has none. Raises Unavailable."""
    return await find(store.redis, fed_key(feeder, operation))


def fed_key(feeder: str, operation: str) -> str:
    """Return the key in Redis that names the generation of an operation."""
    return keys.idempotency(feeder, f"lobehub-operation {operation}")
