"""Deletes streams whose time is over.

A reader never sees an expired stream, whether it is deleted yet or not: the scripts compare the
time. This module frees the memory. The jobs role sweeps every few minutes; a node sweeps the
streams of an owner who reaches a limit. Every step may be repeated and may race with any other.
"""

from __future__ import annotations

import time

from shared.redis import stream_keys
from shared.redis.client import translated
from shared.streams.store import StreamStore

OWNERS_AT_ONCE = 64
STREAMS_AT_ONCE = 256  # of one owner
LOOK_AGAIN_S = 300.0  # the shortest time between two looks at an owner
HIDDEN_MS = 9_007_199_254_740_991  # the score of a deleted stream that forks still read


async def note_owner(store: StreamStore, owner: str) -> None:
    """Note that an owner is about to create a stream, so that its streams will be swept.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    with translated():
        await store.redis.zadd(stream_keys.OWNERS, {owner: time.time_ns() // 1_000_000})


async def sweep_owner(store: StreamStore, owner: str) -> int:
    """Delete expired streams of one owner, at most `STREAMS_AT_ONCE`; return how many.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    now_ms = time.time_ns() // 1_000_000
    with translated():
        names = await store.redis.zrangebyscore(
            stream_keys.names(owner), "-inf", now_ms, start=0, num=STREAMS_AT_ONCE
        )
    outcomes = [
        await store.delete(owner, name.decode("utf-8", "surrogateescape"), only_expired=True)
        for name in names
    ]
    return sum(outcome in ("absent", "deleted", "hidden") for outcome in outcomes)


async def sweep_owners(store: StreamStore) -> int:
    """Delete expired streams of owners whose time to look has come; return how many.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    swept, now_ms = 0, time.time_ns() // 1_000_000
    with translated():
        due = await store.redis.execute_command(  # type: ignore[no-untyped-call]
            "ZRANGEBYSCORE", stream_keys.OWNERS, "-inf", now_ms, "WITHSCORES",
            "LIMIT", 0, OWNERS_AT_ONCE,
        )  # fmt: skip
    for digest, score in zip(due[::2], due[1::2], strict=True):
        owner = digest.decode()
        swept += await sweep_owner(store, owner)
        again = await _next_look(store, owner, now_ms)
        await store.scripts.run("stream_owner", [stream_keys.OWNERS], [owner, score, again])
    return swept


async def _next_look(store: StreamStore, owner: str, now_ms: int) -> int | str:
    """Return when to look at an owner again, ms; empty: there are no streams."""
    with translated():
        first = await store.redis.execute_command(  # type: ignore[no-untyped-call]
            "ZRANGE", stream_keys.names(owner), 0, 0, "WITHSCORES"
        )
    if not first:
        return ""
    # A deadline may have been extended since; it is never earlier than it was.
    return max(now_ms + round(LOOK_AGAIN_S * 1000), min(round(float(first[1])), HIDDEN_MS))


async def forget_owner(store: StreamStore, owner: str) -> int:
    """Delete streams of one owner, with their forks; return how many were deleted or hidden.

    A caller repeats it until it returns 0: hidden streams go with their last fork.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    with translated():
        names = await store.redis.zrange(stream_keys.names(owner), 0, STREAMS_AT_ONCE - 1)
    if not names:
        with translated():
            await store.redis.zrem(stream_keys.OWNERS, owner)
    deleted = 0
    for name in names:
        outcome = await store.delete(owner, name.decode("utf-8", "surrogateescape"))
        deleted += outcome in ("deleted", "hidden")
    return deleted
