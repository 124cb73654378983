"""Prompts whose acceptance is cut off: by a death between two steps, by a reply that is lost.

Row 16 of the fault table. The client cannot know what happened; it repeats with its key, at another
node, and there is one generation, which runs once.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.support.client import Client
from tests.support.demo import demo_body
from tests.support.dying_node import DEATHS
from tests.support.processes import Deployment
from tests.support.proxy import Proxy
from tests.support.raw_client import RawClient
from tests.support.wait import until

ROUNDS = 6


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[tuple[Deployment, Proxy]]:
    """A node that may die, one whose Redis is behind a proxy, and an ordinary one."""
    deployment = Deployment(api=3, workers=1, lease_s=0.8)
    deployment.api[0].module = "tests.support.dying_node"
    async with Proxy("127.0.0.1", deployment.server.port) as proxy:
        deployment.api[1].settings["TAILRACE_REDIS_URL"] = f"redis://127.0.0.1:{proxy.port}/0"
        async with deployment:
            yield deployment, proxy


async def session_of(raw_client: RawClient, name: str) -> list[dict[str, Any]]:
    """Its generations, each with its log's types, once all have ended."""
    listing = (await raw_client.get(f"/v1/sessions/{name}")).json()["generations"]
    found = []
    for generation in listing:
        await raw_client.ended(generation["id"])
        types = [event.type for event in await raw_client.log(generation["id"])]
        found.append({"id": generation["id"], "types": types})
    return found


@pytest.mark.parametrize("death", DEATHS)
async def test_a_prompt_repeated_after_a_node_died_between_two_steps_is_the_same_generation(
    shared, death
):
    deployment, _ = shared
    await deployment.heal()
    name = f"session-{secrets.token_hex(4)}"
    body = demo_body(5, 0, prompt=death) | {"session": name}
    headers = {"Idempotency-Key": secrets.token_hex(8)}
    async with RawClient(deployment.urls[2]) as raw_client:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await raw_client.post(body, headers=headers, node=deployment.urls[0])
        await until(lambda: not deployment.api[0].is_running, 5, "the node is dead")

        repeats = [
            await raw_client.post(body, headers=headers, node=deployment.urls[n]) for n in (1, 2, 1)
        ]
        ids = {answer.json()["id"] for answer in repeats}
        (only,) = await session_of(raw_client, name)

    statuses = [answer.status for answer in repeats]
    assert statuses == [200 if death == DEATHS[2] else 202, 200, 200]
    assert ids == {only["id"]}
    assert (only["types"].count("start"), only["types"].count("end")) == (1, 1)


async def test_a_lost_reply_of_redis_makes_no_second_generation(shared):
    """Each reply that a prompt makes the node wait for is lost once, and the client asks again."""
    deployment, proxy = shared
    await deployment.heal()
    name = f"session-{secrets.token_hex(4)}"
    async with RawClient(deployment.urls[2]) as raw_client, Client(deployment.urls[1:]) as client:
        before = proxy.cuts
        ids = []
        for n in range(ROUNDS):
            # One connection is cut at some byte of some reply: in the key's, the entry's, meta's.
            proxy.cut_after(1 + 6 * n, "down")
            body = demo_body(3, 0, prompt=f"round {n}") | {"session": name}
            ids.append((await client.start(body))["id"])
        found = await session_of(raw_client, name)

    assert proxy.cuts > before + ROUNDS / 2
    assert {each["id"] for each in found} == set(ids)
    assert len(found) == ROUNDS
    for each in found:
        assert (each["types"].count("start"), each["types"].count("end")) == (1, 1)
