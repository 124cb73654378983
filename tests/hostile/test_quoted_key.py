"""A model server that quotes the key which it was sent, in every place where it can say something.

Clients are shown errors of a backend, and so are logs: neither may have the key, or a half of it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from tests.hostile.conftest import OwnDeployment
from tests.support.processes import Deployment, Role
from tests.support.raw_client import RawClient
from tests.support.upstream import Upstream
from tests.support.wait import until

KEY = "Zq7Rr-4cT.of-no-known-form_8812"  # nothing but that it is known gives it away
PASSWORD = "pw-Of-The-Url-99"
CHUNK = {"choices": [{"index": 0, "delta": {"content": "Well"}}]}


def event(data: object, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def error(message: str) -> dict[str, object]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": 400}}


SAID = f"Incorrect API key provided: {KEY}."
STREAMS = {
    "an error object": event(error(SAID)),
    "after a piece of the answer": event(CHUNK) + event(error(SAID)),
    "an error event": event({"message": SAID, "type": "invalid_request_error"}, "error"),
    "an error field": b'error: {"message":"%b","type":"BadRequestError"}\n\n' % SAID.encode(),
    "an error event that is no JSON": b"event: error\ndata: " + SAID.encode() + b"\n\n",
    "the error of a choice": event({"choices": [{"index": 0, "error": error(SAID)["error"]}]}),
    "an error without a message": event({"error": {"headers": {"x-api-key": KEY}}}),
    "in other letters": event(error(SAID.upper())),
    "cut by the server": event(error(f"key {KEY[:16]}... is not known")),
    "where a message is cut": event(error("x" * 480 + " " + KEY)),
    "as a code": event({"error": {"message": "no", "code": KEY, "type": "BadRequestError"}}),
    "as a finish reason": event({"choices": [{"index": 0, "finish_reason": KEY}]}),
    "a broken line": event(CHUNK) + f'data: {{"key":"{KEY}\n\n'.encode(),
    "a bearer token of somebody else's": event(error("Bearer Zq7Rr-other is not valid")),
    "a URL with a password": event(error(f"http://me:{PASSWORD}@10.0.0.1/v1: Zq7Rr-4c")),
}


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
async def quoting(own_deployment: OwnDeployment, upstream: Upstream) -> AsyncIterator[Deployment]:
    """A deployment with a model that has `KEY`, and a model whose URL has `PASSWORD`."""
    place = upstream.base_url.removeprefix("http://")
    models = (
        f'[models.quotes]\nbase_url = "http://{place}"\napi_key_env = "QUOTED_KEY"\n'
        f'[models.basic]\nbase_url = "http://me:{PASSWORD}@{place}"\n'
    )
    settings = {"attempts_max": "1"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUOTED_KEY", KEY)
        async with own_deployment(api=1, workers=1, models=models, settings=settings) as deployment:
            yield deployment


async def shown(deployment: Deployment, model: str = "quotes") -> str:
    """Let the model answer twice, and return all answers to clients and all logs."""
    (worker,) = deployment.workers
    left = attempts_left(worker)
    async with RawClient(deployment.urls[0]) as api:
        body = {"prompt": "x", "model": model}
        generation_id = await api.start(body)
        await api.ended(generation_id)
        answers = [
            await api.get(f"/v1/generations/{generation_id}"),
            await api.events(generation_id, "", "text/event-stream"),
            await api.get(f"/v1/responses/{generation_id.replace('gen_', 'resp_')}"),
            await api.call(
                "POST", "/v1/chat/completions",
                body={"model": model, "messages": [{"role": "user", "content": "x"}]},
            ),
        ]  # fmt: skip
    # A worker writes its line about an attempt after clients have the end.
    await until(lambda: attempts_left(worker) == left + 2, 10, "the lines of both generations")
    logs = [role.output.read_text() for role in deployment.roles]
    return "\n".join([answer.body.decode() for answer in answers] + logs)


def attempts_left(worker: Role) -> int:
    return worker.output.read_text().count("generation left")


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_that_quotes_the_key_reaches_nobody_unmasked(
    quoting: Deployment, upstream: Upstream, name: str
) -> None:
    upstream.raw, upstream.refusal = [STREAMS[name]], b""

    said = await shown(quoting)

    assert "Zq7Rr" not in said.replace("ZQ7RR", "Zq7Rr") and PASSWORD not in said


@pytest.mark.parametrize("body", [json.dumps(error(SAID)), SAID, "x " * 240 + SAID])
async def test_a_refusal_that_quotes_the_key_reaches_nobody_unmasked(
    quoting: Deployment, upstream: Upstream, body: str
) -> None:
    upstream.refusal = body.encode()

    said = await shown(quoting)

    assert "401" in said
    assert "Zq7Rr" not in said


async def test_a_refusal_that_quotes_credentials_of_a_url_reaches_nobody_unmasked(
    quoting: Deployment, upstream: Upstream
) -> None:
    encoded = "bWU6cHctT2YtVGhlLVVybC05OQ=="  # me:… in base64, as it was sent
    upstream.refusal = f"not allowed: {encoded}, that is {PASSWORD}".encode()

    said = await shown(quoting, "basic")

    assert "not allowed" in said
    assert encoded not in said and PASSWORD not in said
