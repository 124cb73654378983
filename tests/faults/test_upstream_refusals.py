"""A model server that refuses a request, or cannot be reached: what a native client is told.

The client gets the server's own status and code, and never an address. The worker's log has the
address.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.faulty_ports import closed_port
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient
from tests.support.upstream import Upstream

MODELS = """
[models.refusing]
backend = "openai"
base_url = "{url}"

[models.nowhere]
backend = "openai"
base_url = "http://127.0.0.1:{port}/v1"
"""
VLLM = {
    "object": "error", "type": "BadRequestError", "param": "input_tokens", "code": 400,
    "message": "This model's maximum context length is 256 tokens.",
}  # fmt: skip
QUOTA = {
    "error": {"message": "You exceeded your current quota", "type": "insufficient_quota",
              "param": None, "code": "insufficient_quota"}
}  # fmt: skip


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture(scope="module")
async def deployment(upstream: Upstream) -> AsyncIterator[Deployment]:
    with closed_port() as port:
        models = MODELS.format(url=upstream.base_url, port=port)
        settings = {"attempts_max": "2", "upstream_outage_s": "1"}
        async with Deployment(api=1, workers=1, models=models, settings=settings) as deployment:
            yield deployment


async def error_of(deployment: Deployment, model: str) -> dict[str, Any]:
    """Let the model answer; return the error of the end, which is the same everywhere."""
    async with RawClient(deployment.urls[0]) as api:
        generation_id = await api.start({"prompt": "x", "model": model})
        await api.ended(generation_id)
        snapshot = (await api.get(f"/v1/generations/{generation_id}")).json()
        streamed = (await api.events(generation_id, "", "text/event-stream")).events[-1]
    assert streamed.type == "end"
    assert streamed.fields["error"] == snapshot["error"]
    error: dict[str, Any] = snapshot["error"]
    return error


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (
            400, VLLM,
            {"message": VLLM["message"], "status": 400, "code": "context_length_exceeded",
             "type": "BadRequestError", "param": "input_tokens"},
        ),
        (
            429, QUOTA,
            {"message": "You exceeded your current quota", "status": 429,
             "code": "insufficient_quota", "type": "insufficient_quota"},
        ),
        (422, {"detail": [{"loc": ["body", "top_k"], "msg": "at least 1", "input": -5}]},
         {"message": "top_k: at least 1", "status": 422, "param": "top_k"}),
    ],
    ids=["too long", "no quota", "invalid"],
)  # fmt: skip
async def test_a_refusal_reaches_the_client_with_its_status_and_code_after_one_attempt(
    deployment: Deployment, upstream: Upstream, status: int, body: Any, expected: dict[str, Any]
) -> None:
    upstream.refusal, upstream.refusal_status = json.dumps(body).encode(), status
    calls = len(upstream.calls)

    error = await error_of(deployment, "refusing")

    assert error["upstream"] == expected
    assert (error["code"], error["retryable"]) == ("upstream_refused", False)
    assert len(upstream.calls) == calls + 1


async def test_a_client_of_openais_api_gets_the_code_by_which_it_shortens_its_history(
    deployment: Deployment, upstream: Upstream
) -> None:
    upstream.refusal, upstream.refusal_status = json.dumps(VLLM).encode(), 400
    body = {"model": "refusing", "messages": [{"role": "user", "content": "x"}]}
    async with RawClient(deployment.urls[0]) as api:
        answer = await api.call("POST", "/v1/chat/completions", body=body)

    error = answer.json()["error"]
    assert (answer.status, error["code"]) == (400, "context_length_exceeded")
    assert (error["message"], error["param"]) == (VLLM["message"], "input_tokens")


async def test_a_key_that_the_server_refuses_is_for_the_operator_only(
    deployment: Deployment, upstream: Upstream
) -> None:
    said = "Incorrect API key of organization org-7"
    upstream.refusal = json.dumps({"error": {"message": said, "code": "invalid_api_key"}}).encode()
    upstream.refusal_status = 401

    error = await error_of(deployment, "refusing")

    assert "upstream" not in error and "org-7" not in error["message"]
    assert error["code"] == "upstream_refused" and "401" in error["message"]
    assert "org-7" in deployment.workers[0].output.read_text()


async def test_an_address_is_in_the_workers_log_and_not_in_the_clients_message(
    deployment: Deployment,
) -> None:
    error = await error_of(deployment, "nowhere")

    assert error["code"] == "attempts_exhausted"
    assert error["message"].endswith("the backend cannot be reached: it refuses the connection")
    assert not re.search(r"127\.0\.0\.1|localhost|:\d{2,5}", error["message"])
    log = deployment.workers[0].output.read_text()
    assert "model server unusable" in log
    assert re.search(r"no server listens at 127\.0\.0\.1:\d+: start it", log)
