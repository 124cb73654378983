"""The list of models of the server of `[models."*"]`: workers write it, all roles read it.

Only workers have the keys of model servers. The list stands in one hash and does not expire: while
a server is away, its last list counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from shared.config.models import Model, ModelTable
from shared.errors import Unavailable
from shared.queue.continuations import field_of
from shared.redis import keys
from shared.redis.client import Client, translated

READ_EVERY_S = 5.0

_names = msgspec.json.Decoder(list[str])


async def store_list(redis: Client, pattern: Model, names: Sequence[str]) -> None:
    """Store the names in the place of earlier ones.

    Raises:
        Unavailable: Redis did not answer in time; repeating it is safe.
    """
    raw = msgspec.json.encode(names)
    with translated():
        await redis.hset(keys.MODEL_LISTS, field_of(pattern), raw)  # type: ignore[misc, arg-type]


async def read_list(redis: Client, pattern: Model) -> list[str] | None:
    """Return the names; None: no worker has stored them.

    Raises:
        Unavailable: Redis did not answer in time; repeating it is safe.
    """
    with translated():
        raw = await redis.hget(keys.MODEL_LISTS, field_of(pattern))  # type: ignore[misc]
    if raw is None:
        return None
    try:
        return _names.decode(raw)
    except msgspec.MsgspecError:
        return None  # a newer version wrote this list


async def follow_list(redis: Client, models: Mapping[str, Model]) -> None:
    """Learn the names of the list again and again, until cancelled. Without `*` return at once."""
    if not isinstance(models, ModelTable) or models.pattern is None:
        return
    while True:
        try:
            if (names := await read_list(redis, models.pattern)) is not None:
                models.learn(names)
        except Unavailable:
            pass  # the last list stays
        await asyncio.sleep(READ_EVERY_S)
