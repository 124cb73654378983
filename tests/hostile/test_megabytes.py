"""Prompts of a megabyte each: a listing or a poll reads what it shows, and nobody else waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial

import pytest

from tests.hostile.conftest import QUICK, OwnDeployment
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient
from tests.support.wait import until

PROMPTS, PROMPT_BYTES = 50, 1_000_000
READERS = 20
PEAK_BYTES_MAX = 30_000_000  # more than ever before; one listing that reads every row takes 50 MB
GAP_S_MAX = 1.0
KEYS = "a-key-of-the-attackers:mallory,a-key-of-somebody-else:alice"
SLOW = QUICK + '\n[models.slow]\nbackend = "demo"\non_takeover = "continue"\ntokens_per_s = 20\n'


@pytest.fixture(scope="module")
async def full(own_deployment: OwnDeployment) -> AsyncIterator[Deployment]:
    """Mallory has asked fifty prompts of a megabyte, all in one session."""
    settings = {"api_keys": KEYS}
    async with (
        own_deployment(api=1, workers=1, models=SLOW, settings=settings) as deployment,
        RawClient(deployment.urls[0], key="a-key-of-the-attackers") as mallory,
    ):
        # A part that the demo model does not look at: it would take a while over a megabyte.
        parts = [{"type": "text", "text": "x" * 5_000}, {"type": "y", "y": "y" * PROMPT_BYTES}]
        messages = [{"role": "user", "content": parts}]
        body = {"session": "s", "params": {"demo": {"tokens": 1}}, "messages": messages}
        for _ in range(0, PROMPTS, 2):
            await asyncio.gather(*(mallory.start(body) for _ in range(2)))
        await until(partial(is_idle, mallory), 30, "every prompt is answered")
        yield deployment


async def is_idle(owner: RawClient) -> bool:
    answer = await owner.get("/v1/generations?active=1")
    return answer.status == 200 and not answer.json()["active"]


@pytest.fixture
async def mallory(full: Deployment) -> AsyncIterator[RawClient]:
    async with RawClient(full.urls[0], key="a-key-of-the-attackers") as mallory:
        yield mallory


@pytest.mark.parametrize("path", ["/v1/generations", "/v1/sessions/s"])
async def test_many_listings_of_megabytes_at_once_cost_little_memory_and_time(
    full: Deployment, mallory: RawClient, path: str
):
    redis = full.redis()
    async with RawClient(full.urls[0], key="a-key-of-somebody-else") as alice, redis:
        body = {"prompt": "x", "model": "slow", "params": {"demo": {"tokens": 50}}}
        watched = await alice.start(body)
        watching = asyncio.create_task(longest_gap(alice, watched))
        await alice.running(watched)
        before = (await redis.info("memory"))["used_memory_peak"]

        answers = await asyncio.gather(*(mallory.get(path) for _ in range(READERS)))

        peak = (await redis.info("memory"))["used_memory_peak"]
        assert [answer.status for answer in answers] == [200] * READERS
        listed = answers[0].json()["generations"]
        assert len(listed) == PROMPTS and listed[0]["prompt"] == "x" * 4_000
        assert peak - before < PEAK_BYTES_MAX
        assert await watching < GAP_S_MAX


async def longest_gap(reader: RawClient, generation_id: str) -> float:
    """Read a stream to its end; how long it was silent at most, s."""
    gap_s, last_s = 0.0, 0.0
    async with reader.stream(generation_id) as response:
        async for _ in response.content.iter_any():
            now_s = time.monotonic()
            gap_s = max(gap_s, now_s - last_s) if last_s else 0.0
            last_s = now_s
    return gap_s


async def test_polls_and_cancels_of_a_megabyte_read_none_of_it(
    full: Deployment, mallory: RawClient
):
    """All that looks at one generation without showing its request."""
    (found,) = (await mallory.get("/v1/generations")).json()["generations"][:1]
    redis = full.redis()
    async with redis:
        before = int((await redis.info("stats"))["total_net_output_bytes"])

        for _ in range(READERS):
            assert (await mallory.poll(found["id"])).status == 200
            assert (await mallory.events(found["id"])).status == 200
            cancel = f"/v1/generations/{found['id']}/cancel"
            assert (await mallory.call("POST", cancel)).status == 202

        sent = int((await redis.info("stats"))["total_net_output_bytes"]) - before
        assert sent < PROMPT_BYTES


async def test_snapshots_of_megabytes_take_turns(full: Deployment, mallory: RawClient):
    listed = (await mallory.get("/v1/generations")).json()["generations"][:READERS]
    redis = full.redis()
    async with redis:
        before = (await redis.info("memory"))["used_memory_peak"]

        paths = [f"/v1/generations/{one['id']}" for one in listed]
        answers = await asyncio.gather(*map(mallory.get, paths))

        peak = (await redis.info("memory"))["used_memory_peak"]
    assert [answer.status for answer in answers] == [200] * READERS
    assert all(len(answer.body) > PROMPT_BYTES for answer in answers)
    assert peak - before < PEAK_BYTES_MAX / 2
