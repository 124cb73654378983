"""POST /v1/generations: what is accepted, and each way of being refused."""

from __future__ import annotations

import json
import time
import uuid

import pytest

from tests.support.demo import demo_body
from tests.support.raw_client import RawClient

SHORT = demo_body(3, 0)
BODY_BYTES_MAX = 33_554_432  # the default
JSON = {"Content-Type": "application/json"}


def nested(depth: int) -> str:
    """A body whose arrays and objects are `depth` deep."""
    inner = "[" * (depth - 2) + "1" + "]" * (depth - 2)
    return f'{{"prompt":"x","metadata":{{"a":{inner}}}}}'


async def test_accepted_is_202_with_location_and_the_documented_body(api: RawClient):
    answer = await api.post(SHORT | {"session": "s-post"})

    assert answer.status == 202
    body = answer.json()
    assert set(body) >= {"id", "status", "model", "session", "created_at", "events_url"}
    assert body["status"] == "queued"
    assert (body["model"], body["session"]) == ("demo", "s-post")
    assert abs(body["created_at"] - time.time()) < 60, "times are Unix seconds"
    assert answer.headers["Location"].endswith(f"/v1/generations/{body['id']}")
    assert answer.headers["Content-Type"].startswith("application/json")


async def test_location_and_events_url_can_be_followed(api: RawClient):
    answer = await api.post(SHORT)
    await api.ended(answer.json()["id"])

    for url in (answer.headers["Location"], answer.json()["events_url"]):
        path = url.removeprefix(api.url)
        assert (await api.get(path)).status == 200


async def test_ids_are_url_safe_and_never_given_twice(api: RawClient):
    ids = [await api.start(SHORT) for _ in range(5)]

    assert len(set(ids)) == 5
    for generation_id in ids:
        assert generation_id.replace("-", "").replace("_", "").isalnum()
        assert generation_id.isascii()


async def test_messages_instead_of_a_prompt(api: RawClient):
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]

    generation_id = await api.finished({"messages": messages, "params": SHORT["params"]})

    assert (await api.ended(generation_id))["status"] == "completed"


async def test_model_left_out_is_the_first_of_the_models(api: RawClient):
    first = (await api.get("/v1/models")).json()
    names = [m["id"] for m in first["data"]]

    body = (await api.post({"prompt": "x", "params": SHORT["params"]})).json()

    assert body["model"] == names[0]


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/*"])
async def test_a_request_that_asks_for_no_stream_gets_202(api: RawClient, accept):
    answer = await api.post(SHORT, headers={"Accept": accept} if accept else {})

    assert answer.status == 202


@pytest.mark.parametrize(
    "accept, content_type",
    [
        ("text/event-stream", "text/event-stream; charset=utf-8"),
        ("application/x-ndjson", "application/x-ndjson"),
    ],
)
async def test_a_request_that_asks_for_a_stream_gets_the_stream_as_its_response(
    api: RawClient, accept, content_type
):
    answer = await api.post(SHORT, headers={"Accept": accept})

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith(content_type)
    generation_id = answer.headers["X-Generation-Id"]
    assert answer.headers["Location"].endswith(f"/v1/generations/{generation_id}")
    events = answer.events
    assert (events[0].event_id, events[0].type) == ("1-1", "start")
    assert events[-1].type == "end"
    assert not answer.is_broken


@pytest.mark.parametrize("accept", ["text/html", "image/png", "application/xml"])
async def test_an_accept_that_cannot_be_served_is_406(api: RawClient, accept):
    answer = await api.post(SHORT, headers={"Accept": accept})

    assert answer.status == 406
    assert answer.error_code


async def test_a_repeat_under_the_same_key_is_200_and_the_same_generation(api: RawClient):
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    first = await api.post(SHORT, headers=headers)

    again = await api.post(SHORT, headers=headers)
    elsewhere = await api.post(SHORT, headers=headers, node=api.other_url)

    assert (first.status, again.status, elsewhere.status) == (202, 200, 200)
    assert first.json()["id"] == again.json()["id"] == elsewhere.json()["id"]
    assert again.headers["Location"] == first.headers["Location"]


async def test_a_repeat_may_ask_for_the_stream(api: RawClient):
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    generation_id = await api.finished(SHORT, headers=headers)

    answer = await api.post(SHORT, headers=headers | {"Accept": "text/event-stream"})

    assert answer.status == 200
    assert answer.headers["X-Generation-Id"] == generation_id
    assert answer.events[-1].type == "end"


async def test_the_same_key_with_another_body_is_422(api: RawClient):
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    await api.post(SHORT, headers=headers)

    answer = await api.post(SHORT | {"prompt": "other"}, headers=headers)

    assert (answer.status, answer.error_code) == (422, "idempotency_mismatch")


async def test_a_key_of_255_characters_is_accepted(api: RawClient):
    key = (uuid.uuid4().hex + "!~" * 200)[:255]

    assert (await api.post(SHORT, headers={"Idempotency-Key": key})).status == 202


@pytest.mark.parametrize("key", ["k" * 256, "with space", "é"])
async def test_a_key_that_is_not_255_visible_characters_is_a_4xx(api: RawClient, key):
    answer = await api.post(SHORT, headers={"Idempotency-Key": key})

    assert answer.status in (400, 422)
    assert answer.error_code


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx"]
)
async def test_another_content_type_or_none_is_415(api: RawClient, content_type):
    headers = {"Content-Type": content_type} if content_type else {}

    answer = await api.post(raw=json.dumps(SHORT).encode(), headers=headers)

    assert answer.status == 415
    assert answer.error_code


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
async def test_json_with_parameters_or_capitals_is_json(api: RawClient, content_type):
    headers = {"Content-Type": content_type}

    assert (await api.post(raw=json.dumps(SHORT).encode(), headers=headers)).status == 202


async def test_a_body_that_is_too_large_is_413(api: RawClient):
    answer = await api.post({"prompt": "x" * BODY_BYTES_MAX})

    assert answer.status == 413
    assert answer.error_code


async def test_a_body_without_length_that_is_too_large_is_413(api: RawClient):
    async def pieces():
        yield b'{"prompt":"'
        for _ in range(BODY_BYTES_MAX // 1_048_576):
            yield b"x" * 1_048_576
        yield b'"}'

    answer = await api.post(raw=pieces(), headers=JSON)

    assert answer.status == 413


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"not json",
        b'{"prompt":"x"',
        b'{"prompt":"x"} trailing',
        b"{'prompt':'x'}",
        b'{"prompt":"x",}',
        b'{"prompt":"x","params":{"a":NaN}}',
        b'{"prompt":"x","params":{"a":Infinity}}',
        b'{"prompt":"x","params":{"a":-Infinity}}',
        b'{"prompt":"\xff\xfe"}',
        b'{"prompt":"\xc3"}',
        b'{"prompt":"\xed\xa0\x80"}',
        b'{"prompt":"x","params":{"a":1e999}}',
        b'{"prompt":"x","params":{"a":-1e999}}',
        b'{"prompt":"x","params":{"a":' + b"9" * 400 + b"}}",
        b'{"prompt":"x","params":{"a":' + b"9" * 5_000 + b"}}",
        nested(129).encode(),
        nested(500).encode(),
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 50_000,
    ],
    ids=lambda raw: repr(raw[:24]) + str(len(raw)),
)
async def test_a_body_that_is_not_strict_json_is_400(api: RawClient, raw):
    answer = await api.post(raw=raw, headers=JSON)

    assert answer.status == 400
    assert answer.error_code


async def test_json_128_deep_is_accepted(api: RawClient):
    assert (await api.post(raw=nested(128).encode(), headers=JSON)).status == 202


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prompt": 1},
        {"prompt": ["x"]},
        {"prompt": True},
        {"prompt": "x", "messages": [{"role": "user", "content": "x"}]},
        {"messages": "x"},
        {"messages": []},
        {"messages": ["x"]},
        {"messages": [{"content": "x"}]},
        {"messages": [{"role": 1, "content": "x"}]},
        {"messages": [{"role": "user", "content": 1}]},
        {"prompt": "x", "model": 1},
        {"prompt": "x", "params": []},
        {"prompt": "x", "params": "x"},
        {"prompt": "x", "session": 1},
        {"prompt": "x", "session": "s" * 129},
        {"prompt": "x", "metadata": []},
        {"prompt": "x", "metadata": {"a": "x" * 16_385}},
        {"prompt": "x", "priority": "urgent"},
        {"prompt": "x", "priority": 1},
        {"prompt": "x", "on_disconnect": "maybe"},
        {"prompt": "x", "on_disconnect": -1},
        {"prompt": "x", "on_disconnect": True},
        {"prompt": "x", "on_disconnect": []},
        {"prompt": "\ud800"},
        {"messages": [{"role": "user", "content": "a\udfffb"}]},
        {"prompt": "x", "session": "\ud800"},
        {"prompt": "x", "metadata": {"\ud800": 1}},
        {"prompt": "x", "params": {"stop": "\ud800"}},
    ],
    ids=lambda body: json.dumps(body)[:60],
)
async def test_wrong_fields_are_422(api: RawClient, body):
    answer = await api.post(body)

    assert answer.status == 422, answer.body
    assert answer.error_code


@pytest.mark.parametrize("raw", [b"[]", b'"x"', b"1", b"null", b"true"])
async def test_json_that_is_no_object_is_a_4xx(api: RawClient, raw):
    answer = await api.post(raw=raw, headers=JSON)

    assert answer.status in (400, 422)
    assert answer.error_code


@pytest.mark.parametrize(
    "extra",
    [
        {"session": "s" * 128},
        {"session": "ünïcode / ?"},
        {"metadata": {"a": "x" * 16_000}},
        {"priority": "batch"},
        {"on_disconnect": "continue"},
        {"on_disconnect": "cancel"},
        {"on_disconnect": 2.5},
        {"params": SHORT["params"] | {"max_tokens": 2, "temperature": 0.5, "stop": ["x"]}},
    ],
    ids=lambda extra: json.dumps(extra)[:60],
)
async def test_every_documented_field_is_accepted(api: RawClient, extra):
    assert (await api.post(SHORT | extra)).status == 202


@pytest.mark.parametrize("model", ["no-such-model", "", "x" * 5_000, "../demo", "démo"])
async def test_an_unknown_model_is_404(api: RawClient, model):
    answer = await api.post(SHORT | {"model": model})

    assert (answer.status, answer.error_code) == (404, "model_not_found")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_methods_are_405(api: RawClient, method):
    answer = await api.call(method, "/v1/generations")

    assert answer.status == 405
    assert answer.error_code
    assert "POST" in answer.headers["Allow"]


async def test_params_reach_the_backend(api: RawClient):
    generation_id = await api.finished(demo_body(50, 0) | {"params": {"max_tokens": 2}})

    snapshot = await api.ended(generation_id)

    assert snapshot["finish_reason"] == "length"
