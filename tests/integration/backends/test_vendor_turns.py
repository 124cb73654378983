"""Conversations with tools over a node, a worker and a server of each vendor's wire.

The scripted servers refuse what the vendors refuse: a call that has lost the thought before it, and
a signature that is not theirs. So an answer after a tool call proves the way back of the thoughts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import msgspec
import openai
import pytest

from tests.support.kinds import TRIED
from tests.support.processes import Deployment
from tests.support.sdk import sdk
from tests.support.upstream import Upstream
from tests.support.upstream_script import Script, expected_text
from workers.backends.vendor.chat import object_in

VENDORS = ("anthropic", "gemini", "responses")
TABLE = """
[models."gemini-3-{name}"]
backend = "{name}"
base_url = "{url}"
"""
PROMPT = msgspec.json.encode({"tokens": 3, "reasoning": 2, "tool_call": True}).decode()
TEXT = expected_text(PROMPT, Script(tokens=3))
FUNCTION = {
    "name": "look_up",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
}
# What a client sends so that the model thinks.
THINKING: dict[str, dict[str, Any]] = {
    "anthropic": {"thinking": {"type": "enabled", "budget_tokens": 2_000}},
    "gemini": {},
    "responses": {},
}


@pytest.fixture(scope="module")
async def servers() -> AsyncIterator[dict[str, Upstream]]:
    async with AsyncExitStack() as stack:
        found = {}
        for name in VENDORS:
            server = await stack.enter_async_context(TRIED[name].serve())
            assert isinstance(server, Upstream)
            found[name] = server
        yield found


@pytest.fixture(scope="module")
async def deployment(servers: dict[str, Upstream]) -> AsyncIterator[Deployment]:
    tables = [TABLE.format(name=name, url=server.base_url) for name, server in servers.items()]
    async with Deployment(api=1, workers=1, models="".join(tables)) as deployment:
        yield deployment


@pytest.fixture
async def client(deployment: Deployment) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(f"{deployment.urls[0]}/v1") as client:
        yield client


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("vendor", VENDORS)
async def test_chat_completions_with_a_tool(
    client: openai.AsyncOpenAI, servers: dict[str, Upstream], vendor: str, is_streamed: bool
) -> None:
    asked: dict[str, Any] = {
        "model": f"gemini-3-{vendor}",
        "tools": [{"type": "function", "function": FUNCTION}],
        "extra_body": THINKING[vendor],
        "reasoning_effort": "high",
    }
    messages: list[Any] = [{"role": "user", "content": PROMPT}]
    if is_streamed:
        message = await streamed(client, messages, asked)
    else:
        answer = await client.chat.completions.create(messages=messages, **asked)
        assert answer.choices[0].finish_reason == "tool_calls"
        message = answer.choices[0].message.to_dict()
    (call,) = message["tool_calls"]
    assert object_in(call["function"]["arguments"], "x") == {"query": "流"}
    result = {"role": "tool", "tool_call_id": call["id"], "content": "found"}

    answer = await client.chat.completions.create(messages=[*messages, message, result], **asked)

    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    # Without the thoughts a worker would leave it out, because the vendor would refuse it.
    assert ("thinking" in servers[vendor].calls[-1].body) is (vendor == "anthropic")


async def streamed(
    client: openai.AsyncOpenAI, messages: list[Any], asked: dict[str, Any]
) -> dict[str, Any]:
    """Return the message of a stream, joined as docs/protocol.md says."""
    message: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": []}
    stream = await client.chat.completions.create(messages=messages, stream=True, **asked)
    async for chunk in stream:
        delta = chunk.choices[0].delta.to_dict() if chunk.choices else {}
        message["content"] += delta.get("content") or ""
        if "reasoning_details" in delta:
            message.setdefault("reasoning_details", []).extend(delta["reasoning_details"])
        for piece in delta.get("tool_calls") or ():
            if piece.get("id"):
                message["tool_calls"].append(piece)
            else:
                arguments = piece["function"]["arguments"]
                message["tool_calls"][-1]["function"]["arguments"] += arguments
    return message


@pytest.mark.parametrize("is_named", [False, True], ids=["whole input", "previous response"])
@pytest.mark.parametrize("vendor", VENDORS)
async def test_responses_with_a_tool(
    client: openai.AsyncOpenAI, servers: dict[str, Upstream], vendor: str, is_named: bool
) -> None:
    asked: dict[str, Any] = {
        "model": f"gemini-3-{vendor}",
        "tools": [{"type": "function", **FUNCTION}],
        "extra_body": THINKING[vendor],
        "reasoning": {"effort": "high", "summary": "auto"},
    }
    question: list[Any] = [{"role": "user", "content": PROMPT}]
    async with client.responses.stream(input=question, **asked) as stream:
        first = await stream.get_final_response()
    call = first.output[-1]
    assert call.type == "function_call"
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "found"}

    if is_named:
        asked["previous_response_id"] = first.id
        second = await client.responses.create(input=[result], **asked)  # type: ignore[list-item]
    else:
        items = [item.to_dict() for item in first.output]
        second = await client.responses.create(input=[*question, *items, result], **asked)

    assert second.output_text == TEXT
    assert second.status == "completed"
    assert ("thinking" in servers[vendor].calls[-1].body) is (vendor == "anthropic")


async def test_a_client_that_loses_the_thoughts_gets_an_answer_without_thinking(
    client: openai.AsyncOpenAI, servers: dict[str, Upstream]
) -> None:
    call = {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages: list[Any] = [
        {"role": "user", "content": PROMPT},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "found"},
    ]
    answer = await client.chat.completions.create(
        model="gemini-3-anthropic", messages=messages, extra_body=THINKING["anthropic"]
    )

    assert answer.choices[0].message.content == TEXT
    assert "thinking" not in servers["anthropic"].calls[-1].body


@pytest.mark.parametrize("vendor", VENDORS)
async def test_ui_messages_of_the_ai_sdk_with_a_tool(
    deployment: Deployment, servers: dict[str, Upstream], vendor: str
) -> None:
    body: dict[str, Any] = {
        "model": f"gemini-3-{vendor}",
        "params": {
            "tools": [{"type": "function", "function": FUNCTION}],
            "reasoning_effort": "high",
            **THINKING[vendor],
        },
    }
    question = {"role": "user", "parts": [{"type": "text", "text": PROMPT}]}
    parts = await ui_parts(deployment, body | {"messages": [question]})
    assert parts[-1]["input"] == {"query": "流"}
    parts[-1] |= {"state": "output-available", "output": "found"}
    said = {"id": "m", "role": "assistant", "parts": parts}

    last = await ui_parts(deployment, body | {"messages": [question, said]})

    assert [part["text"] for part in last if part["type"] == "text"] == [TEXT]
    assert ("thinking" in servers[vendor].calls[-1].body) is (vendor == "anthropic")


async def ui_parts(deployment: Deployment, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of a UI message, as version 7 of the AI SDK makes them of the chunks."""
    parts: list[dict[str, Any]] = []
    async with httpx2.AsyncClient(base_url=deployment.urls[0], timeout=20) as http:
        answer = await http.post("/ai-sdk/chat", json=body)
    assert answer.status_code == 200, answer.text
    for line in answer.text.split("\n\n"):
        data = line.removeprefix("data: ")
        chunk = msgspec.json.decode(data) if data.startswith("{") else {"type": ""}
        kind, _, what = chunk["type"].rpartition("-")
        match what:
            case "start" if kind in ("text", "reasoning"):
                parts.append({"type": kind, "text": ""})
            case "delta" if kind in ("text", "reasoning"):
                parts[-1]["text"] += chunk["delta"]
            case "end" if "providerMetadata" in chunk:
                parts[-1]["providerMetadata"] = chunk["providerMetadata"]
            case "available":
                part = {"type": f"tool-{chunk['toolName']}", "toolCallId": chunk["toolCallId"]}
                back = {"callProviderMetadata": chunk.get("providerMetadata")}
                parts.append({**part, "input": chunk["input"], **back})
    return parts
