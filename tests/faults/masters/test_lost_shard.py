"""A shard without a replica is away: it costs its own generations, and nothing else.

Three masters, one of them frozen. Its index of a session, and its partitions of the queue, are away
with it. What was accepted meanwhile is listed when it is back.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from shared.config.credentials import ANONYMOUS
from shared.queue.partitions import Partitions
from shared.redis import keys
from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun
from tests.support.processes import Deployment
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_masters import RedisMasters
from tests.support.redis_server import RedisServer
from tests.support.wait import until

PARTITIONS = Partitions(8, is_even=True)
OWNER = ANONYMOUS  # there are no keys
PROMPTS = 12
DEADLINE_S = 180.0
SPARED_S = 2.0  # the longest wait of a reader whose shard is well


@pytest.fixture(scope="module")
async def deployment() -> AsyncIterator[tuple[RedisCluster, Deployment]]:
    # No master is replaced or taken for failed: the frozen one comes back as it was.
    shards = RedisCluster(aof="everysec", options={"cluster-node-timeout": "600000"})
    masters = await RedisMasters(cluster=shards).open()
    try:
        async with Deployment(api=2, workers=2, lease_s=2.0, server=masters) as deployment:
            yield shards, deployment
    finally:
        masters.close()


@asynccontextmanager
async def frozen(
    shards: RedisCluster, deployment: Deployment, key: str
) -> AsyncIterator[RedisServer]:
    """The master of `key` is frozen, and every node knows."""
    victim = shards.owner(key)
    victim.freeze()
    try:
        for role in deployment.api:
            await until(lambda url=role.url: is_degraded(url), 20, "a node that knows")
        yield victim
    finally:
        victim.thaw()


async def readiness(url: str) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/readyz") as response:
        return response.status, await response.json()


async def is_degraded(url: str) -> bool:
    status, content = await readiness(url)
    return status == 200 and content["status"] == "degraded"


async def post(url: str, body: dict[str, Any], **headers: str) -> tuple[int, dict[str, Any], Any]:
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{url}/v1/generations", json=body, headers=headers) as response,
    ):
        return response.status, await response.json(), response.headers


LOST_KEYS = {
    "session": keys.session(OWNER, "of-session"),
    "owner": keys.owner(OWNER),
    "bytes": keys.owner_bytes(OWNER),
    "workers": keys.WORKERS,
}


@pytest.mark.parametrize("what", LOST_KEYS)
async def test_prompts_go_to_shards_that_answer_and_are_listed_when_the_others_are_back(
    deployment: tuple[RedisCluster, Deployment], what: str
) -> None:
    shards, deployment = deployment
    session, index = f"of-{what}", LOST_KEYS[what]
    async with FaultRun(deployment, deadline_s=DEADLINE_S) as fault_run:
        async with frozen(shards, deployment, index) as victim:
            accepted = []
            for n in range(PROMPTS):
                body = demo_body(20, 50) | {"session": session}
                status, content, _ = await post(deployment.api[n % 2].url, body)
                assert status == 202, content
                accepted.append(content["id"])
            for generation_id in accepted:
                queue = keys.running(PARTITIONS.of(generation_id))
                assert shards.owner(keys.meta(generation_id)) is not victim
                assert shards.owner(queue) is not victim
            for generation_id in accepted:
                await until(
                    lambda name=generation_id: has_ended(deployment, name),
                    DEADLINE_S,
                    f"the end of {generation_id}\n{deployment.report()}",
                )
            status, content = await readiness(deployment.api[0].url)
            assert (status, content["shards"]) == (200, {"all": 3, "answering": 2})
            assert content["degraded"] == ["shards"]
        await until(lambda: listed(deployment, session, accepted), DEADLINE_S, "a whole listing")
        await until(lambda: is_ready(deployment), DEADLINE_S, "no shard is away")
        await fault_run.finish()


async def test_a_killed_master_without_a_replica_costs_only_its_own_answers(
    deployment: tuple[RedisCluster, Deployment], figure: Callable[[str, str], None]
) -> None:
    """It comes back from its append-only file, and its answers go on."""
    shards, deployment = deployment
    async with FaultRun(deployment, deadline_s=DEADLINE_S) as fault_run:
        answers = [
            await fault_run.start(demo_body(5_000, 20), hop_after=20, is_cut_short=True)
            for _ in range(PROMPTS)
        ]
        for answer in answers:
            await fault_run.read_to(answer, 8)
        victim = shards.owner(keys.meta(answers[0].id))
        lost = [each for each in answers if shards.owner(keys.meta(each.id)) is victim]
        spared = [each for each in answers if each not in lost]
        since = time.monotonic()
        victim.kill()
        for answer in spared:
            await fault_run.read_on(answer, 40)
        victim.start()
        for answer in lost:
            await fault_run.read_on(answer, 8)
        for answer in answers:
            await fault_run.cancel(answer)
        # The first reader of each answer stays; the others open a connection every second.
        gap_s = max(answer.readings[0].longest_gap_s(after=since) for answer in spared)
        figure("killed without a replica: longest gap of the others", f"{gap_s:.2f} s")
        assert gap_s < SPARED_S
        await fault_run.finish(bound_s=DEADLINE_S, is_lossless=False)
        for answer in spared:
            assert all(reading.resets == 0 for reading in answer.readings)


async def test_a_role_starts_while_a_shard_is_away(
    deployment: tuple[RedisCluster, Deployment],
) -> None:
    """The record of the number of partitions is away, and some of the partitions."""
    shards, deployment = deployment
    async with frozen(shards, deployment, keys.PARTITIONS):
        worker, node = deployment.workers[1], deployment.api[1]
        for role in (worker, node):
            role.kill()
            role.start()
        await worker.ready()
        await node.ready()
        await until(lambda: is_degraded(node.url), 20, "a node that serves")
        status, content, _ = await post(node.url, demo_body(3, 0))
        assert status == 202
        await until(lambda: has_ended(deployment, content["id"]), DEADLINE_S, "its end")
    await until(lambda: is_ready(deployment), DEADLINE_S, "no shard is away")


async def is_ready(deployment: Deployment) -> bool:
    _, content = await readiness(deployment.api[0].url)
    return bool(content["status"] == "ready")


async def has_ended(deployment: Deployment, generation_id: str) -> bool:
    url = f"{deployment.api[1].url}/v1/generations/{generation_id}"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return response.status == 200 and (await response.json())["status"] == "completed"


async def listed(deployment: Deployment, session: str, ids: list[str]) -> bool:
    url = f"{deployment.api[0].url}/v1/sessions/{session}"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        if response.status != 200:
            return False
        content = await response.json()
    return {each["id"] for each in content["generations"]} == set(ids)


async def test_a_key_that_names_a_generation_on_a_lost_shard_is_answered_503_at_once(
    deployment: tuple[RedisCluster, Deployment],
) -> None:
    shards, deployment = deployment
    url, key, body = deployment.api[0].url, "again-and-again", demo_body(1, 0)
    status, first, _ = await post(url, body, **{"Idempotency-Key": key})
    assert status == 202
    async with frozen(shards, deployment, keys.meta(first["id"])):
        status, content, headers = await post(url, body, **{"Idempotency-Key": key})
        assert (status, content["error"]["code"]) == (503, "unavailable"), content
        assert int(headers["Retry-After"]) >= 1

    async def repeated() -> bool:
        status, content, _ = await post(url, body, **{"Idempotency-Key": key})
        return status in (200, 202) and content["id"] == first["id"]

    await until(repeated, DEADLINE_S, "the same generation again")
