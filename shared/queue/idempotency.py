"""What an Idempotency-Key names: the first id that came with it, and what it meant then."""

from __future__ import annotations

from shared.errors import RequestError
from shared.redis.client import Client, translated


async def reserve(redis: Client, key: str, new_id: str, digest: str, kept_ms: int) -> str:
    """Return the id that `key` names: `new_id` where nobody has used it.

    Args:
        key: of Redis.
        digest: of the request's meaning.

    Raises:
        RequestError: 422 `idempotency_mismatch`.
        Unavailable.
    """
    with translated():
        if await redis.set(key, f"{new_id} {digest}", nx=True, px=kept_ms):
            return new_id
        found = await redis.get(key)
    if found is None:  # it ran out between the two: what it named is long gone
        return await reserve(redis, key, new_id, digest, kept_ms)
    known_id, _, known_digest = str(found.decode()).partition(" ")
    if known_digest != digest:
        raise RequestError(
            422,
            "idempotency_mismatch",
            "this Idempotency-Key was used with another request: send a new key",
        )
    return known_id
