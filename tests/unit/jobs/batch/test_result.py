"""The result of a line, and whether the line is tried again."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from api.errors import request_error
from jobs.batch.result import (
    EXPIRED,
    TRIES_MAX,
    Source,
    answered,
    never_done,
    pause_before_next_try,
    refused,
)
from shared.log.events import Counts, End, Failure, Start, Token, Usage, encode
from shared.log.ids import EventId
from shared.log.records import Meta, parse_meta
from tests.support.recorded import REFUSAL

FIELDS = {
    b"status": b"completed", b"owner": b"me", b"model": b"m", b"created": b"5000",
    b"request": b'{"messages":[{"role":"user","content":"tell me"}]}',
}  # fmt: skip
CHAT, RESPONSES, NATIVE = "/v1/chat/completions", "/v1/responses", "/v1/generations"
REFUSED = {"code": "upstream_refused", "message": "400", "retryable": False}
UPSTREAM = msgspec.to_builtins(REFUSAL)
DONE = End("completed", "stop", usage=Counts(1, 2, 3))


def source(endpoint: str = CHAT) -> Source:
    return Source("batch_1", endpoint, 7, "c7", "gen_7")


def meta(**fields: bytes) -> Meta:
    return parse_meta("gen_7", FIELDS | {name.encode(): value for name, value in fields.items()})


def log(end: End = DONE) -> list[tuple[EventId, bytes]]:
    events = [Start(1, "m"), Token("Hello"), Token(" you"), Usage(1, 2, 3), end]
    return [(EventId(1, seq), encode(event)) for seq, event in enumerate(events, 1)]


def failed(code: str, *, retryable: bool) -> End:
    return End("failed", "error", error=Failure(code, "as told", retryable))


def test_line_ends_of_unicode_are_escaped() -> None:
    """JSON Lines are read with readers that split at these characters."""
    at = Source("batch_1", NATIVE, 7, "c\u20287\x85", "gen_7")
    result, _ = answered(at, meta(), log())

    assert len(result.raw.decode().splitlines()) == 1
    assert json.loads(result.raw)["custom_id"] == "c\u20287\x85"


def text_of(endpoint: str, body: dict[str, Any]) -> str:
    if endpoint == CHAT:
        found = body["choices"][0]["message"]["content"]
    elif endpoint == RESPONSES:
        found = body["output"][0]["content"][0]["text"]
    else:
        found = body["text"]
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES, NATIVE])
def test_a_result_equals_the_endpoints_response(endpoint: str) -> None:
    result, end = answered(source(endpoint), meta(), log())

    row = json.loads(result.raw)
    assert result.raw.endswith(b"\n") and result.raw.count(b"\n") == 1
    assert row["custom_id"] == "c7" and row["error"] is None
    assert (row["response"]["status_code"], row["response"]["request_id"]) == (200, "gen_7")
    assert text_of(endpoint, row["response"]["body"]) == "Hello you"
    assert result.is_good and (result.status, result.usage, result.model) == (
        "completed", (1, 2, 3), "m",
    )  # fmt: skip
    assert end == DONE


def test_a_failure_equals_the_endpoints_error() -> None:
    end = failed("upstream_timeout", retryable=True)

    result, _ = answered(source(), meta(status=b"failed"), log(end))

    row = json.loads(result.raw)
    assert (result.code, result.status) == ("upstream_timeout", "failed")
    assert row["response"]["status_code"] == 504
    assert row["response"]["body"]["error"]["code"] == "upstream_timeout"
    assert row["error"] == {"code": "upstream_timeout", "message": "as told"}


def test_a_line_with_a_queue_timeout_has_expired() -> None:
    end = failed("queue_timeout", retryable=True)

    result, _ = answered(source(), meta(status=b"failed"), log(end))

    assert json.loads(result.raw) == json.loads(never_done(source(), EXPIRED).raw)


def test_a_cancelled_line_is_a_failure() -> None:
    result, end = answered(source(), meta(status=b"cancelled"), log(End("cancelled", "cancelled")))

    assert (result.code, result.status) == ("cancelled", "cancelled")
    assert pause_before_next_try(end, 0) is None


@pytest.mark.parametrize(
    ("endpoint", "status", "members"),
    [
        (CHAT, 400, {"message", "type", "param", "code"}),
        (NATIVE, 422, {"code", "message", "retryable"}),
    ],
)
def test_a_refusal_has_the_endpoints_shape(endpoint: str, status: int, members: set[str]) -> None:
    result = refused(source(endpoint), request_error("invalid_request", "no such thing"))

    row = json.loads(result.raw)
    assert row["response"]["status_code"] == status
    assert row["response"]["body"]["error"].keys() == members
    assert not result.is_good


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (CHAT, {name: value for name, value in UPSTREAM.items() if name != "status"}),
        (NATIVE, {**REFUSED, "upstream": UPSTREAM}),
    ],
)
def test_a_line_that_the_model_server_refused_has_the_servers_error(
    endpoint: str, body: dict[str, Any]
) -> None:
    failure = msgspec.convert({**REFUSED, "upstream": UPSTREAM}, Failure)
    end = End("failed", "error", error=failure)

    result, _ = answered(source(endpoint), meta(status=b"failed"), log(end))

    row = json.loads(result.raw)
    assert row["response"]["status_code"] == 400
    assert row["response"]["body"]["error"] == body
    assert row["error"] == {"code": UPSTREAM["code"], "message": UPSTREAM["message"]}
    assert (result.code, result.status) == (UPSTREAM["code"], "failed")


def test_a_line_that_was_never_done_has_no_response() -> None:
    row = json.loads(never_done(source(), EXPIRED).raw)

    assert row["response"] is None
    assert row["error"]["code"] == "batch_expired"


def test_the_id_of_a_result_is_derived() -> None:
    names = {json.loads(never_done(source(), EXPIRED).raw)["id"] for _ in range(2)}
    other = json.loads(never_done(source()._replace(line=8), EXPIRED).raw)["id"]

    assert len(names) == 1 and other not in names


@pytest.mark.parametrize(
    ("end", "is_again"),
    [
        (failed("worker_lost", retryable=True), True),
        (failed("upstream_error", retryable=True), True),
        (failed("upstream_refused", retryable=False), False),
        (failed("attempts_exhausted", retryable=True), False),
        (failed("queue_timeout", retryable=True), False),
        (DONE, False),
    ],
)
def test_a_retryable_failure_is_tried_again(end: End, is_again: bool) -> None:
    assert (pause_before_next_try(end, 0) is not None) == is_again


def test_tries_have_pauses_and_an_end() -> None:
    end = failed("worker_lost", retryable=True)
    pauses = [pause_before_next_try(end, tries) for tries in range(TRIES_MAX)]

    assert pauses == [0.5, 1.0, None]


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES, NATIVE])
def test_usage_details_do_not_change_the_counts_of_a_line(endpoint: str) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 1}}
    end = End("completed", "stop", usage=Counts(1, 2, 3, details))

    result, _ = answered(source(endpoint), meta(), log(end))

    assert result.usage == (1, 2, 3)
