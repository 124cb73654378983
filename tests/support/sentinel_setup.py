"""Roles over real sentinels, with prompts all the time, and a record of those that were accepted.

Sentinel moves the master from `old` to `new`. A prompt that was answered 202 before the switch may
be lost with the old master; after the switch, none may be.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import redis.asyncio

from shared.redis import keys
from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun
from tests.support.processes import Deployment
from tests.support.redis_server import RedisServer
from tests.support.sentinels import SentinelSet
from tests.support.wait import until

LEASE_S = 0.8
SHORT = demo_body(3, 100)
PROMPT_PAUSE_S = 0.03  # also before a client tries again


@dataclass
class SentinelSetup:
    """Roles over sentinels, and a record of every prompt."""

    sentinels: SentinelSet
    deployment: Deployment
    fault_run: FaultRun
    old: RedisServer  # the master that is to be left
    new: RedisServer  # its replica
    accepted: list[tuple[float, str]] = field(default_factory=list)  # when answered 202; the id
    switched_at: float = 0.0  # when the first sentinel had published +switch-master

    @property
    def accepted_after(self) -> list[tuple[float, str]]:
        """The prompts that were answered 202 after the switch."""
        if not self.switched_at:
            return []
        return [(at, name) for at, name in self.accepted if at > self.switched_at]

    async def prompt(self, http: aiohttp.ClientSession, node: str) -> None:
        """Send one prompt after the other, without a key, and record those that were accepted.

        Thirty a second at most: more of them only keep the cores from the roles and the sentinels.
        """
        while True:
            try:
                async with http.post(f"{node}/v1/generations", json=SHORT) as response:
                    if response.status == 202:
                        found = await response.json()
                        self.accepted.append((time.monotonic(), found["id"]))
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(PROMPT_PAUSE_S)

    async def hear(self, port: int) -> None:
        """Record when a sentinel publishes the switch."""
        client = redis.asyncio.Redis(port=port, protocol=2)
        async with client.pubsub() as channel:
            await channel.subscribe("+switch-master")
            async for message in channel.listen():
                if message["type"] == "message":
                    self.switched_at = self.switched_at or time.monotonic()
        await client.aclose()

    async def lose_master(self, fault: str) -> None:
        """Kill or freeze the master, or have a sentinel promote the replica beside it."""
        self.switched_at = 0.0
        if fault == "killed":
            self.old.kill()
        elif fault == "frozen":
            self.old.freeze()
        else:
            assert fault == "told to go"
            await self.sentinels.failover()

    def bring_back(self, fault: str) -> None:
        """Start or thaw the old master, which takes itself for the master at first."""
        if fault == "killed":
            self.old.start()
        elif fault == "frozen":
            self.old.thaw()

    async def change_places(self) -> None:
        """Make the old master the replica of the next round; return when it has all data."""
        self.old, self.new = self.new, self.old
        self.new.replica_of, self.old.replica_of = self.old, None
        await asyncio.to_thread(self.new.wait_replicated)
        await self.sentinels.settled()

    @property
    def first_s(self) -> float:
        """From the first +switch-master to the first prompt that was answered 202 after it, s."""
        return self.accepted_after[0][0] - self.switched_at

    async def goes_on(self) -> None:
        """Return when the sentinels name the new master and prompts are accepted there."""
        await self.sentinels.switched(to=self.new)
        self.deployment.server = self.new
        what = f"prompts after the switch\n{self.deployment.report()}"
        await until(lambda: len(self.accepted_after) >= 20, 20, what)

    async def demoted(self) -> None:
        """Return when the old master is a replica; until then it has none of the new prompts."""
        wrong: list[str] = []
        looked_at: set[str] = set()

        async def is_replica() -> bool:
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
        client = self.deployment.redis()
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
async def standing(*, jobs: int = 0) -> AsyncIterator[SentinelSetup]:
    """Roles at work over three sentinels, a master and a replica; prompts keep coming."""
    async with SentinelSet() as sentinels:
        server, url = sentinels.servers[0], sentinels.url
        deployment = Deployment(
            api=2, workers=2, jobs=jobs, lease_s=LEASE_S, server=server, redis_url=url
        )
        timeout = aiohttp.ClientTimeout(total=10)
        async with (
            deployment,
            FaultRun(deployment) as fault_run,
            aiohttp.ClientSession(timeout=timeout) as http,
        ):
            setup = SentinelSetup(sentinels, deployment, fault_run, *sentinels.servers)
            async with asyncio.TaskGroup() as group:
                ears = [group.create_task(setup.hear(part.port)) for part in sentinels.sentinels]
                senders = [group.create_task(setup.prompt(http, node)) for node in deployment.urls]
                await until(lambda: len(setup.accepted) >= 10, 20, "prompts before the switch")
                yield setup
                for task in [*ears, *senders]:
                    task.cancel()
