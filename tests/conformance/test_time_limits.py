"""A deadline ends the answer in each dialect with its own error, and what was written stays."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.demo import demo_body
from tests.support.raw_client import RawClient, hear_until, tell

HEADER = {"x-request-timeout": "1"}
SLOW: dict[str, Any] = {"tokens": 10_000, "tokens_per_s": 20, "first_token_s": 0}
MESSAGES = [{"role": "user", "content": "Hi"}]
UI_MESSAGES = [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}]


async def test_a_native_stream_ends_with_the_code_and_keeps_its_text(api: RawClient) -> None:
    body = demo_body(10_000, 20) | {"deadline_s": 1}

    answer = await api.post(body, headers={"Accept": "text/event-stream"})

    *events, end = answer.events
    assert (end.type, end.fields["status"]) == ("end", "failed")
    assert end.fields["error"]["code"] == "deadline_exceeded"
    assert end.fields["error"]["retryable"] is False
    assert end.fields["usage"]["completion_tokens"] > 0
    snapshot = (await api.get(f"/v1/generations/{answer.headers['X-Generation-Id']}")).json()
    text = "".join(event.fields["text"] for event in events if event.type == "token")
    assert snapshot["text"] == text != ""
    assert snapshot["error"]["code"] == "deadline_exceeded"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_a_whole_answer_of_openais_dialects_is_504_and_is_not_repeated(
    api: RawClient, path: str
) -> None:
    prompt = {"messages": MESSAGES} if "chat" in path else {"input": "Hi"}

    answer = await api.call(
        "POST", path, body={"model": "demo", "demo": SLOW} | prompt, headers=HEADER
    )

    assert answer.status == 504, answer.body
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES, "stream": True, "demo": SLOW}),
        ("/v1/responses", {"input": "Hi", "stream": True, "demo": SLOW}),
        ("/ai-sdk/chat", {"id": "c", "messages": UI_MESSAGES, "params": {"demo": SLOW}}),
    ],
    ids=["chat", "responses", "ai-sdk"],
)
async def test_a_stream_of_a_dialect_ends_with_its_error(
    api: RawClient, path: str, body: dict[str, Any]
) -> None:
    answer = await api.call("POST", path, body=body | {"model": "demo"}, headers=HEADER)

    assert answer.status == 200
    assert b"not done within 1 s" in answer.body, answer.body[-500:]
    assert not answer.is_broken


async def test_a_start_on_a_socket_has_the_members(api: RawClient) -> None:
    async with api.socket() as socket:
        await tell(socket, type="start", **demo_body(10_000, 20), deadline_s=1)
        end = (await hear_until(socket, "end"))[-1]
        await tell(socket, type="start", ref="r", **demo_body(1, 0), deadline_s=0)
        error = (await hear_until(socket, "error"))[-1]

    assert end["error"]["code"] == "deadline_exceeded"
    assert (error["ref"], error["code"]) == ("r", "invalid_request")
