"""The cluster's pipeline while a master is lost and its replica is promoted.

Calls of the other shards see no gap, and those of the lost shard are answered by the promoted
replica as soon as it takes writes.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import aclosing

import pytest
from redis import exceptions

from shared.config.redis_url import parse_redis_url
from shared.errors import Unavailable
from shared.redis.cluster.pipeline import ClusterPipeline
from shared.redis.cluster.slots import key_slot
from tests.support.redis_cluster import NODE_TIMEOUT_MS, RedisCluster
from tests.support.wait import until

ADD = b"return redis.call('INCRBY', KEYS[1], ARGV[1])"
DIGESTS = {hashlib.sha1(ADD).hexdigest(): ADD}
(DIGEST,) = DIGESTS
KEYS = [f"{{generation {n}}}:log" for n in range(30)]


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_a_promoted_replica_is_found_and_the_other_shards_see_no_gap(fault, figure):
    async with RedisCluster(replicas=True) as cluster:
        url = parse_redis_url(cluster.url)
        pipeline = ClusterPipeline(url, answer_s=2.5, source_of=DIGESTS.get)
        async with aclosing(pipeline):
            await pipeline.evaluate([(DIGEST, ([key], [1])) for key in KEYS])
            victim = cluster.servers[0]
            lost = [key for key in KEYS if place(pipeline, key) == victim.port]
            spared = [key for key in KEYS if key not in lost]
            gaps = {"lost": Gap(), "spared": Gap()}
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(keep_calling(pipeline, lost, gaps["lost"])),
                    group.create_task(keep_calling(pipeline, spared, gaps["spared"])),
                ]
                await until(lambda: all(gap.answers > 20 for gap in gaps.values()), 20)
                victim.kill() if fault == "killed" else victim.freeze()
                await until(lambda: gaps["lost"].errors > 0, 20, "errors of the lost shard")
                before = gaps["lost"].answers
                await until(lambda: gaps["lost"].answers > before + 20, 20, "the promoted replica")
                for task in tasks:
                    task.cancel()

            assert gaps["spared"].errors == 0
            assert place(pipeline, lost[0]) != victim.port
    node_timeout_s = NODE_TIMEOUT_MS / 1000
    for name, gap in gaps.items():
        times = f"{gap.longest_s:.2f} s, {gap.longest_s / node_timeout_s:.1f} node timeouts"
        figure(f"longest gap of the {name} shards", times)


class Gap:
    """The longest time between two whole answers."""

    def __init__(self) -> None:
        self.answers = 0
        self.errors = 0
        self.longest_s = 0.0
        self._last_s = time.monotonic()

    def take(self, replies: list[object]) -> None:
        if any(isinstance(reply, exceptions.RedisError) for reply in replies):
            self.errors += 1
            return
        now_s = time.monotonic()
        self.longest_s = max(self.longest_s, now_s - self._last_s)
        self._last_s = now_s
        self.answers += 1


async def keep_calling(pipeline: ClusterPipeline, names: list[str], gap: Gap) -> None:
    while True:
        try:
            gap.take(await pipeline.evaluate([(DIGEST, ([name], [1])) for name in names]))
        except Unavailable:  # all calls were lost
            gap.errors += 1
        await asyncio.sleep(0.005)  # a caller's own pause


def place(pipeline: ClusterPipeline, key: str) -> int:
    address = pipeline.slot_map.master_of(key_slot(key.encode()))
    assert address is not None
    return address[1]
