"""Reads the indexes of the queue: numbers of generations, and rows of owners and sessions.

Every coroutine here may raise `Unavailable`: Redis did not answer in time. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any, NamedTuple

from redis.asyncio.client import Pipeline

from shared.errors import Unavailable
from shared.log.store import Store
from shared.queue.partitions import Partitions, partitions_of
from shared.redis import keys
from shared.redis.client import Client, is_refusal, translated


class IndexRow(NamedTuple):
    """A generation in an index, which may have expired.

    Attributes:
        created_ms: when it was created, Unix ms, Redis's clock.
    """

    generation_id: str
    created_ms: int


async def running_of(store: Store, ids: Sequence[str]) -> list[str]:
    """Return those of `ids` that are in the index of running generations."""
    partitions = partitions_of(store.settings)
    with translated():
        pipeline = store.redis.pipeline(transaction=False)
        for generation_id in ids:
            pipeline.zscore(keys.running(partitions.of(generation_id)), generation_id)
        scores = await pipeline.execute()
    return [name for name, score in zip(ids, scores, strict=True) if score is not None]


async def _answers(pipeline: Pipeline) -> list[Any]:
    """Return the replies, with None for those of partitions that are away.

    Raises:
        Unavailable: no partition answered.
    """
    with translated():
        replies = await pipeline.execute(raise_on_error=False)
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        for error in errors:
            if len(errors) == len(replies) or not is_refusal(error):
                raise error
    return [None if isinstance(reply, Exception) else reply for reply in replies]


async def queue_depths(store: Store) -> dict[str, int]:
    """Return the number of waiting (by priority), running and postponed generations."""
    return await depths_of(store.redis, partitions_of(store.settings))


async def depths_of(redis: Client, partitions: Partitions) -> dict[str, int]:
    """As `queue_depths`, for a caller without a store."""
    depths = dict.fromkeys((*keys.PRIORITIES, "running", "later"), 0)
    pipeline = redis.pipeline(transaction=False)
    for tag in partitions.tags:
        for priority in keys.PRIORITIES:
            pipeline.zcard(keys.waiting(priority, tag))
        pipeline.zcard(keys.running(tag))
        pipeline.zcard(keys.later(tag))
    for name, number in zip(cycle(list(depths)), await _answers(pipeline), strict=False):
        depths[name] += number or 0
    return depths


async def oldest_waiting_s(redis: Client, partitions: Partitions) -> dict[str, float]:
    """Return how long the generation that waits longest has waited, s, by priority; 0: none waits.

    A generation that is to be tried again later waits from that time on.
    """
    pipeline = redis.pipeline(transaction=False)
    pipeline.time()
    for priority in keys.PRIORITIES:
        for tag in partitions.tags:
            pipeline.zrange(keys.waiting(priority, tag), 0, 0, withscores=True)
    clock, *firsts = await _answers(pipeline)
    if clock is None:
        raise Unavailable("no server tells the time")
    (seconds, micros) = clock
    now_ms, each = seconds * 1000 + micros // 1000, len(partitions.tags)
    ages_s: dict[str, float] = {}
    for n, priority in enumerate(keys.PRIORITIES):
        since_ms = [first[0][1] for first in firsts[n * each : (n + 1) * each] if first]
        ages_s[priority] = max(0.0, now_ms - min(since_ms, default=now_ms)) / 1000
    return ages_s


async def waiting_by_tag(store: Store, priority: str) -> dict[str, int]:
    """Return the number of waiting generations in each partition, by its tag.

    A partition that is away counts as empty.
    """
    tags = partitions_of(store.settings).tags
    pipeline = store.redis.pipeline(transaction=False)
    for tag in tags:
        pipeline.zcard(keys.waiting(priority, tag))
    return {tag: number or 0 for tag, number in zip(tags, await _answers(pipeline), strict=True)}


async def session_rows(
    redis: Client, owner: str | None, session: str, limit: int, *, before_ms: int | None = None
) -> list[IndexRow]:
    """Return up to `limit` rows of a session, newest first.

    Args:
        owner: whose session; None: sessions of all owners (indexed where tokens are accepted).
        before_ms: only generations created before this time, Redis's clock; None: all.
    """
    key = keys.session_of_all(session) if owner is None else keys.session(owner, session)
    return await _newest(redis, key, limit, before_ms)


async def owner_rows(
    redis: Client, owner: str, limit: int, *, before_ms: int | None = None
) -> list[IndexRow]:
    """Return up to `limit` rows of an owner, newest first; as `session_rows`."""
    return await _newest(redis, keys.owner(owner), limit, before_ms)


async def session_ids(
    redis: Client, owner: str | None, session: str, limit: int, *, before_ms: int | None = None
) -> list[str]:
    """Return the ids of `session_rows`."""
    rows = await session_rows(redis, owner, session, limit, before_ms=before_ms)
    return [row.generation_id for row in rows]


async def owner_ids(redis: Client, owner: str, limit: int) -> list[str]:
    """Return the ids of `owner_rows`."""
    return [row.generation_id for row in await owner_rows(redis, owner, limit)]


async def unfinished_rows(
    store: Store, limit: int, *, before_ms: int | None = None
) -> list[IndexRow]:
    """Return up to `limit` rows of unfinished generations of all owners, newest first.

    Reads the whole indexes of the queue, which `Settings.queue_max` bounds, and when each
    generation was created. The list lacks an answer that ended before the worker noted it as
    running.
    """
    with translated():
        pipeline = store.redis.pipeline(transaction=False)
        for tag in partitions_of(store.settings).tags:
            for index in (keys.running(tag), *(keys.waiting(p, tag) for p in keys.PRIORITIES)):
                pipeline.zrange(index, 0, -1)
        ids = {raw.decode() for found in await pipeline.execute() for raw in found}
        pipeline = store.redis.pipeline(transaction=False)
        for generation_id in ids:
            pipeline.hmget(keys.meta(generation_id), ["created", "status"])
        replies = await pipeline.execute() if ids else []
    created = [
        (int(created_ms), generation_id)
        for generation_id, (created_ms, status) in zip(ids, replies, strict=True)
        if status in (b"queued", b"running") and created_ms
    ]
    seen = [pair for pair in created if before_ms is None or pair[0] < before_ms]
    newest = sorted(seen, reverse=True)[:limit]
    return [IndexRow(generation_id, created_ms) for created_ms, generation_id in newest]


async def _newest(redis: Client, key: str, limit: int, before_ms: int | None) -> list[IndexRow]:
    highest = "+inf" if before_ms is None else f"({before_ms}"
    with translated():
        found = await redis.zrevrangebyscore(
            key, highest, "-inf", start=0, num=limit, withscores=True
        )
    return [IndexRow(member.decode(), int(score)) for member, score in found]
