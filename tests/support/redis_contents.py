"""Everything that a Redis holds, as one text, for tests that look for what must not be there."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis


async def everything(redis: Redis) -> str:
    """Return the names and values of all keys of a database, one line each."""
    lines = [f"{name!r} {await _value(redis, name)!r}" async for name in redis.scan_iter("*")]
    return "\n".join(lines)


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
