"""Idempotency keys: each names the first id that came with it, and a digest of that request.

A repeat may find that the generation of its key is absent. Either Redis has lost the generation, or
the first request has not created it: another node still works on the request, the request was
refused, or its node died. In the first case no event id of an earlier attempt may be given again.
So the attempts jump (shared/redis/scripts/create.lua), and a reader with a sequence number starts
at the beginning. In the other cases no event was given, and a jump would only prevent a resume by
sequence number. The replication id of Redis at the reservation, on a cluster with the epoch of the
shard, tells the cases apart: if it is unchanged, Redis has lost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import RequestError
from shared.redis.client import Client, translated
from shared.redis.scripts import Scripts


@dataclass(frozen=True, slots=True)
class Reservation:
    """What an idempotency key names.

    Attributes:
        id: the id that came first.
        is_new: it is the caller's.
        age_ms: how old the reservation is, at least; 0: new.
        is_of_this_history: the server of the key has lost nothing since then.
    """

    id: str
    is_new: bool
    age_ms: int
    is_of_this_history: bool


async def reserve(
    scripts: Scripts, key: str, new_id: str, digest: str, kept_ms: int
) -> Reservation:
    """Return what `key` names: `new_id` if the key is unused.

    Args:
        key: the Redis key that stands for the client's key.
        digest: of the meaning of the request.
        kept_ms: how long a new key is kept, ms.

    Raises:
        RequestError: 422 `idempotency_mismatch`, the key was used with another digest.
        Unavailable: Redis did not answer in time; repeating it is safe.
    """
    named, age_ms, current = await scripts.run("reserve", [key], [new_id, digest, kept_ms])
    request, _, history = named.decode().partition("\n")
    known_id, _, known_digest = request.partition(" ")
    if known_digest != digest:
        raise RequestError(
            422,
            "idempotency_mismatch",
            "this Idempotency-Key was used with another request: send a new key",
        )
    # A reservation of an earlier version has no history.
    is_same = bool(current) and history == current.decode()
    return Reservation(known_id, known_id == new_id, int(age_ms), is_same)


async def find(redis: Client, key: str) -> str | None:
    """Return the id that `key` names; None: the key is unused. Raises Unavailable."""
    with translated():
        named = await redis.get(key)
    return None if named is None else str(named.decode().partition(" ")[0])
