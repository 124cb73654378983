"""A model that refuses: OpenAI's SDK finds the refusal, where it asked for a form of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import openai
import pytest
from pydantic import BaseModel

from tests.support.processes import Deployment
from tests.support.sdk import HELLO, sdk
from tests.support.upstream import Upstream

TABLE = """
[models.refusing]
backend = "openai"
base_url = "{url}"
"""
REFUSAL = "I cannot help."
DELTAS = ({"role": "assistant"}, {"refusal": "I cannot"}, {"refusal": " help."})
CHUNKS: list[Any] = [
    *({"choices": [{"index": 0, "delta": delta}]} for delta in DELTAS),
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
]
STREAM = b"".join(b"data: %b\n\n" % msgspec.json.encode(chunk) for chunk in CHUNKS)


class City(BaseModel):
    name: str


@pytest.fixture(scope="module")
async def deployment() -> AsyncIterator[Deployment]:
    async with Upstream(raw=[STREAM, b"data: [DONE]\n\n"]) as upstream:
        models = TABLE.format(url=upstream.base_url)
        async with Deployment(api=1, workers=1, models=models) as deployment:
            yield deployment


@pytest.fixture
async def client(deployment: Deployment) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(f"{deployment.urls[0]}/v1") as client:
        yield client


async def test_a_parsed_chat_completion_has_the_refusal(client: openai.AsyncOpenAI) -> None:
    parsed = await client.chat.completions.parse(
        model="refusing", messages=HELLO, response_format=City
    )
    message = parsed.choices[0].message
    assert (message.refusal, message.content, message.parsed) == (REFUSAL, None, None)


async def test_a_streamed_chat_completion_has_the_refusal(client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.stream(
        model="refusing", messages=HELLO, response_format=City
    ) as stream:
        completion = await stream.get_final_completion()
    assert completion.choices[0].message.refusal == REFUSAL


async def test_a_parsed_response_has_the_refusal(client: openai.AsyncOpenAI) -> None:
    parsed = await client.responses.parse(model="refusing", input="tell me", text_format=City)
    item: Any = parsed.output[0]
    assert [(part.type, part.refusal) for part in item.content] == [("refusal", REFUSAL)]
    assert parsed.output_parsed is None
    async with client.responses.stream(
        model="refusing", input="tell me", text_format=City
    ) as stream:
        final: Any = await stream.get_final_response()
    assert final.output[0].content[0].refusal == REFUSAL
