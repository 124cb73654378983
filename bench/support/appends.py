"""Appends to many generations at once, as a busy worker does, and measures Redis meanwhile.

One call for each server of Redis is under way at a time, as in a worker. A live connection
subscribes to all generations and receives every frame.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from api.hub.live_source import open_live_source
from bench.support.cpu import cpu_s
from bench.support.table import US
from bench.support.writer import LEASE_S, OWNER
from shared.config.settings import Settings
from shared.log.events import Token, encode
from shared.log.ids import new_generation_id
from shared.log.records import Append, Ok
from shared.log.store import Store
from shared.redis import keys
from shared.redis.connections import connect, open_pipeline
from shared.redis.shards import shard_of
from tests.support.generation import FIELDS, Holder
from tests.support.wait import until

ANSWER_S = 30.0
TOKEN = encode(Token(" word"))


@dataclass(frozen=True, slots=True)
class Appended:
    """The measured figures.

    Attributes:
        shares_us: the CPU of each server per token of all, µs, without what it takes when idle.
        idle_us: the CPU of all idle servers each second, µs.
        per_s: tokens per second.
    """

    shares_us: Sequence[float]
    idle_us: float
    per_s: float


class _Frames:
    """Counts what the live connection receives."""

    def __init__(self) -> None:
        self.subscribed_channels: set[bytes] = set()
        self.count = 0

    def message(self, channel: bytes, data: bytes) -> None:
        del channel, data
        self.count += 1

    def subscribed(self, channel: bytes) -> None:
        self.subscribed_channels.add(channel)

    def disconnected(self) -> None:
        self.subscribed_channels.clear()


async def append_all(
    redis_url: str, pids: Mapping[str, int], *, rounds: int, at_once: int, idle_s: float
) -> Appended:
    """Append `rounds` tokens to each of `at_once` generations.

    Args:
        pids: of the servers of Redis.
        idle_s: how long the CPU of the idle servers is measured, before the appends.
    """
    settings = Settings(redis_url=redis_url, lease_s=LEASE_S, retention_s=60.0)
    frames = _Frames()
    live = open_live_source(redis_url, frames)
    redis = connect(settings)
    async with aclosing(redis), aclosing(open_pipeline(redis_url, answer_s=ANSWER_S)) as pipeline:
        store = Store(redis, settings, pipeline)
        listening = asyncio.create_task(live.run())
        holders = [await _begin(store) for _ in range(at_once)]
        for holder in holders:
            live.subscribe(keys.live(holder.generation_id).encode())
        await until(lambda: len(frames.subscribed_channels) >= at_once, ANSWER_S, "subscriptions")
        groups: dict[object, list[Holder]] = {}
        for holder in holders:
            groups.setdefault(shard_of(redis, keys.meta(holder.generation_id)), []).append(holder)
        await _append(store, holders, 1)  # the servers know the scripts now
        before = _cpu(pids)
        await asyncio.sleep(idle_s)
        idle = [each / idle_s for each in _used(pids, before)]
        before = _cpu(pids)
        began_s, seen = time.monotonic(), frames.count
        async with asyncio.TaskGroup() as tasks:
            for group in groups.values():
                tasks.create_task(_append(store, group, rounds, after=1))
        tokens, took_s = rounds * at_once, time.monotonic() - began_s
        await until(lambda: frames.count - seen >= tokens, ANSWER_S, "every frame")
        lasted_s = time.monotonic() - began_s
        used = [
            busy - share * lasted_s for busy, share in zip(_used(pids, before), idle, strict=True)
        ]
        listening.cancel()
        await asyncio.wait([listening])
    return Appended([US * each / tokens for each in used], US * sum(idle), tokens / took_s)


def _cpu(pids: Mapping[str, int]) -> list[float]:
    return [cpu_s(pid) for pid in pids.values()]


def _used(pids: Mapping[str, int], before: Sequence[float]) -> list[float]:
    return [now - then for now, then in zip(_cpu(pids), before, strict=True)]


async def _begin(store: Store) -> Holder:
    generation_id = new_generation_id()
    fields = {**FIELDS, "owner": OWNER, "model": "bench", "session": ""}
    await store.create(generation_id, fields, may_be_lost=False)
    return await Holder.begin(store, generation_id=generation_id)


async def _append(store: Store, holders: Sequence[Holder], rounds: int, *, after: int = 0) -> None:
    for n in range(after, after + rounds):
        outcomes = await store.append_many(
            [
                Append(each.generation_id, "mine", each.attempt, each.seq + n, [TOKEN], None)
                for each in holders
            ]
        )
        assert all(outcome == Ok() for outcome in outcomes), outcomes
