"""The usage of owners while every role is killed: each generation counts once."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import aiohttp

from tests.support.demo import demo_body
from tests.support.processes import Deployment
from tests.support.wait import until

DEADLINE_S = 40.0
ANSWERS = 40
INDEXES = ("unsettled", "running", "waiting:")


async def test_every_answer_counts_once_while_all_roles_are_killed_in_turn(
    deployment: Deployment,
) -> None:
    async with aiohttp.ClientSession() as client, aclosing(deployment.redis()) as redis:
        before = await used(client, deployment)
        ids = []
        victims = [*deployment.workers, *deployment.api[1:], *deployment.jobs]
        for number in range(ANSWERS):
            ids.append(await start(client, deployment, 5 + number % 20))
            if number % 10 == 7:
                role = victims.pop(0)
                role.kill()
                role.start()
                await role.ready()

        async def is_settled() -> bool:
            snapshots = await asyncio.gather(*(snapshot(client, deployment, each) for each in ids))
            is_over = all(each["status"] == "completed" for each in snapshots)
            return is_over and not await unfinished(redis)

        await until(is_settled, DEADLINE_S, f"all answers end\n{deployment.report()}")
        snapshots = [await snapshot(client, deployment, each) for each in ids]
        after = await used(client, deployment)

        assert after["prompts"] - before["prompts"] == ANSWERS
        for name, member in (("output", "completion"), ("input", "prompt")):
            counted = after[f"{name}_tokens"] - before[f"{name}_tokens"]
            assert counted == sum(each["usage"][f"{member}_tokens"] for each in snapshots)


async def unfinished(redis: Any) -> list[bytes]:
    """The indexes of all partitions of the queue that are not empty."""
    found, cursor = [], 0
    while True:
        cursor, names = await redis.scan(cursor, match="tr:{q*", count=1_000)
        found += [name for name in names if name.decode().partition("}:")[2].startswith(INDEXES)]
        if not cursor:
            return found


async def start(client: aiohttp.ClientSession, deployment: Deployment, tokens: int) -> str:
    url = f"{deployment.urls[0]}/v1/generations"
    async with client.post(url, json=demo_body(tokens, 60)) as response:
        assert response.status == 202, await response.text()
        return str((await response.json())["id"])


async def snapshot(
    client: aiohttp.ClientSession, deployment: Deployment, generation_id: str
) -> Any:
    async with client.get(f"{deployment.urls[0]}/v1/generations/{generation_id}") as response:
        return await response.json()


async def used(client: aiohttp.ClientSession, deployment: Deployment) -> dict[str, float]:
    """The sums of the owner so far."""
    async with client.get(f"{deployment.urls[0]}/v1/usage?group_by=owner") as response:
        rows = (await response.json())["data"]
    names = ("prompts", "input_tokens", "output_tokens")
    return {name: sum(row[name] for row in rows) for name in names}
