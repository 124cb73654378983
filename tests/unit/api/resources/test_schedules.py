"""Schedules over HTTP: create, list, get, delete and refusals; only their owner sees them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from api.app import create_app
from api.edge.auth import Authenticator
from shared.config.settings import Settings
from shared.later.schedules import Schedule, Schedules, Timing
from shared.redis import keys
from tests.support.shell import ALICE, BOB, OPERATOR, Shell

CRON = {"prompt": "Hi", "cron": "0 8 * * *", "timezone": "Europe/Berlin"}


@pytest.fixture
async def shell() -> AsyncIterator[Shell]:
    shell = Shell(schedules_max=3)
    yield shell
    await shell.client.aclose()
    await shell.redis.aclose()


async def plan(shell: Shell, **members: Any) -> dict[str, Any]:
    response = await shell.post({**CRON, **members})
    assert response.status_code == 202, response.text
    return dict(response.json())


def code(response: Any) -> str:
    return str(response.json()["error"]["code"])


async def test_a_body_with_a_cron_creates_a_schedule(shell: Shell) -> None:
    response = await shell.post(CRON)
    found = response.json()

    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/schedules/{found['id']}"
    assert found["next_run_at"] > time.time() and found["next_run_at"] % 60 == 0
    assert abs(found["created_at"] - time.time()) < 60
    assert found | {"id": "", "next_run_at": 0, "created_at": 0} == {
        "id": "",
        "object": "schedule",
        "kind": "generation",
        "run_at": None,
        "cron": "0 8 * * *",
        "timezone": "Europe/Berlin",
        "next_run_at": 0,
        "last_run_at": None,
        "last_id": None,
        "last_error": None,
        "created_at": 0,
    }
    assert await shell.redis.xlen(keys.lane("interactive")) == 0, "nothing has been started"
    assert await shell.redis.llen(keys.JOBS_WAKE) == 1


async def test_a_body_with_run_at_creates_a_schedule_that_runs_once(shell: Shell) -> None:
    response = await shell.post({"prompt": "Hi", "run_at": "2099-01-31T08:00:00Z"})
    found = response.json()

    assert found["run_at"] == found["next_run_at"] == 4_073_529_600
    assert found["cron"] is None and found["timezone"] is None


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"model": "none"}, (404, "model_not_found")),
        ({"prompt": ""}, (422, "invalid_request")),
        ({"cron": "0 0 30 2 *"}, (422, "invalid_request")),
        ({"cron": "soon"}, (422, "invalid_request")),
        ({"timezone": "Mars/Base"}, (422, "invalid_request")),
        ({"run_at": 1}, (422, "invalid_request")),
        ({"cron": None}, (422, "invalid_request")),
        ({"metadata": []}, (422, "invalid_request")),
        ({"metadata": {"a": "x" * 16_370}}, (422, "invalid_request")),
        ({"webhook": {"url": "http://127.0.0.1/", "secret": "x" * 20}}, (422, "invalid_request")),
    ],
)
async def test_a_request_that_would_be_refused_when_due_is_refused_now(
    shell: Shell, members: dict[str, Any], expected: tuple[int, str]
) -> None:
    response = await shell.post({**CRON, **members})

    assert (response.status_code, code(response)) == expected
    assert await shell.redis.zcard(keys.SCHEDULES) == 0


async def test_a_schedule_cannot_be_streamed(shell: Shell) -> None:
    response = await shell.post(CRON, accept="text/event-stream")

    assert (response.status_code, code(response)) == (406, "not_acceptable")


async def test_answers_hold_neither_the_request_nor_the_secret(shell: Shell) -> None:
    hook = {"url": "https://example.com/hook", "secret": "a secret that is long".replace(" ", "-")}
    found = await plan(shell, prompt="a private matter", webhook=hook)
    answer = await shell.get(f"/v1/schedules/{found['id']}")
    listed = await shell.get("/v1/schedules")

    for text in (str(found), answer.text, listed.text):
        assert "secret" not in text and "private" not in text and "example.com" not in text


async def test_the_number_of_an_owners_schedules_is_limited(shell: Shell) -> None:
    ids = [(await plan(shell))["id"] for _ in range(3)]
    full = await shell.post(CRON)
    other = await shell.client.post("/v1/generations", json=CRON, headers=BOB)
    await shell.client.delete(f"/v1/schedules/{ids[0]}", headers=ALICE)

    assert (full.status_code, code(full)) == (409, "too_many_schedules")
    assert other.status_code == 202
    assert (await shell.post(CRON)).status_code == 202


async def test_a_repeat_with_the_same_key_gives_the_same_schedule(shell: Shell) -> None:
    first = await shell.post(CRON, idempotency_key="k")
    again = await shell.post({**CRON, "model": None}, idempotency_key="k")
    other = await shell.post({**CRON, "cron": "0 9 * * *"}, idempotency_key="k")

    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json() == again.json()
    assert (other.status_code, code(other)) == (422, "idempotency_mismatch")
    assert await shell.redis.zcard(keys.SCHEDULES) == 1


async def test_schedules_are_listed_newest_first_in_pages(shell: Shell, monkeypatch: Any) -> None:
    monkeypatch.setattr("api.resources.schedules.PAGE_SCHEDULES", 2)
    ids = [(await plan(shell))["id"] for _ in range(3)]
    for number, schedule_id in enumerate(ids, start=1):
        await shell.redis.hset(keys.schedule(schedule_id), "created", number)
        await shell.redis.zadd(keys.schedules_of("alice"), {schedule_id: number})
    page = (await shell.get("/v1/schedules")).json()
    rest = (await shell.get(f"/v1/schedules?before={page['next_before']}")).json()

    assert [schedule["id"] for schedule in page["schedules"]] == [ids[2], ids[1]]
    assert [schedule["id"] for schedule in rest["schedules"]] == [ids[0]]
    assert rest["next_before"] is None
    assert code(await shell.get("/v1/schedules?before=soon")) == "cursor_invalid"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_schedule_of_another_owner_is_404(shell: Shell, method: str) -> None:
    found = await plan(shell)
    for schedule_id in (found["id"], "sched_none", "gen_0123456789", "sched_" + "x" * 80):
        response = await shell.client.request(method, f"/v1/schedules/{schedule_id}", headers=BOB)
        assert (response.status_code, code(response)) == (404, "not_found")
    assert (await shell.client.get("/v1/schedules", headers=BOB)).json()["schedules"] == []
    assert (await shell.get(f"/v1/schedules/{found['id']}")).json() == found


async def test_an_operator_lists_and_deletes_schedules_of_other_owners(shell: Shell) -> None:
    mine, others = await plan(shell), (await shell.post(CRON, **BOB)).json()
    found = await shell.get("/v1/schedules?owner=alice", **OPERATOR)

    assert found.json() == {"schedules": [{"owner": "alice", **mine}], "next_before": None}
    all_owners = (await shell.get("/v1/schedules?owner=*", **OPERATOR)).json()
    assert {each["id"]: each["owner"] for each in all_owners["schedules"]} == {
        mine["id"]: "alice",
        others["id"]: "bob",
    }
    assert all_owners["next_after"] is None
    gone = await shell.client.delete(f"/v1/schedules/{mine['id']}", headers=OPERATOR)
    assert gone.status_code == 200
    assert (await shell.get("/v1/schedules")).json()["schedules"] == []


async def test_an_ordinary_key_lists_only_its_own_schedules(shell: Shell) -> None:
    mine = await plan(shell)

    for owner in ("bob", "*", "olga"):
        answer = await shell.get(f"/v1/schedules?owner={owner}")
        assert (answer.status_code, code(answer)) == (403, "forbidden")
    own = (await shell.get("/v1/schedules?owner=alice")).json()
    assert own["schedules"] == [{"owner": "alice", **mine}]
    assert (await shell.get("/v1/schedules?owner=")).json()["schedules"] == [mine]


async def test_without_configured_keys_every_client_lists_and_deletes_all() -> None:
    keyed = Shell()
    planned = await plan(keyed)
    keyed.settings = keyed.node.settings = Settings()
    keyed.node.authenticator = Authenticator({})
    client = httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=create_app(keyed.node)), base_url="http://localhost"
    )

    assert (await client.get("/v1/schedules")).json()["schedules"] == []
    (found,) = (await client.get("/v1/schedules?owner=*")).json()["schedules"]
    assert (found["id"], found["owner"]) == (planned["id"], "alice")
    assert (await client.delete(f"/v1/schedules/{found['id']}")).status_code == 200
    for opened in (client, keyed.client, keyed.redis):
        await opened.aclose()


async def test_the_pages_of_all_owners_are_in_the_order_of_the_next_time(shell: Shell) -> None:
    ids = []
    for number in range(205):
        schedule = Schedule(
            id=f"sched_{number:026}",
            owner=f"owner {number % 7}",
            kind="generation",
            body=b"{}",
            timing=Timing(cron="0 8 * * *"),
            created_ms=0,
            next_ms=10**13 + number // 150,  # many are due in the same millisecond
            last_ms=0,
            last_id="",
            error=None,
        )
        assert (await Schedules(shell.redis, 100).add(schedule)).how == "ok"
        ids.append(schedule.id)
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        path = "/v1/schedules?owner=*" + (f"&after={after}" if after else "")
        page = (await shell.get(path, **OPERATOR)).json()
        assert len(page["schedules"]) <= 100
        seen += [schedule["id"] for schedule in page["schedules"]]
        after = page["next_after"]

    assert seen == ids
    gone = await shell.get("/v1/schedules?owner=*&after=sched_gone", **OPERATOR)
    assert (gone.status_code, code(gone)) == (404, "not_found")


async def test_credentials_are_needed(shell: Shell) -> None:
    for method, path in (("GET", "/v1/schedules"), ("GET", "/v1/schedules/sched_1234")):
        assert (await shell.client.request(method, path)).status_code == 401


async def test_a_deleted_schedule_is_404(shell: Shell) -> None:
    found = await plan(shell)
    path = f"/v1/schedules/{found['id']}"
    gone = await shell.client.delete(path, headers=ALICE)

    assert gone.json() == {"id": found["id"], "object": "schedule", "deleted": True}
    assert (await shell.get(path)).status_code == 404
    assert (await shell.client.delete(path, headers=ALICE)).status_code == 404
    assert await shell.redis.zcard(keys.SCHEDULES) == 0


async def test_the_last_error_is_shown(shell: Shell) -> None:
    found = await plan(shell)
    error = {"error_code": "model_not_found", "error_message": "no model 'x'"}
    await shell.redis.hset(keys.schedule(found["id"]), mapping=error)
    answer = (await shell.get(f"/v1/schedules/{found['id']}")).json()

    assert answer["last_error"] == {"code": "model_not_found", "message": "no model 'x'"}


async def test_a_draining_node_creates_no_schedule(shell: Shell) -> None:
    shell.node.is_draining = True

    assert code(await shell.post(CRON)) == "draining"


async def test_without_redis_every_route_is_503(shell: Shell) -> None:
    found = await plan(shell)
    shell.server.connected = False
    for response in (
        await shell.post(CRON),
        await shell.get("/v1/schedules"),
        await shell.get(f"/v1/schedules/{found['id']}"),
    ):
        assert (response.status_code, code(response)) == (503, "unavailable")


async def test_answers_about_a_generation_do_not_hold_its_webhook(shell: Shell) -> None:
    hook = {"url": "https://example.com/hook", "secret": "x" * 20}
    made = await shell.post({"prompt": "Hi", "webhook": hook})
    path = f"/v1/generations/{made.json()['id']}"

    assert made.status_code == 202 and "webhook" not in made.text
    for answer in (await shell.get(path), await shell.get("/v1/generations")):
        assert "webhook" not in answer.text and "example.com" not in answer.text


async def test_every_node_shows_the_counts_of_the_jobs_role(shell: Shell) -> None:
    await shell.redis.hset(keys.JOBS_COUNTS, "webhooks_delivered", 7)
    await plan(shell)
    text = (await shell.get("/metrics", **OPERATOR)).text

    assert 'tailrace_jobs_total{what="webhooks_delivered"} 7.0' in text
    assert 'tailrace_jobs_total{what="schedules_fired"} 0.0' in text
    assert 'tailrace_jobs_ahead{what="schedules"} 1.0' in text
