"""One owner fills what he may keep in Redis: he is told, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shared.redis import keys
from tests.hostile.conftest import QUICK, OwnDeployment
from tests.support.processes import Deployment
from tests.support.raw_client import Answer, RawClient, hear, tell
from tests.support.wait import until

BOUND = 1_500_000  # the demo model needs seconds for a megabyte
SIZE = 350_000
KEYS = "a-key-of-the-attackers:mallory,a-key-of-somebody-else:alice"
SLOW = QUICK + '\n[models.slow]\nbackend = "demo"\non_takeover = "continue"\ntokens_per_s = 20\n'
SETTINGS = {"api_keys": KEYS, "owner_bytes_max": str(BOUND), "lease_s": "0.6"}


def prompt(**members: Any) -> dict[str, Any]:
    """Much that the demo model does not look at."""
    parts = [{"type": "text", "text": "x"}, {"type": "y", "y": "y" * SIZE}]
    messages = [{"role": "user", "content": parts}]
    return {"messages": messages, "params": {"demo": {"tokens": 1}}, **members}


@asynccontextmanager
async def clients(deployment: Deployment) -> AsyncIterator[tuple[RawClient, RawClient]]:
    url = deployment.urls[0]
    async with (
        RawClient(url, key="a-key-of-the-attackers") as mallory,
        RawClient(url, key="a-key-of-somebody-else") as alice,
    ):
        yield mallory, alice


@pytest.fixture(scope="module")
async def keeping(own_deployment: OwnDeployment) -> AsyncIterator[Deployment]:
    """Nothing expires within a test."""
    async with own_deployment(api=1, workers=1, models=SLOW, settings=SETTINGS) as deployment:
        yield deployment


@pytest.fixture(scope="module")
async def forgetting(own_deployment: OwnDeployment) -> AsyncIterator[Deployment]:
    """A log is kept for a second, its request for two."""
    settings = {**SETTINGS, "retention_s": "1"}
    async with own_deployment(api=1, workers=1, models=SLOW, settings=settings) as deployment:
        yield deployment


async def fill(owner: RawClient) -> tuple[list[str], Answer]:
    """Ask until no more is taken; the ids of what was, and the refusal."""
    ids: list[str] = []
    while (answer := await owner.post(prompt())).status == 202:
        ids.append(answer.json()["id"])
        assert len(ids) * SIZE < 2 * BOUND, "there is a bound"
    return ids, answer


async def counted(deployment: Deployment, owner: str) -> int:
    """What the record of an owner says that he keeps."""
    redis = deployment.redis()
    async with redis:
        return int(await redis.hget(keys.owner_bytes(owner), "total") or 0)


async def test_an_owner_at_the_limit_gets_an_error_everywhere_until_a_deletion(
    keeping: Deployment,
):
    async with clients(keeping) as (mallory, alice):
        ids, refusal = await fill(mallory)

        assert len(ids) == BOUND // SIZE
        assert (refusal.status, refusal.error_code) == (429, "owner_full")
        error = refusal.json()["error"]
        assert error["retryable"] and str(BOUND) in error["message"]
        assert int(refusal.headers["Retry-After"]) > 0

        chat = await mallory.call("POST", "/v1/chat/completions", body=prompt(stream=True))
        assert chat.status == 429
        error = chat.json()["error"]
        assert (error["code"], error["type"]) == ("owner_full", "rate_limit_error")
        for path in ("/ai-sdk/chat", "/deep-chat", "/v1/responses"):
            said = await mallory.call("POST", path, body=in_dialect(path))
            assert said.status == 429, (path, said.body[:200])

        async with mallory.socket() as socket:
            await tell(socket, type="start", ref="r", **prompt())
            frame = await hear(socket)
            assert (frame["type"], frame["code"], frame["ref"]) == ("error", "owner_full", "r")
            await tell(socket, type="ping")
            assert (await hear(socket))["type"] == "pong", "the socket lives"

        assert (await alice.post(prompt())).status == 202, "somebody else is not touched"

        for named in ids:
            await mallory.ended(named)
            path = f"/v1/responses/{named.replace('gen_', 'resp_')}"
            assert (await mallory.call("DELETE", path)).status == 200

        async def has_room() -> bool:
            return (await mallory.post(prompt())).status == 202

        await until(has_room, 5, "what was deleted counts no more")


def in_dialect(path: str) -> dict[str, Any]:
    if path == "/v1/responses":
        return {"input": "y" * SIZE}
    if path == "/deep-chat":
        return {"messages": [{"role": "user", "text": "y" * SIZE}]}
    parts = [{"type": "text", "text": "y" * SIZE}]
    return {"messages": [{"id": "1", "role": "user", "parts": parts}]}


async def test_an_owner_at_the_limit_may_repeat_an_accepted_request(keeping: Deployment):
    async with clients(keeping) as (mallory, _):
        headers = {"Idempotency-Key": "k"}
        small = {"prompt": "x", "params": {"demo": {"tokens": 1}}}
        first = await mallory.post(small, headers=headers)
        await fill(mallory)

        again = await mallory.post(small, headers=headers)

    assert (again.status, again.json()["id"]) == (200, first.json()["id"])


async def test_an_owner_at_the_limit_may_continue_when_answers_have_expired(forgetting: Deployment):
    async with clients(forgetting) as (mallory, _):
        ids, _ = await fill(mallory)
        assert ids

        async def has_room() -> bool:
            return (await mallory.post(prompt())).status == 202

        await until(has_room, 10, "what has expired counts no more")


async def test_answers_that_outgrow_the_bound_are_ended(forgetting: Deployment):
    """Answers of a megabyte, from prompts of nothing."""
    async with clients(forgetting) as (mallory, alice):
        grow = {"prompt": "x", "params": {"demo": {"tokens": 200_000}}}
        ids = await asyncio.gather(*(mallory.start(grow) for _ in range(6)))

        async def is_ended(named: str) -> Any:
            events = (await mallory.events(named)).events
            return events[-1].fields if events and events[-1].type == "end" else None

        ends = await asyncio.gather(*(until(lambda n=n: is_ended(n), 30, n) for n in ids))

        codes = {end["error"]["code"] for end in ends if end["status"] == "failed"}
        assert codes == {"owner_full"}
        assert await counted(forgetting, "mallory") < 2 * BOUND
        assert (await alice.post(prompt())).status == 202


async def test_a_worker_that_dies_leaves_no_charge_behind(forgetting: Deployment):
    async with clients(forgetting) as (_, alice):
        named = await alice.start({**prompt(), "model": "slow", "params": {"demo": {"tokens": 20}}})
        await alice.running(named)
        assert await counted(forgetting, "alice") > SIZE
        forgetting.workers[0].kill()
        await forgetting.heal()
        await alice.ended(named)

        async def is_uncounted() -> bool:
            await alice.start({"prompt": "x", "params": {"demo": {"tokens": 1}}})
            return await counted(forgetting, "alice") < SIZE

        await until(is_uncounted, 10, "nothing of it is counted any more")
