"""Everything that a Redis holds, as one text, for tests that look for what must not be there."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis


async def everything(redis: Redis) -> str:
    """Return the names and values of all keys of a database, one line each."""
    names: dict[bytes, None] = {}
    cursor = 0
    while True:  # scan_iter begins with a string, which the client of a cluster does not take
        cursor, page = await redis.scan(cursor, count=1_000)
        names.update(dict.fromkeys(page))
        if not cursor:
            return "\n".join([f"{name!r} {await _value(redis, name)!r}" for name in names])


async def _value(redis: Any, name: bytes) -> Any:
    match (await redis.type(name)).decode():
        case "string":
            return await redis.get(name)
        case "hash":
            return await redis.hgetall(name)
        case "zset":
            return await redis.zrange(name, 0, -1)
        case "set":
            return await redis.smembers(name)
        case "list":
            return await redis.lrange(name, 0, -1)
    return await redis.xrange(name)
