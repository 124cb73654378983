"""A model server refuses the request: each dialect shows the server's own code and sentence.

The demo model refuses as it is told, so the tests need no model server.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.support.demo import demo_body
from tests.support.raw_client import RawClient, hear_until, tell
from tests.support.responses import ResponseEvents, hear
from tests.support.sdk import HELLO, listen, sdk

SENTENCE = "This model's maximum context length is 8192 tokens."
REFUSAL = {
    "message": SENTENCE,
    "status": 400,
    "code": "context_length_exceeded",
    "type": "invalid_request_error",
    "param": "messages",
}
QUOTA = {"message": "No credit left.", "status": 429, "code": "insufficient_quota"}


def refusing(at: int = 0, refusal: dict[str, Any] = REFUSAL) -> dict[str, Any]:
    """The controls of a demo model that refuses after `at` tokens."""
    return {
        "tokens": 5,
        "tokens_per_s": 0,
        "fail_at": at,
        "fail_always": True,
        "fail_retryable": False,
        "fail_code": "upstream_refused",
        "fail_upstream": refusal,
    }


def told(at: int = 0, refusal: dict[str, Any] = REFUSAL) -> dict[str, Any]:
    return {"demo": refusing(at, refusal)}


@pytest.fixture
async def client(api: RawClient) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(f"{api.url}/v1", api.key) as client:
        yield client


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
async def test_a_chat_completion_is_refused_as_the_server_refused(
    client: openai.AsyncOpenAI, is_stream: bool
) -> None:
    asked: Any = {"model": "demo", "messages": HELLO, "extra_body": told()}
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(**asked, stream=is_stream)

    error = caught.value
    assert (error.code, error.type, error.param) == (
        "context_length_exceeded",
        "invalid_request_error",
        "messages",
    )
    assert error.body["message"] == SENTENCE  # type: ignore[index]
    assert error.response.headers["x-generation-id"]


async def test_an_exhausted_quota_is_429_and_is_not_repeated(api: RawClient) -> None:
    async with sdk(f"{api.url}/v1", api.key, retries=2) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(
                model="demo", messages=HELLO, extra_body=told(refusal=QUOTA)
            )

    assert caught.value.code == "insufficient_quota"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert caught.value.response.request.headers["x-stainless-retry-count"] == "0"


async def test_a_refusal_in_mid_stream_is_an_error_with_the_servers_members(
    client: openai.AsyncOpenAI,
) -> None:
    stream = await client.chat.completions.create(
        model="demo", messages=HELLO, stream=True, extra_body=told(3)
    )
    heard = await listen(stream)

    assert heard.text
    assert heard.error is not None and heard.error.code == "context_length_exceeded"
    assert (heard.error.type, heard.error.param) == ("invalid_request_error", "messages")
    assert heard.error.message == SENTENCE


async def test_a_response_is_refused_as_the_server_refused(client: openai.AsyncOpenAI) -> None:
    for is_stream in (False, True):
        asked: Any = {"model": "demo", "input": "tell me", "extra_body": told()}
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(**asked, stream=is_stream)
        assert caught.value.code == "context_length_exceeded"

    background = await client.responses.create(
        model="demo", input="tell me", background=True, stream=True, extra_body=told()
    )
    events = ResponseEvents()
    with pytest.raises(openai.APIError) as shown:
        await hear(background, told=events)
    assert (shown.value.code, shown.value.param) == ("context_length_exceeded", "messages")
    stored = await client.responses.retrieve(events.id)
    assert stored.error is not None
    assert (stored.error.code, stored.error.message) == ("context_length_exceeded", SENTENCE)


async def test_the_native_end_has_the_refusal(api: RawClient) -> None:
    body = demo_body(5, 0)
    body["params"]["demo"] = refusing()
    generation_id = await api.finished(body)

    snapshot = await api.ended(generation_id)
    log = await api.log(generation_id)

    assert snapshot["error"]["upstream"] == REFUSAL
    assert snapshot["error"]["code"] == "upstream_refused"
    assert log[-1].fields["error"] == snapshot["error"]


async def test_people_of_a_chat_page_read_the_servers_sentence(api: RawClient) -> None:
    messages = [{"role": "user", "text": "tell me"}]
    body = {"model": "demo", "messages": messages, "params": told()}

    whole = await api.call("POST", "/deep-chat", body=body)

    assert (whole.status, whole.json()) == (400, {"error": SENTENCE})
    assert whole.headers["x-generation-id"]


async def test_a_socket_of_lobe_has_the_servers_code(api: RawClient) -> None:
    start = {"prompt": "tell me", "sessionId": "s", "messageId": f"m-{uuid.uuid4()}"}
    async with api.socket(path="/lobe/ws", subprotocols=None) as socket:
        await tell(socket, type="startConversation", model="demo", params=told(), **start)
        frames = await hear_until(socket, "end")

    error = frames[-2]
    assert (error["type"], error["code"]) == ("error", "context_length_exceeded")
    assert (error["message"], error["retryable"]) == (SENTENCE, False)
