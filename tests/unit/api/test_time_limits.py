"""Time limits on every dialect: malformed ones are refused, good ones reach meta and no model."""

from __future__ import annotations

import json

import pytest

from api.dialects.chat.request import parse_chat
from api.dialects.deep_chat.form import read_text_member
from api.dialects.responses.request import parse_response
from api.intake.time_limit_members import read_time_limits, with_timeout_header
from jobs.batch.line import Terms, read_query
from shared.config.models import Model
from shared.errors import RequestError
from shared.queue.time_limits import TIME_LIMIT_S_MAX, TimeLimits
from shared.redis import keys
from tests.support.shell import ALICE, Shell

MESSAGES = [{"role": "user", "content": "Hi"}]
UI_MESSAGES = [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}]
ROUTES = {
    "/v1/generations": ({"prompt": "Hi"}, 422),
    "/v1/chat/completions": ({"messages": MESSAGES}, 400),
    "/chat/completions": ({"messages": MESSAGES}, 400),
    "/v1/responses": ({"input": "Hi", "background": True}, 400),
    "/ai-sdk/chat": ({"id": "c", "messages": UI_MESSAGES}, 422),
    "/ag-ui/demo": ({"threadId": "t", "runId": "r", "messages": MESSAGES}, 422),
    "/deep-chat": ({"messages": [{"role": "user", "text": "Hi"}]}, 422),
}
MALFORMED = {
    "zero": 0, "negative": -1, "text": "30", "words": "soon", "true": True, "list": [30],
    "object": {"s": 30}, "small-negative": -0.001,
}  # fmt: skip
MALFORMED_HEADERS = ("0", "-1", "soon", "30s", "1e3", "0.0", "", " ", "1,5", "inf", "nan", "٣")


@pytest.fixture(scope="module")
async def shell():
    """One for the module: what is refused leaves nothing, and each accepted prompt has an id."""
    shell = Shell(models_skip="")
    yield shell
    await shell.client.aclose()


async def post(shell, path, body, **headers):
    return await shell.client.post(path, json=body, headers={**ALICE, **headers})


@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("name", ["queue_wait_s", "deadline_s"])
@pytest.mark.parametrize("path", ROUTES)
async def test_a_malformed_limit_is_refused(shell, path, name, value):
    body, status = ROUTES[path]

    answer = await post(shell, path, body | {name: value})

    assert answer.status_code == status, answer.text
    assert f"{name} must be a number of seconds above 0" in answer.text


@pytest.mark.parametrize("path", ROUTES)
async def test_a_malformed_header_is_refused(shell, path):
    body, status = ROUTES[path]
    for value in MALFORMED_HEADERS:
        answer = await shell.client.post(
            path, json=body, headers=[*ALICE.items(), (b"x-request-timeout", value.encode())]
        )

        assert answer.status_code == status, (value, answer.text)
        assert "x-request-timeout must be a number of seconds above 0" in answer.text


async def meta_of(shell, answer):
    return await shell.redis.hgetall(keys.meta(answer.json()["id"]))


async def test_limits_reach_meta_in_ms(shell):
    body = {"prompt": "Hi", "queue_wait_s": 1.5, "deadline_s": 90}

    fields = await meta_of(shell, await post(shell, "/v1/generations", body))

    assert (fields[b"queue_wait"], fields[b"deadline"]) == (b"1500", b"90000")


async def test_null_means_no_limit(shell):
    body = {"prompt": "Hi", "queue_wait_s": None, "deadline_s": None}

    fields = await meta_of(shell, await post(shell, "/v1/generations", body))

    assert not {b"queue_wait", b"deadline"} & set(fields)


@pytest.mark.parametrize(
    ("body", "header", "deadline"),
    [
        ({}, "30", b"30000"),
        ({}, "0.25", b"250"),
        ({"deadline_s": 60}, "30", b"30000"),
        ({"deadline_s": 20}, "30", b"20000"),
        ({}, "29.999485969543457", b"29999"),
        ({}, "999999999999", b"604800000"),
        ({}, "9007199254740991", b"604800000"),
        ({}, "9" * 400, b"604800000"),
    ],
)
async def test_the_shorter_of_header_and_member_holds(shell, body, header, deadline):
    asked = {"prompt": "Hi"} | body

    fields = await meta_of(
        shell, await post(shell, "/v1/generations", asked, **{"x-request-timeout": header})
    )

    assert fields[b"deadline"] == deadline


async def test_a_background_response_has_a_deadline(shell):
    body = {"input": "Hi", "background": True, "deadline_s": 7}

    answer = await post(shell, "/v1/responses", body)

    generation_id = "gen_" + answer.json()["id"].removeprefix("resp_")
    assert await shell.redis.hget(keys.meta(generation_id), "deadline") == b"7000"


async def test_a_repeat_with_less_time_left_finds_the_same_generation(shell):
    first, again = [
        await post(
            shell, "/v1/generations", {"prompt": "Hi", "deadline_s": left_s},
            **{"idempotency-key": "k"},
        )
        for left_s in (30, 12)
    ]  # fmt: skip

    assert first.json()["id"] == again.json()["id"]
    assert (await meta_of(shell, again))[b"deadline"] == b"30000"


async def test_the_header_of_a_scheduled_request_is_kept_with_it(shell):
    body = {"prompt": "Hi", "run_at": 4_000_000_000}

    answer = await post(shell, "/v1/generations", body, **{"x-request-timeout": "30"})

    raw = await shell.redis.hget(keys.schedule(answer.json()["id"]), "body")
    assert json.loads(raw)["deadline_s"] == 30


# The members


def test_a_long_limit_counts_as_the_longest():
    limits = read_time_limits({"queue_wait_s": 10**400, "deadline_s": 1e300})

    assert limits == TimeLimits(TIME_LIMIT_S_MAX, TIME_LIMIT_S_MAX)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")], ids=["nan", "minus-infinity"])
def test_an_invalid_number_is_refused(value):
    with pytest.raises(RequestError, match="deadline_s must be a number"):
        read_time_limits({"deadline_s": value})


def test_a_request_without_the_header_does_not_change():
    body = {"prompt": "Hi"}

    assert with_timeout_header(body, {}) is body


def test_no_model_gets_the_limits():
    limits = {"queue_wait_s": 1, "deadline_s": 2}
    chat = parse_chat({"messages": MESSAGES, "top_k": 1} | limits, grace_s=0.0)
    response = parse_response({"input": "Hi", "top_k": 1} | limits, grace_s=0.0)

    assert chat.request.params == response.request.params == {"top_k": 1}


@pytest.mark.parametrize("name", ["queue_wait_s", "deadline_s"])
def test_a_form_of_deep_chat_may_have_a_limit(name):
    assert read_text_member(name, "2.5") == 2.5
    assert read_text_member(name, "soon") == "soon", "which is refused later"


# Lines of batches


def line_of(body):
    line = {"custom_id": "a", "method": "POST", "url": "/v1/generations", "body": body}
    terms = Terms(
        "batch_1", "a", "/v1/generations", {"demo": Model(name="demo")}, Shell().settings
    )  # fmt: skip
    return read_query(json.dumps(line).encode(), terms, 60.0)


def test_a_line_of_a_batch_may_have_a_deadline():
    assert line_of({"prompt": "Hi", "deadline_s": 5}).new.time_limits == TimeLimits(None, 5.0)


def test_a_line_of_a_batch_waits_as_long_as_its_batch():
    error = line_of({"prompt": "Hi", "queue_wait_s": 5}).error

    assert error is not None and "use deadline_s" in error.message
