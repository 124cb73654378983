"""A key that was taken away spends nothing more; and what only operators may see or end.

A deployment runs with two owners and an operator. One owner's key is taken away and the roles are
restarted, as it is done: what that owner had planned is held, and an operator finds and ends it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.batch import demo_line, encoded
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient
from tests.support.wait import until

ALICE, BOB, OLGA = "key-of-alice-0123456789", "bobs-short-key", "key-of-olga-0123456789"
STAYING = f"{BOB}:bob,{OLGA}:olga:admin"
PROMPT = {"prompt": "x", "params": {"demo": {"tokens": 2}}}
LONG_AGO = 1_000_000_000
HELD_S = 15.0


@pytest.fixture(scope="module")
async def deployment(own_deployment: type[Deployment]) -> AsyncIterator[Deployment]:
    """No jobs process runs yet: what is planned waits."""
    settings = {"api_keys": f"{ALICE}:alice,{STAYING}", "log": "json"}
    async with own_deployment(api=1, workers=1, jobs=1, settings=settings) as deployment:
        deployment.jobs[0].kill()
        yield deployment


def as_owner(deployment: Deployment, key: str) -> RawClient:
    return RawClient(deployment.urls[0], key=key)


async def plan(deployment: Deployment, key: str) -> tuple[str, str]:
    """Plan a prompt for long ago, and a batch; both are due at once."""
    async with as_owner(deployment, key) as raw_client:
        planned = (await raw_client.post({**PROMPT, "run_at": LONG_AGO})).json()
        form = (
            b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
            + encoded([demo_line(1), demo_line(2)])
            + b"\r\n--b--\r\n"
        )
        kind = {"content-type": "multipart/form-data; boundary=b"}
        file = await raw_client.call("POST", "/v1/files", raw=form, headers=kind)
        body = {
            "input_file_id": file.json()["id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
        batch = await raw_client.call("POST", "/v1/batches", body=body)
        return planned["id"], batch.json()["id"]


async def rows(raw_client: RawClient, path: str, member: str) -> dict[str, dict[str, Any]]:
    answer = await raw_client.get(path)
    assert answer.status == 200, answer.body
    return {one["id"]: one for one in answer.json()[member]}


async def test_the_planned_work_of_a_revoked_key_is_held_and_an_operator_may_end_the_work(
    deployment: Deployment,
) -> None:
    schedule_id, batch_id = await plan(deployment, ALICE)
    for role in (deployment.api[0], deployment.jobs[0]):
        role.kill()
        role.settings["TAILRACE_API_KEYS"] = STAYING
        role.start()
    await deployment.ready([deployment.api[0], deployment.jobs[0]])
    jobs = deployment.jobs[0]

    async with as_owner(deployment, OLGA) as olga, as_owner(deployment, BOB) as bob:
        his_schedule, his_batch = await plan(deployment, BOB)

        async def are_done() -> bool:
            schedule = (await bob.get(f"/v1/schedules/{his_schedule}")).json()
            batch = (await bob.get(f"/v1/batches/{his_batch}")).json()
            return bool(schedule["last_id"]) and batch["status"] == "completed"

        def is_held() -> bool:
            said = jobs.output.read_text()
            return '"event": "schedule held"' in said and '"event": "batch held"' in said

        await until(are_done, HELD_S, "the work of an owner who is known")
        await until(is_held, HELD_S, "the work of the other one is held, and it is said")

        held = (await rows(olga, "/v1/schedules?owner=*", "schedules"))[schedule_id]
        assert (held["owner"], held["last_id"]) == ("alice", None)
        waiting = (await rows(olga, "/v1/batches?owner=*", "data"))[batch_id]
        assert (waiting["owner"], waiting["status"]) == ("alice", "in_progress")
        assert waiting["request_counts"]["completed"] == 0
        assert (await olga.call("DELETE", f"/v1/schedules/{schedule_id}")).status == 200
        assert (await olga.call("POST", f"/v1/batches/{batch_id}/cancel")).status == 200

        async def is_cancelled() -> bool:
            found = await rows(olga, "/v1/batches?owner=alice", "data")
            return bool(found[batch_id]["status"] == "cancelled")

        await until(is_cancelled, HELD_S, "a batch that is held can be ended")
        assert schedule_id not in await rows(olga, "/v1/schedules?owner=alice", "schedules")
        assert '"made"' not in "".join(
            line for line in jobs.output.read_text().splitlines() if schedule_id in line
        )


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/metrics", 403),
        ("GET", "/v1/workers", 403),
        ("GET", "/v1/schedules?owner=*", 403),
        ("GET", "/v1/schedules?owner=olga", 403),
        ("GET", "/v1/batches?owner=*", 403),
        ("GET", "/v1/batches?owner=olga", 403),
    ],
)
async def test_an_ordinary_key_does_not_see_the_listings_of_operators(
    deployment: Deployment, method: str, path: str, status: int
) -> None:
    async with as_owner(deployment, BOB) as bob, as_owner(deployment, OLGA) as olga:
        assert (await bob.call(method, path)).status == status
        assert (await bob.call(method, path, anonymous=True)).status == 401
        assert (await olga.call(method, path)).status == 200


async def test_an_ordinary_key_cannot_end_the_work_of_another_owner(deployment: Deployment) -> None:
    async with as_owner(deployment, OLGA) as olga, as_owner(deployment, BOB) as bob:
        hers = (await olga.post({**PROMPT, "cron": "0 8 * * *"})).json()["id"]

        assert (await bob.call("DELETE", f"/v1/schedules/{hers}")).status == 404
        assert (await olga.call("DELETE", f"/v1/schedules/{hers}")).status == 200


async def test_a_warning_about_a_short_key_does_not_show_the_key(deployment: Deployment) -> None:
    said = deployment.api[0].output.read_text()

    assert '"event": "api keys short", ' in said
    assert '"owners": "bob"' in said
    assert not any(
        key in role.output.read_text() for role in deployment.roles for key in (BOB, ALICE)
    )
