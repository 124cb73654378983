"""One generation from the outside: snapshot, cancel, the events that make it up."""

from __future__ import annotations

import time

import pytest

from tests.support.deliveries import fold_text
from tests.support.demo import demo_body
from tests.support.history import check_log
from tests.support.raw_client import RawClient

SHORT = demo_body(5, 0)
LONG = demo_body(10_000, 20)

# Things in the place of an id; none of them may be more than a 404.
NO_IDS = [
    "x",
    "gen_00000000000000000000000000",
    "..%2f..",
    "%00",
    "a" * 5_000,
    "%F0%9F%92%A9",
    "{q}",
]


async def test_the_snapshot_has_the_documented_fields(api: RawClient):
    generation_id = await api.finished(SHORT | {"session": "s-snap"})

    snapshot = (await api.get(f"/v1/generations/{generation_id}")).json()

    documented = (
        "id status model session created_at attempt text reasoning finish_reason usage error"
        " last_event_id"
    )
    assert set(snapshot) >= set(documented.split())
    assert snapshot["id"] == generation_id
    assert snapshot["status"] == "completed"
    assert (snapshot["model"], snapshot["session"]) == ("demo", "s-snap")
    assert snapshot["finish_reason"] == "stop"
    assert snapshot["attempt"] == 1
    assert snapshot["error"] is None
    assert abs(snapshot["created_at"] - time.time()) < 60
    assert set(snapshot["usage"]) >= {"prompt_tokens", "completion_tokens", "total_tokens"}


async def test_the_snapshot_is_the_fold_of_the_log_on_every_node(api: RawClient):
    generation_id = await api.finished(SHORT)
    log = await api.log(generation_id)

    for node in (api.url, api.other_url):
        snapshot = (await api.get(f"/v1/generations/{generation_id}", node=node)).json()
        assert snapshot["text"] == fold_text(log) != ""
        assert snapshot["last_event_id"] == log[-1].event_id


async def test_the_snapshot_of_a_running_one_has_the_text_so_far(api: RawClient):
    generation_id = await api.start(LONG)
    await api.running(generation_id)

    snapshot = (await api.get(f"/v1/generations/{generation_id}")).json()

    assert snapshot["status"] == "running"
    assert snapshot["text"]
    assert snapshot["finish_reason"] is None
    await api.call("POST", f"/v1/generations/{generation_id}/cancel")


async def test_a_log_is_whole_and_begins_and_ends_as_documented(api: RawClient):
    generation_id = await api.finished(SHORT)

    log = await api.log(generation_id)

    assert check_log(log) == []
    assert log[0].fields["model"] == "demo"
    assert log[-1].fields["status"] == "completed"
    assert log[-1].fields["finish_reason"] == "stop"
    assert [event.type for event in log].count("usage") == 1


async def test_reasoning_is_apart_from_the_answer(api: RawClient):
    generation_id = await api.finished(demo_body(3, 0, reasoning_tokens=4))

    log = await api.log(generation_id)
    snapshot = await api.ended(generation_id)

    thoughts = "".join(e.fields["text"] for e in log if e.type == "reasoning")
    assert snapshot["reasoning"] == thoughts != ""
    assert snapshot["text"] == fold_text(log)


async def test_a_tool_call_comes_as_string_deltas(api: RawClient):
    generation_id = await api.finished(demo_body(2, 0, tool_call="search"))

    log = await api.log(generation_id)

    pieces = [e.fields for e in log if e.type == "tool_call"]
    assert pieces[0]["name"] == "search"
    assert {piece["index"] for piece in pieces} == {0}
    assert all(isinstance(piece.get("arguments", ""), str) for piece in pieces)
    assert log[-1].fields["finish_reason"] == "tool_calls"


async def test_a_failed_one_ends_with_its_error(api: RawClient):
    generation_id = await api.finished(demo_body(5, 0, fail_at=2, fail_retryable=False))

    log = await api.log(generation_id)
    snapshot = await api.ended(generation_id)

    end = log[-1].fields
    assert (end["status"], end["finish_reason"]) == ("failed", "error")
    assert set(end["error"]) == {"code", "message", "retryable"}
    assert (snapshot["status"], snapshot["error"]) == ("failed", end["error"])


@pytest.mark.parametrize("name", NO_IDS, ids=range(len(NO_IDS)))
@pytest.mark.parametrize(
    "method, rest", [("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("HEAD", "/events")]
)
async def test_no_such_generation_is_404(api: RawClient, name, method, rest):
    answer = await api.call(method, f"/v1/generations/{name}{rest}")

    assert answer.status == 404
    if method != "HEAD":
        assert answer.error_code == "not_found"


async def test_cancel_from_another_node_ends_it_as_cancelled(api: RawClient):
    generation_id = await api.start(LONG)
    await api.running(generation_id)

    path = f"/v1/generations/{generation_id}/cancel"
    answer = await api.call("POST", path, node=api.other_url)

    assert answer.status == 202
    snapshot = await api.ended(generation_id)
    assert (snapshot["status"], snapshot["finish_reason"]) == ("cancelled", "cancelled")
    log = await api.log(generation_id)
    assert check_log(log) == []
    assert log[-1].fields["status"] == "cancelled"
    assert snapshot["text"] == fold_text(log) != "", "what was generated stays"


async def test_cancel_may_be_repeated_and_does_not_change_an_ended_generation(api: RawClient):
    generation_id = await api.finished(SHORT)
    before = await api.ended(generation_id)

    for _ in range(2):
        answer = await api.call("POST", f"/v1/generations/{generation_id}/cancel")
        assert answer.status == 202

    assert await api.ended(generation_id) == before


async def test_an_open_stream_gets_the_cancel(api: RawClient):
    generation_id = await api.start(LONG)
    await api.running(generation_id)

    async with api.stream(generation_id) as response:
        await api.call("POST", f"/v1/generations/{generation_id}/cancel", node=api.other_url)
        body = await response.read()

    assert b'"status":"cancelled"' in body.replace(b" ", b"")


@pytest.mark.parametrize(
    "method, rest", [("PUT", ""), ("PATCH", ""), ("PUT", "/events"), ("GET", "/cancel")]
)
async def test_other_methods_are_405(api: RawClient, method, rest):
    generation_id = await api.start(SHORT)

    answer = await api.call(method, f"/v1/generations/{generation_id}{rest}")

    assert answer.status == 405
    assert answer.error_code
    assert answer.headers["Allow"]
