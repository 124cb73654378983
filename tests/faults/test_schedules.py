"""Schedules with real processes: each due time is fired once, whoever dies on the way."""

from __future__ import annotations

import time
from typing import Any

import aiohttp
import pytest

from tests.support.batch import CHAT, demo_line, encoded, ended
from tests.support.demo import demo_body
from tests.support.processes import Cluster
from tests.support.sdk import sdk
from tests.support.wait import until

DEADLINE_S = 30.0


@pytest.fixture(scope="module")
async def cluster() -> Any:
    async with Cluster(api=1, workers=1, jobs=True) as cluster:
        yield cluster


async def call(cluster: Cluster, method: str, path: str, **kwargs: Any) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session:
        async with session.request(method, cluster.urls[0] + path, **kwargs) as response:
            return response.status, await response.json()


async def test_what_is_due_is_started_and_can_be_found(cluster: Cluster) -> None:
    body = {
        **demo_body(3, 100),
        "run_at": time.time() + 1,
        "session": "later",
        "metadata": {"a": 1},
    }
    status, schedule = await call(cluster, "POST", "/v1/generations", json=body)
    assert status == 202 and schedule["next_run_at"]

    async def fired() -> Any:
        _, found = await call(cluster, "GET", f"/v1/schedules/{schedule['id']}")
        return found if found["last_id"] else None

    found = await until(fired, DEADLINE_S, "the firing")
    _, generation = await call(cluster, "GET", f"/v1/generations/{found['last_id']}")
    _, session = await call(cluster, "GET", "/v1/sessions/later")

    assert found["next_run_at"] is None
    assert generation["metadata"] == {"a": 1, "schedule": schedule["id"]}
    assert [one["id"] for one in session["generations"]] == [found["last_id"]]


async def test_a_batch_can_be_scheduled(cluster: Cluster) -> None:
    async with sdk(cluster.urls[0] + "/v1") as client:
        content = encoded([demo_line(1), demo_line(2)])
        file = await client.files.create(file=("input.jsonl", content), purpose="batch")
        body = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
        _, gone = await call(
            cluster, "POST", "/v1/batches", json={**body, "input_file_id": "file-none", "run_at": 1}
        )
        status, schedule = await call(cluster, "POST", "/v1/batches", json={**body, "run_at": 1})
        assert status == 202 and schedule["kind"] == "batch"
        assert gone["error"]["code"] == "not_found"

        async def fired() -> Any:
            _, found = await call(cluster, "GET", f"/v1/schedules/{schedule['id']}")
            return found["last_id"]

        batch_id = await until(fired, DEADLINE_S, "the firing")
        batch = await ended(client, batch_id, DEADLINE_S)

    assert batch.status == "completed"
    assert batch.request_counts is not None and batch.request_counts.completed == 2
    assert batch.metadata == {"schedule": schedule["id"]}
