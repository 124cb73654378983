"""The routes of the console: who may use them, what they hide, what they log."""

from __future__ import annotations

import logging

import httpx2
import pytest

from shared.log.events import End, Start, Token, encode
from shared.redis import keys
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


@pytest.mark.parametrize(
    ("address", "headers", "status"),
    [
        ("127.0.0.1", {}, 404),
        ("::1", {}, 404),
        ("10.0.0.9", {}, 403),
        ("127.0.0.1", {"x-forwarded-for": "203.0.113.5"}, 403),
        ("127.0.0.1", {"forwarded": "for=203.0.113.5"}, 403),
        ("127.0.0.1", {"sec-fetch-site": "cross-site"}, 403),
    ],
    ids=["loopback", "loopback v6", "another machine", "proxy", "proxy 2", "another site"],
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
