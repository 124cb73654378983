"""Sentinel moves the master under nodes, workers and jobs: it is killed, frozen, or told to go.

Three real sentinels, a master and a replica. Prompts keep coming, and readers read, all the time.
A promoted replica may lack the last writes, which the living workers write again. So no reader sees
a `reset`. A prompt that was answered 202 before the switch may be lost with the old master; after
the switch, none is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import redis.asyncio

from shared.redis import keys
from tests.support.client import RETRY_S
from tests.support.demo import demo_body
from tests.support.jobs import call, fired, plan
from tests.support.processes import Cluster
from tests.support.redis_server import RedisServer
from tests.support.scene import Scene
from tests.support.sentinels import SentinelSet
from tests.support.wait import until

LEASE_S = 0.8
SHORT = demo_body(3, 100)
LONG = demo_body(5_000, 50)


@dataclass
class Stand:
    """Roles over sentinels, and a record of every prompt."""

    sentinels: SentinelSet
    cluster: Cluster
    scene: Scene
    accepted: list[tuple[float, str]] = field(default_factory=list)  # when answered 202; the id
    switched_at: float = 0.0  # when the first sentinel had published +switch-master

    @property
    def old(self) -> RedisServer:
        return self.sentinels.servers[0]

    @property
    def new(self) -> RedisServer:
        return self.sentinels.servers[1]

    @property
    def accepted_after(self) -> list[tuple[float, str]]:
        """The prompts that were answered 202 after the switch."""
        if not self.switched_at:
            return []
        return [(at, name) for at, name in self.accepted if at > self.switched_at]

    async def prompt(self, http: aiohttp.ClientSession, node: str) -> None:
        """Send one prompt after the other, without a key, and record those that were accepted."""
        while True:
            try:
                async with http.post(f"{node}/v1/generations", json=SHORT) as response:
                    if response.status == 202:
                        found = await response.json()
                        self.accepted.append((time.monotonic(), found["id"]))
                        continue
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(RETRY_S)  # as a client waits before it tries again

    async def hear(self, port: int) -> None:
        """Record when a sentinel publishes the switch."""
        client = redis.asyncio.Redis(port=port, protocol=2)
        async with client.pubsub() as channel:
            await channel.subscribe("+switch-master")
            async for message in channel.listen():
                if message["type"] == "message":
                    self.switched_at = self.switched_at or time.monotonic()
        await client.aclose()

    async def goes_on(self) -> None:
        """Return when the sentinels name the new master and prompts are accepted there."""
        await self.sentinels.switched(to=self.new)
        self.cluster.server = self.new
        what = f"prompts after the switch\n{self.cluster.report()}"
        await until(lambda: len(self.accepted_after) >= 20, 20, what)

    async def demoted(self) -> None:
        """Return when the old master is a replica; until then it has none of the new prompts."""
        wrong: list[str] = []
        looked_at: set[str] = set()

        def is_replica() -> bool:
            names = [name for _, name in self.accepted_after if name not in looked_at]
            with self.old.client() as client:
                # In one transaction: as a replica, the server soon has all data of the new master.
                asked = client.pipeline(transaction=True)
                asked.execute_command("ROLE")
                for name in names:
                    asked.exists(keys.meta(name))
                try:
                    role, *found = asked.execute()
                except redis.exceptions.ConnectionError:  # closed while it becomes a replica
                    return False
            if role[0] == b"slave":
                return True
            wrong.extend(name for name, is_there in zip(names, found, strict=True) if is_there)
            looked_at.update(names)
            return False

        await until(is_replica, 20, f"the old master as a replica\n{self.sentinels.report()}")
        assert looked_at, "the old master was never seen as a master"
        assert not wrong, "written to the old master after the switch"

    async def check_prompts(self) -> None:
        """Every prompt that was accepted after the switch ends at the new master."""
        client = self.cluster.redis()
        try:
            late = self.accepted_after
            lost = [name for _, name in late if not await client.exists(keys.meta(name))]
            assert not lost, f"accepted after the switch and lost: {len(lost)} of {len(late)}"
            last = keys.meta(late[-1][1])
            await until(lambda: is_completed(client, last), 20, "the end of the last prompt")
        finally:
            await client.aclose()


async def is_completed(client: Any, meta: str) -> bool:
    return bool(await client.hget(meta, "status") == b"completed")


@asynccontextmanager
async def standing(*, jobs: int = 0) -> AsyncIterator[Stand]:
    async with SentinelSet() as sentinels:
        server, url = sentinels.servers[0], sentinels.url
        cluster = Cluster(
            api=2, workers=2, jobs=jobs, lease_s=LEASE_S, server=server, redis_url=url
        )
        timeout = aiohttp.ClientTimeout(total=10)
        async with cluster, Scene(cluster) as scene, aiohttp.ClientSession(timeout=timeout) as http:
            stand = Stand(sentinels, cluster, scene)
            async with asyncio.TaskGroup() as group:
                ears = [group.create_task(stand.hear(part.port)) for part in sentinels.sentinels]
                senders = [group.create_task(stand.prompt(http, node)) for node in cluster.urls]
                await until(lambda: len(stand.accepted) >= 10, 20, "prompts before the switch")
                yield stand
                for task in [*ears, *senders]:
                    task.cancel()


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_readers_see_one_text_when_the_master_is_lost_and_comes_back(fault, figure):
    async with standing() as stand:
        answers = [await stand.scene.start(LONG, is_cut_short=True) for _ in range(4)]
        for answer in answers:
            await stand.scene.read_to(answer, 8)

        if fault == "killed":
            stand.old.kill()
        else:
            stand.old.freeze()
        await stand.goes_on()
        figure("first 202 after +switch-master", said(stand))
        if fault == "killed":
            stand.old.start()
        else:
            stand.old.thaw()
        await stand.demoted()

        for answer in answers:
            await stand.scene.read_on(answer, 8)
            await stand.scene.cancel(answer)
        await stand.check_prompts()
        await stand.scene.finish(bound_s=40)


async def test_a_planned_failover_loses_no_prompt_that_was_accepted_after_it(figure):
    """The old master lives, and takes writes as a master for some seconds more."""
    async with standing(jobs=1) as stand:
        answer = await stand.scene.start(LONG, is_cut_short=True)
        await stand.scene.read_to(answer, 8)
        await asyncio.to_thread(stand.new.wait_replicated)

        stand.sentinels.failover()
        await stand.goes_on()
        figure("first 202 after +switch-master", said(stand))
        await stand.demoted()

        numbers = {"sentinels": 3, "heard": 3, "replicas": 1}
        await until(lambda: says(stand.cluster, numbers), 20, "/readyz with the old master again")
        await fired(stand.cluster, await plan(stand.cluster, "after the switch", run_at=1))
        await stand.scene.read_on(answer, 8)
        await stand.scene.cancel(answer)
        await stand.check_prompts()
        await stand.scene.finish(bound_s=40)


async def says(cluster: Cluster, numbers: dict[str, int]) -> bool:
    status, found = await call(cluster, "GET", "/readyz")
    return status == 200 and bool(found["sentinel"] == numbers)


def said(stand: Stand) -> str:
    return f"{stand.accepted_after[0][0] - stand.switched_at:.2f} s"
