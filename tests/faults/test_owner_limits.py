"""The limits of an owner on three nodes: under a crowd of prompts, and when a node is killed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from shared.redis import keys
from tests.support.processes import Deployment
from tests.support.wait import until

CROWD = 2_000
AT_ONCE = 400  # open connections of the test, and prompts under way
DEAD_S = 10.0  # in which a node that died gives its places back
KEYS = "key-of-alice-0123456:alice,key-of-bob-012345678:bob,key-of-carol-0123456:carol"
LIMITS = """
[owners.alice]
active_max = 60
[owners.bob]
tokens_per_min = 6_000
[owners.carol]
connections_max = 6
"""
DEMO = '[models.demo]\nbackend = "demo"\non_takeover = "continue"\ntokens_per_s = 0\n'
ALICE, BOB, CAROL = (
    {"authorization": f"Bearer {key}"}
    for key in ("key-of-alice-0123456", "key-of-bob-012345678", "key-of-carol-0123456")
)


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    path = tmp_path / "limits.toml"
    path.write_text(LIMITS)
    async with Deployment(
        api=3, workers=1, models=DEMO, settings={"api_keys": KEYS, "limits": str(path)}
    ) as deployment:
        yield deployment


@pytest.fixture
async def web() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(60)
    ) as session:
        yield session


async def crowd(deployment: Deployment, web: aiohttp.ClientSession, who, body) -> Counter[str]:
    """Send many prompts at once to all nodes; return how they were answered."""

    async def ask(number: int) -> str:
        url = f"{deployment.urls[number % 3]}/v1/generations"
        async with web.post(url, json=body, headers=who) as answer:
            said = await answer.json()
            return "" if answer.status == 202 else said["error"]["code"]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(number)) for number in range(CROWD)]
    return Counter(task.result() for task in tasks)


async def test_a_crowd_of_prompts_never_has_more_active_generations_than_may_be(
    deployment: Deployment, web: aiohttp.ClientSession
) -> None:
    deployment.workers[0].kill()

    answers = await crowd(deployment, web, ALICE, {"prompt": "x"})

    assert answers == {"": 60, "too_many_active": CROWD - 60}
    deployment.workers[0].start()
    redis = deployment.redis()
    async with redis:
        settled = keys.owner_active("alice")

        async def is_settled() -> bool:
            return not await redis.zcard(settled)

        await until(is_settled, 20, "the end of every generation")


async def test_a_crowd_of_prompts_takes_no_more_tokens_than_the_limit_and_its_refill(
    deployment: Deployment, web: aiohttp.ClientSession
) -> None:
    """Each answer takes fewer tokens than its estimate, so settling lets further prompts in."""
    body = {"prompt": "x" * 400, "params": {"max_tokens": 100, "demo": {"tokens": 20}}}
    estimate = 100 + 100
    began_s = time.monotonic()

    answers = await crowd(deployment, web, BOB, body)

    elapsed_s = time.monotonic() - began_s
    assert set(answers) == {"", "rate_limited"}
    redis = deployment.redis()
    async with redis:
        record = keys.owner_limits("bob")

        async def is_settled() -> bool:
            return not await redis.zcard(keys.owner_active("bob"))

        await until(is_settled, 20, "the end of every generation")
        used = int(await redis.hget(record, "used"))
    limit = 6_000 + 6_000 * elapsed_s / 60
    assert used <= limit + estimate, "the limit, what came back, and one answer"
    assert answers[""] >= 6_000 // estimate, "the limit is used"


async def test_a_killed_node_gives_its_places_back_within_ten_seconds(
    deployment: Deployment, web: aiohttp.ClientSession
) -> None:
    body = {"prompt": "x", "params": {"demo": {"tokens": 4_000, "tokens_per_s": 20}}}
    async with web.post(f"{deployment.urls[1]}/v1/generations", json=body, headers=CAROL) as answer:
        assert answer.status == 202, await answer.text()
        path = f"/v1/generations/{(await answer.json())['id']}/events"
    async with contextlib.AsyncExitStack() as stack:
        for node in (0, 0, 0, 0, 1, 1):
            url = deployment.urls[node] + path
            stream = await stack.enter_async_context(web.get(url, headers=CAROL))
            assert stream.status == 200

        async def status() -> int:
            async with web.get(f"{deployment.urls[2]}{path}?wait=0.05", headers=CAROL) as answer:
                return answer.status

        assert await status() == 429
        killed_s = time.monotonic()
        deployment.api[0].kill()

        async def is_let_in() -> bool:
            return await status() == 200

        await until(is_let_in, DEAD_S + 5, "a place of the dead node")
        assert time.monotonic() - killed_s < DEAD_S
        for _ in range(3):
            url = deployment.urls[2] + path
            stream = await stack.enter_async_context(web.get(url, headers=CAROL))
            assert stream.status == 200
