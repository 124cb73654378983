"""The recorded streams of the vendors are their real wire: the official SDKs read them, too.

Each SDK reads the bytes with its own stream decoder and types, and finds what our reader finds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import msgspec
import openai
import pytest
from anthropic.types import RawMessageStreamEvent
from google.genai import types as gemini
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from shared.log.events import Reasoning, Token, ToolCall
from tests.support import anthropic_streams, gemini_streams, responses_streams
from tests.support.openai_streams import Recorded
from workers.backends.reading.sse_lines import SseLines

MESSAGES: list[Any] = [{"role": "user", "content": "x"}]


def said(recorded: Recorded, kind: type[Token] | type[Reasoning]) -> str:
    return "".join(item.text for item in recorded.items if isinstance(item, kind))


def calls(recorded: Recorded) -> list[tuple[str, object]]:
    found: dict[int, list[str]] = {}
    for item in recorded.items:
        if isinstance(item, ToolCall):
            name, arguments = found.setdefault(item.index, ["", ""])
            found[item.index] = [name + item.name, arguments + item.arguments]
    return [(name, msgspec.json.decode(arguments)) for name, arguments in found.values()]


def answering(raw: bytes) -> httpx2.Client:
    """Return an HTTP client that gets `raw` as the answer to each request."""
    headers = {"content-type": "text/event-stream"}
    return httpx2.Client(
        transport=httpx2.MockTransport(lambda _: httpx2.Response(200, content=raw, headers=headers))
    )


def payloads(raw: bytes) -> Iterator[bytes]:
    for event in SseLines(1_000_000).feed(raw):
        yield event.data


@pytest.mark.parametrize("name", ["text", "tools", "refusal", "server_tool"])
def test_the_sdk_of_anthropic_reads_the_same_answer(name: str) -> None:
    recorded = anthropic_streams.ALL[name]
    with (
        answering(recorded.raw) as http,
        anthropic.Anthropic(api_key="k", http_client=http) as client,
        client.messages.stream(model="m", max_tokens=9, messages=MESSAGES) as stream,
    ):
        message = stream.get_final_message()

    blocks = message.content
    assert "".join(b.text for b in blocks if b.type == "text") == said(recorded, Token)
    assert "".join(b.thinking for b in blocks if b.type == "thinking") == said(recorded, Reasoning)
    assert [(b.name, b.input) for b in blocks if b.type == "tool_use"] == calls(recorded)


def test_the_sdk_of_anthropic_reads_the_error() -> None:
    with (
        answering(anthropic_streams.OVERLOADED.raw) as http,
        anthropic.Anthropic(api_key="k", http_client=http, max_retries=0) as client,
        pytest.raises(anthropic.APIStatusError, match="Overloaded"),
        client.messages.stream(model="m", max_tokens=9, messages=MESSAGES) as stream,
    ):
        stream.until_done()


@pytest.mark.parametrize("name", anthropic_streams.ALL)
def test_each_event_of_anthropic_has_a_type_of_the_sdk(name: str) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    for payload in payloads(anthropic_streams.ALL[name].raw):
        if msgspec.json.decode(payload)["type"] not in ("ping", "error"):  # the SDK skips these
            adapter.validate_json(payload)


@pytest.mark.parametrize("name", ["text", "tools", "blocked", "safety", "picture"])
def test_the_types_of_gemini_read_the_same_answer(name: str) -> None:
    recorded = gemini_streams.ALL[name]
    answers = [
        gemini.GenerateContentResponse.model_validate_json(p) for p in payloads(recorded.raw)
    ]
    parts = [
        part
        for answer in answers
        for candidate in answer.candidates or ()
        for part in (candidate.content.parts if candidate.content else None) or ()
    ]

    assert "".join(p.text or "" for p in parts if not p.thought) == said(recorded, Token)
    assert "".join(p.text or "" for p in parts if p.thought) == said(recorded, Reasoning)
    functions = [part.function_call for part in parts if part.function_call]
    assert [(f.name, f.args) for f in functions] == calls(recorded)
    assert all(set(answer.model_extra or ()) == set() for answer in answers)


@pytest.mark.parametrize("name", ["text", "tools", "refusal", "incomplete", "rich"])
def test_the_sdk_of_openai_reads_the_same_response(name: str) -> None:
    recorded = responses_streams.ALL[name]
    with (
        answering(recorded.raw) as http,
        openai.OpenAI(api_key="k", http_client=http) as client,
    ):
        events = list(client.responses.create(model="m", input="x", stream=True))

    texts = [event.delta for event in events if event.type == "response.output_text.delta"]
    refusals = [event.delta for event in events if event.type == "response.refusal.delta"]
    assert "".join(texts + refusals) == said(recorded, Token).replace("\n\n", "")
    adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    for payload in payloads(recorded.raw):
        adapter.validate_json(payload)
