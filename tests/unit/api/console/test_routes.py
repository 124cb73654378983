"""The routes of the console: who may use them, what they hide, what they log."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx2
import pytest

from api.console import bulk
from shared.console.board import report_worker
from shared.console.reports import LiveRun
from shared.errors import Unavailable
from shared.log.events import End, Start, Token, encode
from shared.queue.presence import Presence
from shared.redis import keys
from shared.redis.client import clock_ms
from tests.support.shell import ALICE, OPERATOR, Shell

CONTENT = {"authorization": "Bearer clear"}
KEYS = "alpha:alice,omega:olga:admin,clear:carl:admin content"


@pytest.fixture
def shell() -> Shell:
    return Shell(api_keys=KEYS)


async def said(shell: Shell) -> str:
    """Return the id of a generation of alice with a log of three events, the last one its end."""
    made = await shell.post({"prompt": "my secret", "session": "s"})
    generation_id: str = made.json()["id"]
    events = [Start(1, "demo"), Token("secret words"), End("completed", "stop")]
    for seq, event in enumerate(events, 1):
        await shell.redis.xadd(keys.log(generation_id), {"e": encode(event)}, id=f"1-{seq}")
    ended = {"status": "completed", "end": encode(events[-1]), "ended": 1, "attempt": 1}
    await shell.redis.hset(keys.meta(generation_id), mapping=ended)
    return generation_id


async def test_an_operator_without_content_sees_a_generation_without_its_texts(shell):
    generation_id = await said(shell)

    found = await shell.get(f"/v1/console/generations/{generation_id}", **OPERATOR)
    log = await shell.get(f"/v1/console/generations/{generation_id}/log", **OPERATOR)

    assert found.json()["owner"] == "alice" and found.json()["may_read"] is False
    assert log.json()["data"][-1]["event"]["type"] == "end"
    assert "secret" not in found.text + log.text


async def test_an_operator_with_content_reads_prompt_log_and_the_generation_itself(shell):
    generation_id = await said(shell)

    found = await shell.get(f"/v1/console/generations/{generation_id}", **CONTENT)
    log = await shell.get(f"/v1/console/generations/{generation_id}/log", **CONTENT)
    own = await shell.get(f"/v1/generations/{generation_id}", **CONTENT)

    assert found.json()["prompt"] == "my secret"
    assert [entry["event"].get("text") for entry in log.json()["data"]].count("secret words") == 1
    assert own.json()["text"] == "secret words"


async def test_the_scope_content_without_admin_reads_nothing_of_others(shell):
    shell = Shell(api_keys="alpha:alice,nosy:ned:content read")
    generation_id = await said(shell)
    nosy = {"authorization": "Bearer nosy"}

    assert (await shell.get(f"/v1/generations/{generation_id}", **nosy)).status_code == 404
    answer = await shell.get(f"/v1/console/generations/{generation_id}", **nosy)
    assert answer.status_code == 403


async def test_the_log_comes_in_pages(shell, monkeypatch):
    monkeypatch.setattr("api.console.logs.LOG_ENTRIES_PER_PAGE", 2)
    path = f"/v1/console/generations/{await said(shell)}/log"

    first = (await shell.get(path, **OPERATOR)).json()
    second = (await shell.get(f"{path}?after={first['next']}", **OPERATOR)).json()

    assert [entry["id"] for entry in first["data"] + second["data"]] == ["1-1", "1-2", "1-3"]
    assert second["next"] is None


async def test_an_operator_tells_a_worker_to_drain_and_the_log_says_who(shell, caplog):
    await shell.announce()
    with caplog.at_level(logging.INFO, "api.console.actions"):
        answer = await shell.client.post("/v1/console/workers/w1/drain", headers=OPERATOR)

    assert answer.status_code == 202
    assert await shell.redis.get(keys.drain_order("w1")) == b"olga"
    (record,) = [each for each in caplog.records if each.message == "console action"]
    assert (record.action, record.subject, record.by) == ("drain", "w1", "olga")


async def test_a_worker_that_does_not_report_cannot_be_drained(shell):
    answer = await shell.client.post("/v1/console/workers/none/drain", headers=OPERATOR)

    assert answer.status_code == 404
    assert not await shell.redis.exists(keys.drain_order("none"))


async def test_a_cancel_in_the_console_is_logged_with_who_did_it(shell, caplog):
    made = await shell.post({"prompt": "Hi"})
    generation_id = made.json()["id"]

    with caplog.at_level(logging.INFO, "api.console.actions"):
        answer = await shell.client.post(
            f"/v1/console/generations/{generation_id}/cancel", headers=OPERATOR
        )

    assert answer.json() == {"id": generation_id, "status": "cancelled"}
    (record,) = [each for each in caplog.records if each.message == "console action"]
    assert (record.action, record.by, record.outcome) == ("cancel", "olga", "cancelled")


async def test_a_replay_is_a_generation_of_the_operator_with_the_same_request(shell):
    made = await shell.post({"prompt": "my secret", "session": "s"})
    path = f"/v1/console/generations/{made.json()['id']}/replay"

    refused = await shell.client.post(path, headers=OPERATOR)
    answer = await shell.client.post(path, headers=CONTENT)

    assert refused.status_code == 404
    found = (await shell.get(f"/v1/generations/{answer.json()['id']}", **CONTENT)).json()
    assert found["messages"] == [{"role": "user", "content": "my secret"}]
    assert (found["session"], found["metadata"]) == (None, {"replay_of": made.json()["id"]})
    meta = await shell.store.meta(answer.json()["id"])
    assert meta is not None and meta.owner == "carl"


async def test_the_request_is_shown_with_the_scope_content_only(shell):
    made = await shell.post({"prompt": "my secret", "params": {"temperature": 0.5}})
    path = f"/v1/console/generations/{made.json()['id']}/request"

    refused = await shell.get(path, **OPERATOR)
    found = await shell.get(path, **CONTENT)

    assert refused.status_code == 404 and "secret" not in refused.text
    assert found.json() == {
        "messages": [{"role": "user", "content": "my secret"}],
        "params": {"temperature": 0.5},
    }


async def cancel_all(shell: Shell, **query: str) -> Any:
    hub: Any = shell.hub
    hub.spawn = asyncio.get_running_loop().create_task
    path = "/v1/console/generations/cancel"
    return await shell.client.post(path, params=query, headers=OPERATOR)


async def test_the_generations_of_a_filter_are_cancelled_the_oldest_first(shell, caplog):
    made = [(await shell.post({"prompt": f"{n}"})).json()["id"] for n in range(3)]
    other = (await shell.post({"prompt": "x", "model": "other"}, **CONTENT)).json()["id"]

    with caplog.at_level(logging.INFO, "api.console.actions"):
        first = await cancel_all(shell, owner="alice", at_most="2")
        second = await cancel_all(shell, owner="alice", at_most="200")

    assert first.json() == {"matched": 3, "cancelled": 2, "left": 1}
    assert second.json() == {"matched": 1, "cancelled": 1, "left": 0}
    statuses = [(await shell.store.meta(name)).status for name in [*made, other]]
    assert statuses == ["cancelled"] * 3 + ["queued"]
    notes = [each for each in caplog.records if each.message == "console action"]
    assert {(each.action, each.by) for each in notes} == {("cancel", "olga")}
    assert {each.subject for each in notes} == set(made)
    story = (await shell.get(f"/v1/generations/{made[0]}/timeline", **ALICE)).json()["data"]
    assert [each["by"] for each in story if each["what"] == "cancel_requested"] == ["operator"]


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"at_most": "0"},
        {"at_most": "201"},
        {"at_most": "٣"},
        {"at_most": "5", "state": "ended"},
        {"at_most": "5", "state": "x"},
        {"at_most": "5", "owner": "o" * 201},
    ],
)
async def test_a_hostile_bulk_cancel_is_refused_and_ends_nothing(shell, query):
    made = (await shell.post({"prompt": "x"})).json()["id"]

    answer = await cancel_all(shell, **query)

    assert answer.status_code == 422
    meta = await shell.store.meta(made)
    assert meta is not None and meta.status == "queued"


async def test_a_bulk_cancel_needs_no_free_place_for_a_console(shell, monkeypatch):
    monkeypatch.setattr("api.console.sampler.PAGES_MAX", 0)
    await shell.post({"prompt": "x"})

    assert (await cancel_all(shell, at_most="5")).json()["cancelled"] == 1


async def test_a_bulk_cancel_without_redis_is_503_and_lets_the_other_cancels_end(
    shell, monkeypatch, caplog
):
    made = [(await shell.post({"prompt": f"{n}"})).json()["id"] for n in range(20)]
    cancel, failed = bulk.cancel, asyncio.Event()

    async def cancel_or_fail(store, generation_id, *, by):
        if generation_id == made[0]:
            failed.set()
            raise Unavailable("away")
        await failed.wait()
        return await cancel(store, generation_id, by=by)

    monkeypatch.setattr(bulk, "cancel", cancel_or_fail)

    answer = await cancel_all(shell, owner="alice", at_most="200")

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert "request failed" not in caplog.messages, "this is no defect of the server"
    statuses = [(await shell.store.meta(name)).status for name in made]
    under_way = statuses[1 : bulk.RUNNING_CANCELS]
    assert under_way == ["cancelled"] * len(under_way), "the cancels under way were not aborted"
    assert statuses[bulk.RUNNING_CANCELS :] == ["queued"] * 4, "no further cancel has begun"


async def test_generations_that_have_ended_since_they_were_reported_make_room(shell):
    made = [(await shell.post({"prompt": f"{n}"})).json()["id"] for n in range(3)]
    await shell.client.post(f"/v1/generations/{made[0]}/cancel", headers=ALICE)
    now_ms = await clock_ms(shell.redis)
    runs = [
        LiveRun(name, "alice", "demo", "demo", "interactive", n, 1, 1, 0)
        for n, name in enumerate(made)
    ]
    await report_worker(shell.redis, Presence("w", now_ms, 9, 3, False, {}), runs)

    answer = await cancel_all(shell, worker="w", at_most="1")

    assert answer.json() == {"matched": 3, "cancelled": 1, "left": 1}
    meta = await shell.store.meta(made[1])
    assert meta is not None and meta.status == "cancelled"


async def dead(shell: Shell, name: str) -> None:
    """Put a webhook of alice that was given up into Redis."""
    place = keys.hook_place("alice", "hooks.example")
    fields = {
        "state": "done", "result": "given_up", "url": "https://hooks.example/secret", "secret": "s",
        "body": "{}", "place": place, "host": "hooks.example", "owner": "alice", "tries": 8,
    }  # fmt: skip
    await shell.redis.hset(keys.hook(name), mapping=fields)
    await shell.redis.zadd(keys.HOOKS_DEAD, {name: 1})


async def test_webhooks_that_were_given_up_are_delivered_again(shell, caplog):
    for name in ("gen_a", "gen_b", "gen_c"):
        await dead(shell, name)
    path = "/v1/console/webhooks/redrive"

    with caplog.at_level(logging.INFO, "api.console.actions"):
        one = await shell.client.post(f"{path}?ids=gen_b,gen_none", headers=OPERATOR)
        rest = await shell.client.post(f"{path}?all=yes", headers=OPERATOR)

    assert one.json() == {"redriven": 1, "left": 2}
    assert rest.json() == {"redriven": 2, "left": 0}
    assert await shell.redis.hget(keys.hook("gen_a"), "state") == b"due"
    notes = [each for each in caplog.records if each.message == "console action"]
    assert [(each.action, each.subject, each.by) for each in notes][0] == (
        "redrive webhook", "gen_b", "olga",
    )  # fmt: skip


@pytest.mark.parametrize("query", ["", "?ids=", "?ids=a&all=yes", "?all=no", f"?ids={'a,' * 101}"])
async def test_a_redrive_of_webhooks_names_some_or_all(shell, query):
    answer = await shell.client.post(f"/v1/console/webhooks/redrive{query}", headers=OPERATOR)

    assert answer.status_code == 422


@pytest.mark.parametrize("path", ["generations/cancel?at_most=5", "webhooks/redrive?all=yes"])
async def test_an_ordinary_key_does_nothing_to_many(shell, path):
    made = (await shell.post({"prompt": "x"})).json()["id"]

    answer = await shell.client.post(f"/v1/console/{path}", headers=ALICE)

    assert answer.status_code == 403
    meta = await shell.store.meta(made)
    assert meta is not None and meta.status == "queued"


@pytest.mark.parametrize(
    ("address", "headers", "status"),
    [
        ("127.0.0.1", {}, 404),
        ("::1", {}, 404),
        ("10.0.0.9", {}, 403),
        ("127.0.0.1", {"x-forwarded-for": "203.0.113.5"}, 403),
        ("127.0.0.1", {"forwarded": "for=203.0.113.5"}, 403),
        ("127.0.0.1", {"via": "1.1 proxy.example"}, 403),
        ("127.0.0.1", {"x-forwarded-host": "tailrace.example"}, 403),
        ("127.0.0.1", {"sec-fetch-site": "cross-site"}, 403),
    ],
    ids=[
        "loopback",
        "loopback v6",
        "another machine",
        "proxy",
        "proxy 2",
        "proxy 3",
        "proxy 4",
        "another site",
    ],
)
async def test_without_credentials_the_console_is_open_on_loopback_only(address, headers, status):
    shell = Shell(api_keys="")
    transport = httpx2.ASGITransport(app=shell.app, client=(address, 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        path = f"/v1/console/generations/gen_{'0' * 26}"
        answer = await client.get(path, headers=headers)

    assert answer.status_code == status


async def test_an_ordinary_key_gets_nothing_of_the_console(shell):
    for path in ("/v1/console", "/v1/console/generations/gen_x"):
        assert (await shell.get(path, **ALICE)).status_code == 403


async def test_a_page_of_another_origin_cannot_act(shell):
    await shell.announce()
    headers = {**OPERATOR, "origin": "https://evil.example", "sec-fetch-site": "cross-site"}

    answer = await shell.client.post("/v1/console/workers/w1/drain", headers=headers)

    assert answer.status_code == 403
    assert not await shell.redis.exists(keys.drain_order("w1"))


@pytest.mark.parametrize("ids", ["", ",".join(["batch_x"] * 21)])
async def test_a_redrive_of_none_or_too_many_batches_is_refused(shell, ids):
    answer = await shell.client.post(f"/v1/console/batches/redrive?ids={ids}", headers=OPERATOR)

    assert answer.status_code == 422


async def test_the_page_of_the_console_needs_no_key_and_shows_nothing(shell):
    answer = await shell.client.get("/console")

    assert answer.status_code == 200 and "/page/console.js?v=" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
