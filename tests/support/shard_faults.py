"""Roles over six real servers, answers on every master, and the longest wait of each reader.

async with shard_faults() as faults:
    answers = await faults.start()               # some on each master
    faults.lose(victim)
    figures = faults.longest_gaps(since)
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from shared.redis import keys
from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun, WatchedGeneration
from tests.support.processes import Deployment
from tests.support.redis_cluster import NODE_TIMEOUT_MS, RedisCluster
from tests.support.redis_masters import RedisMasters
from tests.support.redis_server import RedisServer

LEASE_S = 0.8
NODE_TIMEOUT_S = NODE_TIMEOUT_MS / 1000
LONG = demo_body(5_000, 50)
EACH = 2  # answers on each master
PROMPTS_MAX = 60


@dataclass
class ShardFaults:
    """A deployment on a cluster with replicas.

    Attributes:
        answers: by the port of the master on which each began.
    """

    redis: RedisCluster
    deployment: Deployment
    fault_run: FaultRun
    answers: dict[int, list[WatchedGeneration]] = field(default_factory=dict)

    async def start(self) -> None:
        """Begin `EACH` long answers on each master, and read eight events of each."""
        for _ in range(PROMPTS_MAX):
            answer = await self.fault_run.start(LONG, is_cut_short=True)
            found = self.answers.setdefault(self.owner(answer).port, [])
            if len(found) < EACH:
                found.append(answer)
            else:  # its readers end with it
                await self.fault_run.cancel(answer)
            if [len(found) for found in self.answers.values()] == [EACH] * self.redis.masters:
                break
        for found in self.answers.values():
            for answer in found:
                await self.fault_run.read_to(answer, 8)

    def owner(self, answer: WatchedGeneration) -> RedisServer:
        return self.redis.owner(keys.meta(answer.id))

    async def read_on(self, events: int = 8) -> None:
        for found in self.answers.values():
            for answer in found:
                assert await self.fault_run.read_on(answer, events), "the answer is too short"

    async def finish(self, *, bound_s: float = 60) -> None:
        """End all answers, and audit what the readers got."""
        for found in self.answers.values():
            for answer in found:
                await self.fault_run.cancel(answer)
        await self.fault_run.finish(bound_s=bound_s)


def longest_gap(answers: list[WatchedGeneration], since: float) -> float:
    """Return the longest time between two events of one reader that ends after `since`, s."""
    gaps = []
    for answer in answers:
        for reading in answer.readings:
            times = [delivery.at for delivery in reading.deliveries]
            gaps += [
                after - before
                for before, after in zip(times, times[1:], strict=False)
                if after > since
            ]
    return max(gaps)


@asynccontextmanager
async def shard_faults(**settings: str) -> AsyncIterator[ShardFaults]:
    masters = await RedisMasters(replicas=True).open()
    try:
        async with Deployment(
            api=2, workers=2, jobs=1, lease_s=LEASE_S, server=masters, settings=settings
        ) as deployment:
            async with FaultRun(deployment, deadline_s=60) as fault_run:
                yield ShardFaults(masters.cluster, deployment, fault_run)
    finally:
        masters.close()


def now() -> float:
    """Return the time of the readers' records."""
    return time.monotonic()
