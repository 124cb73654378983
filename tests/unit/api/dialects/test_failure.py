"""What clients are told when a model server has refused the request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.dialects.failure import shown
from api.dialects.openai_errors import GenerationFailed, failure_object, openai_shape
from api.errors import send_error
from shared.errors import Refusal
from shared.log.events import Failure
from tests.support.recorded import REFUSAL

UPSTREAM = {
    "message": "This model's maximum context length is 8192 tokens.",
    "type": "invalid_request_error",
    "param": "messages",
    "code": "context_length_exceeded",
}
QUOTA = Refusal("No credit left.", status=429, code="insufficient_quota", type="insufficient_quota")


def refused(upstream: Refusal | None, *, is_retryable: bool = False) -> Failure:
    return Failure("upstream_refused", "the backend refused", is_retryable, upstream)


async def answered(failure: Failure) -> tuple[int, dict[str, Any], dict[bytes, bytes]]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await send_error(send, GenerationFailed(failure), openai_shape)
    error = json.loads(sent[1]["body"])["error"]
    return sent[0]["status"], error, dict(sent[0]["headers"])


async def test_an_openai_client_gets_the_servers_own_status_and_members() -> None:
    status, error, headers = await answered(refused(REFUSAL))

    assert (status, error) == (400, UPSTREAM)
    assert b"x-should-retry" not in headers
    assert failure_object(refused(REFUSAL)) == UPSTREAM


@pytest.mark.parametrize("is_retryable", [True, False])
async def test_an_exhausted_quota_is_429_and_is_not_repeated(is_retryable: bool) -> None:
    status, error, headers = await answered(refused(QUOTA, is_retryable=is_retryable))

    assert (status, error["code"], error["type"]) == (
        429,
        "insufficient_quota",
        "insufficient_quota",
    )
    assert headers[b"x-should-retry"] == b"false"


@pytest.mark.parametrize(
    ("upstream", "status", "code"),
    [
        (Refusal("m", status=404, code="model_gone"), 404, "model_gone"),
        (Refusal("m", status=422, code="bad"), 400, "bad"),  # OpenAI's clients get no 422
        (Refusal("m", status=413), 413, "upstream_refused"),
        (Refusal("m", code="context_length_exceeded"), 400, "context_length_exceeded"),
        (Refusal("m", status=402, type="insufficient_quota"), 429, "insufficient_quota"),
        (Refusal("m", status=401, code="invalid_api_key"), 502, "upstream_refused"),
        (Refusal("m", status=407), 502, "upstream_refused"),
        (Refusal("m", status=500, code="oops"), 502, "upstream_refused"),
        (None, 502, "upstream_refused"),
    ],
)
async def test_the_status_follows_the_refusal_if_it_is_about_the_request(
    upstream: Refusal | None, status: int, code: str
) -> None:
    found, error, _ = await answered(refused(upstream))

    assert (found, error["code"]) == (status, code)
    assert error["message"] == ("m" if found < 500 else "the backend refused")


async def test_a_refusal_without_a_type_has_the_type_of_its_status() -> None:
    _, error, _ = await answered(refused(Refusal("m", status=403)))

    assert error["type"] == "permission_error"


def test_people_read_the_servers_sentence() -> None:
    assert shown(refused(REFUSAL)).message == REFUSAL.message
    assert shown(refused(None)) == refused(None)
