"""A worker in this process on three masters, one of which is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from api.edge.metrics import Metrics
from api.resources.health import HealthRoutes
from shared.config.limits import OwnerLimits
from shared.log.events import Token
from shared.log.ids import START
from shared.queue.partitions import partitions_of
from shared.queue.presence import workers_seen
from shared.redis import keys
from shared.redis.following import follow_redis
from shared.redis.shards import shard_count
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.shell import Shell
from tests.support.wait import until
from tests.support.worker_harness import WorkerHarness
from workers.backends import Finish

LEASE_S = 1.0
DEADLINE_S = 30.0
OWNERS = [f"owner-{n}" for n in range(99)]


class Bench:
    """A worker whose answers wait for the gate after their first token."""

    def __init__(self, cluster: RedisCluster) -> None:
        self.cluster = cluster
        self.gate = asyncio.Event()
        self.harness = WorkerHarness(
            cluster.url, self._answer, lease_s=LEASE_S, queue_partitions=8, retention_s=60.0
        )
        self.partitions = partitions_of(self.harness.settings)

    async def _answer(self, _):
        yield [Token("w " * 5_000)]
        await self.gate.wait()
        yield [Finish("stop")]

    def draw_id(self, victim: RedisServer, tag: str = "") -> str:
        """Return an id whose meta is not on the victim.

        Args:
            tag: of the partition of the id; empty: any partition that is not on the victim.
        """
        while True:
            drawn = self.harness.acceptor.draw_id()
            own, is_away = self.partitions.of(drawn), self.is_on(victim)
            fits = own == tag if tag else not is_away(keys.running(own))
            if fits and not is_away(keys.meta(drawn)):
                return drawn

    def is_on(self, victim: RedisServer):
        return lambda key: self.cluster.owner(key) is victim

    async def begin(self, generation_id: str, owner: str, **changes) -> None:
        new = self.harness.new(owner=owner, **changes)
        await self.harness.acceptor.accept(new, generation_id)
        await until(lambda: self._runs(generation_id), DEADLINE_S, "a running answer")

    async def _runs(self, generation_id: str) -> bool:
        return len(await self.harness.store.page(generation_id, START, 10)) == 2

    async def serving(self, count: int) -> None:
        """Wait until the worker knows that so many shards answer."""
        await until(lambda: shard_count(self.harness.redis) == (3, count), DEADLINE_S, "shards")


@asynccontextmanager
async def bench(**options: str) -> AsyncIterator[Bench]:
    async with RedisCluster(options=options) as cluster:
        bench = Bench(cluster)
        async with bench.harness:
            following = asyncio.create_task(follow_redis(bench.harness.settings))
            try:
                await bench.harness.start()
                yield bench
            finally:
                bench.gate.set()
                following.cancel()


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_a_shard_of_a_partition_that_is_away_does_not_make_the_worker_look_dead(fault):
    """The worker has answers in that partition only: it can write none into the index."""
    async with bench(**{"cluster-node-timeout": "600000"}) as scene:
        cluster, redis, store = scene.cluster, scene.harness.redis, scene.harness.store
        home = cluster.owner(keys.WORKERS)
        tag = next(
            each for each in scene.partitions.tags if cluster.owner(keys.running(each)) is not home
        )
        is_away = scene.is_on(victim := cluster.owner(keys.running(tag)))
        owner = next(
            each
            for each in OWNERS
            if not (is_away(keys.owner_bytes(each)) or is_away(keys.owner(each)))
        )
        generation_id = scene.draw_id(victim, tag)
        await scene.begin(generation_id, owner)
        victim.kill() if fault == "killed" else victim.freeze()
        await scene.serving(2)
        since_ms = await store.now_ms()

        async def is_younger() -> bool:
            (presence,) = await workers_seen(redis)
            return presence.at_ms > since_ms + 5_000 * LEASE_S

        await until(is_younger, DEADLINE_S, "reports of five leases later")
        meta = await store.meta(generation_id)
        assert meta is not None and meta.status == "running"
        assert meta.lease_ms > await store.now_ms()
        given = {"redis": redis, "settings": scene.harness.settings, "metrics": Metrics()}
        node = replace(Shell().node, **given)
        assert (await HealthRoutes(node).checks())["worker"]


async def test_the_records_of_an_end_are_written_when_the_shard_of_the_owner_is_back():
    async with bench(**{"cluster-node-timeout": "600000"}) as scene:
        redis, store, owner = scene.harness.redis, scene.harness.store, OWNERS[0]
        victim = scene.cluster.owner(keys.owner_limits(owner))
        generation_id = scene.draw_id(victim)
        limits = OwnerLimits(active_max=5, tokens_per_day=100_000)
        await scene.begin(generation_id, owner, limits=limits, tokens=50_000)
        lane = keys.lane("interactive", scene.partitions.of(generation_id))
        victim.freeze()
        try:
            await scene.serving(2)
            scene.gate.set()
            await scene.harness.ended(generation_id)

            async def is_claimed() -> bool:
                (entry,) = await redis.xpending_range(lane, keys.GROUP, "-", "+", 1)
                return entry["times_delivered"] > 2

            await until(is_claimed, DEADLINE_S, "an entry whose steps are repeated")
        finally:
            victim.thaw()
        await scene.serving(3)

        async def is_settled() -> bool:
            return not await redis.zcard(keys.owner_active(owner))

        await until(is_settled, DEADLINE_S, "the settlement")
        await until(lambda: is_empty(redis, lane), DEADLINE_S, "an acknowledged entry")
        entries = await store.page(generation_id, START, 100)
        (size, *_) = (await redis.hget(keys.owner_bytes(owner), generation_id)).split()
        assert int(size) == sum(len(raw) for _, raw in entries)
        spent = json.loads(await redis.hget(keys.meta(generation_id), "spent"))
        assert int(await redis.hget(keys.owner_limits(owner), "used")) == spent["total_tokens"]


async def is_empty(redis, lane) -> bool:
    return not await redis.xlen(lane)
