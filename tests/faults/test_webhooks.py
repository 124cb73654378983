"""Webhooks with real processes: an end is told to its receiver, whoever dies on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from shared.redis import keys
from tests.support.batch import demo_line, encoded, submit
from tests.support.demo import demo_body
from tests.support.jobs import DEADLINE_S, ask, call, faulty_deployment
from tests.support.processes import Deployment
from tests.support.receiver import SECRET, Receiver
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


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


async def heard(receiver: Receiver, count: int = 1) -> None:
    await until(lambda: len(receiver.calls) >= count, DEADLINE_S, f"{count} webhooks")


async def test_the_end_of_a_generation_is_delivered_and_signed(
    deployment: Deployment, receiver: Receiver
) -> None:
    generation_id = await ask(deployment, receiver.url, session="s", metadata={"order": 7})
    await heard(receiver)

    event = receiver.calls[0].verified()
    assert event["type"] == "generation.completed"
    assert event["data"]["id"] == generation_id
    assert event["data"]["session"] == "s"
    assert event["data"]["metadata"] == {"order": 7}
    assert event["data"]["usage"]["completion_tokens"] > 0
    _, shown = await call(deployment, "GET", f"/v1/generations/{generation_id}")
    assert "webhook" not in shown and "whsec" not in str(shown)


async def test_the_end_of_a_batch_is_delivered(deployment: Deployment, receiver: Receiver) -> None:
    async with sdk(deployment.urls[0] + "/v1") as client:
        hook = {"webhook": {"url": receiver.url, "secret": SECRET}}
        batch = await submit(client, encoded([demo_line(1)]), extra_body=hook)
        await heard(receiver)
        shown = await client.batches.retrieve(batch.id)

    event = receiver.calls[0].verified()
    assert event["type"] == "batch.completed"
    assert event["data"]["id"] == batch.id
    assert event["data"]["output_file_id"] == shown.output_file_id
    assert event["data"]["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    assert "webhook" not in shown.model_dump() and "whsec" not in shown.model_dump_json()


async def test_a_cancel_is_delivered(deployment: Deployment, receiver: Receiver) -> None:
    generation_id = await ask(deployment, receiver.url, **demo_body(1_000, 10))
    await call(deployment, "POST", f"/v1/generations/{generation_id}/cancel")
    await heard(receiver)

    assert receiver.calls[0].verified()["type"] == "generation.cancelled"


async def test_a_failure_is_delivered(deployment: Deployment, receiver: Receiver) -> None:
    body = demo_body(10, 0, fail_at=3, fail_code="upstream_refused", fail_retryable=False)
    await ask(deployment, receiver.url, **body)
    await heard(receiver)

    event = receiver.calls[0].verified()
    assert event["type"] == "generation.failed"
    assert event["data"]["error"]["code"]


async def test_a_delivery_interrupted_by_a_kill_is_repeated(
    deployment: Deployment, receiver: Receiver
) -> None:
    receiver.holds.clear()
    generation_id = await ask(deployment, receiver.url)
    await heard(receiver)
    for role in deployment.jobs:
        role.kill()
    receiver.holds.set()
    await deployment.heal()
    await heard(receiver, 2)

    first, second = receiver.calls[:2]
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == f"msg_{generation_id}"
    assert first.body == second.body
    assert second.verified()["data"]["id"] == generation_id


async def test_an_end_during_an_outage_of_the_jobs_role_is_delivered_later(
    deployment: Deployment, receiver: Receiver
) -> None:
    for role in deployment.jobs:
        role.kill()
    generation_ids = {await ask(deployment, receiver.url) for _ in range(5)}

    async def all_ended() -> bool:
        async with deployment.redis() as redis:
            statuses = [await redis.hget(keys.meta(one), "status") for one in generation_ids]
        return set(statuses) == {b"completed"}

    await until(all_ended, DEADLINE_S, "the ends")
    assert not receiver.calls
    await deployment.heal()
    await heard(receiver, 5)

    assert {call.verified()["data"]["id"] for call in receiver.calls} == generation_ids
    assert len(receiver.calls) == 5


async def test_an_end_whose_worker_died_before_it_notified_anybody_is_delivered(
    deployment: Deployment, receiver: Receiver
) -> None:
    """The end stands, and its worker could not say so any more."""
    faulty = deployment.add_worker("tests.support.faulty_worker")
    await faulty.ready()
    deployment.workers[0].kill()
    generation_id = await ask(deployment, receiver.url, prompt="die after the end")
    assert await faulty.ended(DEADLINE_S) == -9
    deployment.workers.remove(faulty)
    await deployment.heal()
    await heard(receiver)

    assert receiver.calls[0].verified()["data"]["id"] == generation_id


async def test_redis_killed_and_back_with_its_file(
    deployment: Deployment, receiver: Receiver
) -> None:
    receiver.answers = [503, 503, 204]
    generation_ids = {await ask(deployment, receiver.url) for _ in range(3)}
    await heard(receiver)
    deployment.server.restart()

    def all_told() -> bool:
        return {call.event["data"]["id"] for call in receiver.calls[2:]} == generation_ids

    await until(all_told, DEADLINE_S, "all webhooks")
    assert all(role.is_running for role in deployment.jobs), deployment.report()


async def test_the_loss_of_arqs_database_loses_no_work(
    deployment: Deployment, receiver: Receiver
) -> None:
    receiver.answers = [500, 204]
    receiver.holds.clear()
    await ask(deployment, receiver.url)
    await heard(receiver)
    async with Redis.from_url(deployment.server.url.replace("/0", "/1"), protocol=2) as theirs:
        await theirs.flushdb()
        receiver.holds.set()
        await theirs.flushdb()
    await heard(receiver, 2)

    assert len({call.headers["webhook-id"] for call in receiver.calls}) == 1


async def test_a_dead_receiver_does_not_delay_other_receivers(
    deployment: Deployment, receiver: Receiver
) -> None:
    async with Receiver() as dead:
        dead.holds.clear()
        for _ in range(20):
            await ask(deployment, dead.url)
        await until(lambda: len(dead.calls) == 4, DEADLINE_S, "as many as may be under way")
        for _ in range(5):
            await ask(deployment, receiver.url)
        await heard(receiver, 5)

        assert len(dead.calls) <= 8  # another four where a lease has run out meanwhile
        dead.holds.set()
        dead.answers = [410]
        await until(lambda: len(set(dead.events())) == 20, DEADLINE_S, "all of the dead one's")
