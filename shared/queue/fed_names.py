"""The names under which feeders find the generations that they write.

A feeder names a generation by its own name for the operation, also where the generation belongs to
another owner. The key is no Idempotency-Key of a client: it has a space.
Source: docs/dialects/lobehub-gateway.md.
"""

from __future__ import annotations

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
    settings = store.settings
    kept_ms = round((settings.generation_s_max + settings.retention_s) * 1000)
    await reserve(store.scripts, _key(feeder, operation), generation_id, "", kept_ms)


async def find_fed(store: Store, feeder: str, operation: str) -> str | None:
    """Return the generation of an operation; None: the feeder has none. Raises Unavailable."""
    return await find(store.redis, _key(feeder, operation))


def _key(feeder: str, operation: str) -> str:
    return keys.idempotency(feeder, f"lobehub-operation {operation}")
