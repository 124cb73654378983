"""Idempotency keys: each names the first id that came with it, and a digest of that request."""

from __future__ import annotations

from shared.errors import RequestError
from shared.redis.client import Client, translated


async def reserve(redis: Client, key: str, new_id: str, digest: str, kept_ms: int) -> str:
    """Return the id that `key` names: `new_id` if the key is unused.

    Args:
        key: the Redis key that stands for the client's key.
        digest: of the meaning of the request.
        kept_ms: how long a new key is kept, ms.

    Raises:
        RequestError: 422 `idempotency_mismatch`, the key was used with another digest.
        Unavailable: Redis did not answer in time; repeating it is safe.
    """
    with translated():
        if await redis.set(key, f"{new_id} {digest}", nx=True, px=kept_ms):
            return new_id
        found = await redis.get(key)
    if found is None:  # the key expired between the two commands, later than what it named
        return await reserve(redis, key, new_id, digest, kept_ms)
    known_id, _, known_digest = str(found.decode()).partition(" ")
    if known_digest != digest:
        raise RequestError(
            422,
            "idempotency_mismatch",
            "this Idempotency-Key was used with another request: send a new key",
        )
    return known_id
