"""Schedules and webhooks as docs/schedules.md and docs/webhooks.md have them, at any deployment."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.support.demo import demo_body
from tests.support.raw_client import RawClient
from tests.support.wait import until

DEADLINE_S = 30.0
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CRON = {"prompt": "tell me", "cron": "0 8 1 1 *", "timezone": "Europe/Berlin"}


async def found(api: RawClient, schedule_id: str) -> Any:
    return (await api.get(f"/v1/schedules/{schedule_id}")).json()


async def test_due_work_is_started_once_with_its_session_and_metadata(api: RawClient) -> None:
    session = f"later-{time.time_ns()}"
    body = {"prompt": "tell me", "session": session, "metadata": {"a": 1}, "run_at": time.time()}
    answer = await api.post(body)
    schedule = answer.json()
    assert answer.status == 202
    assert answer.headers["Location"] == f"/v1/schedules/{schedule['id']}"
    assert (schedule["object"], schedule["kind"]) == ("schedule", "generation")

    async def fired() -> Any:
        now = await found(api, schedule["id"])
        return now if now["last_id"] else None

    now = await until(fired, DEADLINE_S, "the firing")
    generation = (await api.get(f"/v1/generations/{now['last_id']}")).json()
    listed = (await api.get(f"/v1/sessions/{session}")).json()

    assert now["next_run_at"] is None and now["last_error"] is None
    assert generation["session"] == session
    assert generation["metadata"] == {"a": 1, "schedule": schedule["id"]}
    assert [one["id"] for one in listed["generations"]] == [now["last_id"]]


async def test_a_cron_schedule_is_listed_and_deleted(api: RawClient) -> None:
    schedule = (await api.post(CRON)).json()
    listed = (await api.get("/v1/schedules")).json()
    assert schedule["id"] in [one["id"] for one in listed["schedules"]]
    assert schedule["next_run_at"] > time.time()
    assert (schedule["cron"], schedule["timezone"]) == (CRON["cron"], CRON["timezone"])
    assert await found(api, schedule["id"]) == schedule

    gone = await api.call("DELETE", f"/v1/schedules/{schedule['id']}")
    again = await api.call("DELETE", f"/v1/schedules/{schedule['id']}")

    assert gone.status == 200 and gone.json()["deleted"] is True
    assert (again.status, again.error_code) == (404, "not_found")


@pytest.mark.parametrize(
    "members",
    [
        {"cron": "0 0 30 2 *"},
        {"cron": "* * * *"},
        {"cron": "soon"},
        {"timezone": "Mars/Base"},
        {"run_at": 1},
        {"run_at": "tomorrow", "cron": None, "timezone": None},
        {"prompt": ""},
        {"webhook": {"url": "https://example.com"}},
        {"webhook": {"url": "ftp://example.com", "secret": SECRET}},
        {"webhook": {"url": "https://me:me@example.com", "secret": SECRET}},
        {"webhook": {"url": "https://example.com", "secret": "short"}},
    ],
)
async def test_a_schedule_that_could_never_run_is_refused_at_once(
    api: RawClient, members: dict[str, Any]
) -> None:
    answer = await api.post({**CRON, **members})

    assert (answer.status, answer.error_code) == (422, "invalid_request")


async def test_an_unknown_model_is_refused_at_once(api: RawClient) -> None:
    answer = await api.post({**CRON, "model": "nobody"})

    assert (answer.status, answer.error_code) == (404, "model_not_found")


async def test_no_listing_shows_the_webhook_of_a_schedule(api: RawClient) -> None:
    hook = {"url": "https://receiver.invalid/a-private-path", "secret": SECRET}
    made = await api.post({**demo_body(3, 0), "webhook": hook})
    shown = await api.get(f"/v1/generations/{made.json()['id']}")
    events = await api.get(f"/v1/generations/{made.json()['id']}/events")

    assert made.status == 202
    for answer in (made, shown, events):
        assert b"private-path" not in answer.body and b"whsec" not in answer.body
