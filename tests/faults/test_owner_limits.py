"""The limits of an owner on three nodes: under a crowd of prompts, and when a node is killed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import pytest

from shared.redis import keys
from tests.support.hasty_node import LIFE_S, SHARE
from tests.support.processes import Deployment
from tests.support.wait import until

AT_ONCE = 100  # open connections of the test, and prompts under way: more than any limit here
CROWD = 300  # the first `AT_ONCE` meet at the limit, the others meet a limit that is used up
DEAD_S = 10.0  # in which a node that died gives its places back
KEYS = "key-of-alice-0123456:alice,key-of-bob-012345678:bob,key-of-carol-0123456:carol"
LIMITS = """
[owners.alice]
active_max = 60
[owners.bob]
tokens_per_min = 2_000
[owners.carol]
connections_max = 6
"""
DEMO = '[models.demo]\nbackend = "demo"\non_takeover = "continue"\ntokens_per_s = 0\n'
ALICE, BOB, CAROL = (
    {"authorization": f"Bearer {key}"}
    for key in ("key-of-alice-0123456", "key-of-bob-012345678", "key-of-carol-0123456")
)


@pytest.fixture(scope="module")
async def shared_deployment(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    path = tmp_path_factory.mktemp("limits") / "limits.toml"
    path.write_text(LIMITS)
    settings = {"api_keys": KEYS, "limits": str(path)}
    deployment = Deployment(api=3, workers=1, models=DEMO, settings=settings)
    for node in deployment.api:
        node.module = "tests.support.hasty_node"
    async with deployment:
        yield deployment


@pytest.fixture
async def web() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(60)
    ) as session:
        yield session


async def crowd(
    deployment: Deployment, web: aiohttp.ClientSession, who, body, size: int = CROWD
) -> Counter[str]:
    """Send many prompts at once to all nodes; return how they were answered."""

    async def ask(number: int) -> str:
        url = f"{deployment.urls[number % 3]}/v1/generations"
        async with web.post(url, json=body, headers=who) as answer:
            said = await answer.json()
            return "" if answer.status == 202 else said["error"]["code"]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(number)) for number in range(size)]
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


async def test_crowds_of_prompts_take_no_more_tokens_than_the_limit_and_its_refill(
    deployment: Deployment, web: aiohttp.ClientSession
) -> None:
    """Each answer takes half of its estimate, so settling lets further prompts in.

    One crowd after the other comes, until the limit is used up.
    """
    limit, estimate = 2_000, 101
    body = {"prompt": "x", "params": {"max_tokens": 100, "demo": {"tokens": 50}}}
    began_s = time.monotonic()
    async with deployment.redis() as redis:

        async def is_settled() -> bool:
            return not await redis.zcard(keys.owner_active("bob"))

        answers = Counter({"": 3})
        while answers[""] > 2:  # the refill alone lets one in, or two
            answers = await crowd(deployment, web, BOB, body, AT_ONCE)
            assert answers.keys() <= {"", "rate_limited"}
            await until(is_settled, 20, "the end of every generation")
        elapsed_s = time.monotonic() - began_s
        used = int(await redis.hget(keys.owner_limits("bob"), "used"))

    assert used <= limit + limit * elapsed_s / 60 + estimate, (
        "the limit, what came back, one answer"
    )
    assert used > limit - 2 * estimate, "the limit is used"


async def test_a_killed_node_gives_its_places_back_within_ten_seconds(
    deployment: Deployment, web: aiohttp.ClientSession
) -> None:
    """The nodes here have a third of the times; a real node's places live for eight seconds."""
    assert LIFE_S * SHARE < DEAD_S
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

        await until(is_let_in, DEAD_S, "a place of the dead node")
        assert time.monotonic() - killed_s < LIFE_S + 2
        for _ in range(3):
            url = deployment.urls[2] + path
            stream = await stack.enter_async_context(web.get(url, headers=CAROL))
            assert stream.status == 200
