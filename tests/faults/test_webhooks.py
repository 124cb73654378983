"""Webhooks with real processes: an end is told to its receiver, whoever dies on the way."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from tests.support.batch import demo_line, encoded, submit
from tests.support.demo import demo_body
from tests.support.processes import Cluster
from tests.support.receiver import SECRET, Receiver
from tests.support.sdk import sdk
from tests.support.wait import until

DEADLINE_S = 30.0


@pytest.fixture(scope="module")
async def cluster() -> Any:
    settings = {"webhook_private": "allow"}
    async with Cluster(api=1, workers=1, jobs=True, settings=settings) as cluster:
        yield cluster


async def ask(cluster: Cluster, receiver: Receiver, **members: Any) -> str:
    body = {
        **demo_body(5, 200),
        "webhook": {"url": receiver.url, "secret": SECRET},
        **members,
    }
    async with aiohttp.ClientSession() as session:
        async with session.post(cluster.urls[0] + "/v1/generations", json=body) as response:
            assert response.status == 202, await response.text()
            return str((await response.json())["id"])


async def test_the_end_is_told_and_signed(cluster: Cluster) -> None:
    async with Receiver() as receiver:
        generation_id = await ask(cluster, receiver, session="s", metadata={"order": 7})
        await until(lambda: receiver.calls, DEADLINE_S, "the webhook")
        (call,) = receiver.calls

    event = call.verified()
    assert event["type"] == "generation.completed"
    assert event["data"]["id"] == generation_id
    assert event["data"]["session"] == "s"
    assert event["data"]["metadata"] == {"order": 7}
    assert event["data"]["usage"]["completion_tokens"] > 0


async def test_the_end_of_a_batch_is_told(cluster: Cluster) -> None:
    async with Receiver() as receiver, sdk(cluster.urls[0] + "/v1") as client:
        hook = {"webhook": {"url": receiver.url, "secret": SECRET}}
        batch = await submit(client, encoded([demo_line(1)]), extra_body=hook)
        await until(lambda: receiver.calls, DEADLINE_S, "the webhook")
        shown = await client.batches.retrieve(batch.id)
        (call,) = receiver.calls

    event = call.verified()
    assert event["type"] == "batch.completed"
    assert event["data"]["id"] == batch.id
    assert event["data"]["output_file_id"] == shown.output_file_id
    assert event["data"]["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    assert "webhook" not in shown.model_dump() and "whsec" not in shown.model_dump_json()
