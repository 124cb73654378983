"""Schedules with real processes: each due time is fired once, whoever dies on the way."""

from __future__ import annotations

import pickle
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from jobs.arq_worker import QUEUE
from shared.redis import keys
from tests.support.batch import CHAT, demo_line, encoded, ended
from tests.support.jobs import DEADLINE_S, call, faulty_deployment, fired, first_dead, made, plan
from tests.support.processes import Deployment
from tests.support.sdk import sdk
from tests.support.wait import until


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[Deployment]:
    async with faulty_deployment() as deployment:
        yield deployment


@pytest.fixture
async def deployment(shared: Deployment) -> AsyncIterator[Deployment]:
    await shared.heal()
    yield shared
    await shared.heal()


async def settled(deployment: Deployment) -> None:
    """Return when the jobs role has looked again at all that was due before."""
    for number in range(2):
        await fired(deployment, await plan(deployment, f"settled-{number}", run_at=1))


def arq(deployment: Deployment) -> Redis:
    """Where arq's keys are: the database after ours."""
    return Redis.from_url(deployment.server.url.replace("/0", "/1"), protocol=2)


async def test_a_due_schedule_starts_a_generation_that_can_be_found(deployment: Deployment) -> None:
    schedule = await plan(deployment, "later", run_at=time.time() + 1, metadata={"a": 1})
    assert schedule["next_run_at"]

    found = await fired(deployment, schedule)
    _, generation = await call(deployment, "GET", f"/v1/generations/{found['last_id']}")

    assert found["next_run_at"] is None
    assert generation["metadata"] == {"a": 1, "schedule": schedule["id"]}
    assert await made(deployment, "later") == [found["last_id"]]


async def test_a_batch_can_be_scheduled(deployment: Deployment) -> None:
    async with sdk(deployment.urls[0] + "/v1") as client:
        content = encoded([demo_line(1), demo_line(2)])
        file = await client.files.create(file=("input.jsonl", content), purpose="batch")
        body = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h", "run_at": 1}
        _, gone = await call(
            deployment, "POST", "/v1/batches", json={**body, "input_file_id": "file-none"}
        )
        status, schedule = await call(deployment, "POST", "/v1/batches", json=body)
        assert status == 202 and schedule["kind"] == "batch"
        assert gone["error"]["code"] == "not_found"

        batch = await ended(client, (await fired(deployment, schedule))["last_id"], DEADLINE_S)

    assert batch.status == "completed"
    assert batch.request_counts is not None and batch.request_counts.completed == 2
    assert batch.metadata == {"schedule": schedule["id"]}


@pytest.mark.parametrize(
    "death", ["die before begin", "die after begin", "die after create", "die after finish"]
)
async def test_a_kill_between_any_two_steps_of_a_firing_starts_one_generation(
    deployment: Deployment, death: str
) -> None:
    session = death.replace(" ", "-")
    schedule = await plan(deployment, session, prompt=death, run_at=1)
    await first_dead(deployment)
    found = await fired(deployment, schedule)
    await settled(deployment)

    assert await made(deployment, session) == [found["last_id"]]


async def test_two_jobs_processes_start_each_firing_once(deployment: Deployment) -> None:
    """All at once, so that both have something to do at the same time."""
    at = time.time() + 1
    schedules = [await plan(deployment, f"tick-{number}", run_at=at) for number in range(25)]
    found = [await fired(deployment, schedule) for schedule in schedules]
    await settled(deployment)

    for number, one in enumerate(found):
        assert await made(deployment, f"tick-{number}") == [one["last_id"]]


async def missed(deployment: Deployment, schedule: dict[str, Any], since_s: float) -> None:
    """As it stands when everybody was down at its ticks."""
    due_ms = round((time.time() - since_s) * 1000)
    async with deployment.redis() as redis:
        await redis.hset(keys.schedule(schedule["id"]), "next", due_ms)
        await redis.zadd(keys.SCHEDULES, {schedule["id"]: due_ms})


async def test_firings_missed_during_an_outage_are_started_once(deployment: Deployment) -> None:
    for role in deployment.jobs:
        role.kill()
    once = await plan(deployment, "once", run_at=time.time() - 3_600)
    often = await plan(deployment, "often", cron="* * * * *", timezone="Europe/Berlin")
    await missed(deployment, often, 3_600)
    await deployment.heal()
    found = await fired(deployment, often)
    await fired(deployment, once)
    await settled(deployment)

    assert len(await made(deployment, "once")) == 1
    # The ticks of now are of now, and may have come since.
    assert (
        len(await made(deployment, "often")) <= 1 + (time.time() - found["last_run_at"]) // 60 + 1
    )
    assert found["next_run_at"] > time.time() - 60
    status, _ = await call(deployment, "DELETE", f"/v1/schedules/{often['id']}")
    assert status == 200


async def test_redis_killed_and_back_with_its_file(deployment: Deployment) -> None:
    at = time.time() + 1.5
    schedules = [await plan(deployment, f"outage-{number}", run_at=at) for number in range(5)]
    deployment.server.kill()
    await until(lambda: time.time() > at + 0.5, DEADLINE_S, "the due time, without Redis")
    deployment.server.start()
    found = [await fired(deployment, schedule) for schedule in schedules]
    await settled(deployment)

    for number, one in enumerate(found):
        assert await made(deployment, f"outage-{number}") == [one["last_id"]]
    assert all(role.is_running for role in deployment.jobs), deployment.report()


async def test_the_loss_of_arqs_database_loses_no_work(deployment: Deployment) -> None:
    async with arq(deployment) as theirs:
        for number in range(10):
            schedule = await plan(deployment, f"flushed-{number}", run_at=1)
            await theirs.flushdb()
            found = await fired(deployment, schedule)
            await theirs.flushdb()

            assert await made(deployment, f"flushed-{number}") == [found["last_id"]]


PASS = b"cron:tailrace:sweep:"
MALFORMED = {
    "garbage": b"\xff\x00 no payload",
    "empty": b"",
    "pickle": pickle.dumps({"t": 1, "f": "fire_schedule", "a": (), "k": {}, "et": 1}),
    "no-object": b"[1,2,3]",
    "no-members": b"{}",
    "unknown": b'{"t":1,"f":"nobody","a":[],"k":{},"et":1}',
    "arguments": b'{"t":1,"f":"fire_schedule","a":["one"],"k":{"x":1},"et":1}',
    "types": b'{"t":1,"f":"fire_schedule","a":[7,"then"],"k":{},"et":1}',
    "old": b'{"t":1,"f":"deliver_webhook","a":["gen_long_gone","example.com"],"k":{},"et":1}',
}


async def test_a_malformed_payload_on_arqs_queue_does_not_stop_other_work(
    deployment: Deployment,
) -> None:
    async with arq(deployment) as theirs:
        for name, payload in MALFORMED.items():
            await theirs.set(f"arq:job:{name}", payload)
            await theirs.zadd(QUEUE, {name: 1})
        await theirs.zadd(QUEUE, {"no-payload": 1, b"\xff no text": 1})
        await settled(deployment)

        async def is_clear() -> bool:
            # The next pass of the janitor is planned ahead, so one entry always waits.
            return all(name.startswith(PASS) for name in await theirs.zrange(QUEUE, 0, -1))

        await until(is_clear, DEADLINE_S, "a queue with nothing but passes of the janitor")
    assert all(role.is_running for role in deployment.jobs), deployment.report()
