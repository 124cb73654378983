"""OpenAI's SDK for Python over the transports of `tailrace_client`, on broken networks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI, NotFoundError, OpenAI

from tailrace_client.openai import AsyncResumingTransport, ResumingTransport
from tests.support.demo import demo_body, expected_text
from tests.support.processes import Deployment
from tests.support.scenario_proxy import Faults, ScenarioProxy

MESSAGES = [{"role": "user", "content": "tell me"}]
PARAMS: dict[str, Any] = demo_body(120, 60)["params"]
FAULTS = {
    "cuts": Faults(cut_bytes=3_000, cuts=4),
    "a proxy that refuses": Faults(answers=[502, 503]),
    "a stall": Faults(stall_bytes=4_000, stalls=1),
}


@pytest.fixture(scope="module")
async def nodes() -> AsyncIterator[Deployment]:
    async with Deployment(api=2, workers=1, settings={"heartbeat_s": "1"}) as deployment:
        yield deployment


def jitter() -> float:
    return 0.1


async def ask_async(url: str, **body: Any) -> tuple[str, str, list[str]]:
    """Return the generation, the text and the finish reasons."""
    http = httpx2.AsyncClient(transport=AsyncResumingTransport(random=jitter))
    async with AsyncOpenAI(base_url=url, api_key="none", http_client=http, max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="demo", messages=MESSAGES, stream=True, **body
        )
        chunks = [chunk async for chunk in stream]
    return read(chunks)


def ask(url: str, **body: Any) -> tuple[str, str, list[str]]:
    http = httpx2.Client(transport=ResumingTransport(random=jitter))
    with OpenAI(base_url=url, api_key="none", http_client=http, max_retries=0) as client:
        chunks = list(
            client.chat.completions.create(model="demo", messages=MESSAGES, stream=True, **body)
        )
    return read(chunks)


def read(chunks: list[Any]) -> tuple[str, str, list[str]]:
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    text = "".join(choice.delta.content or "" for choice in choices)
    return chunks[0].id, text, [each.finish_reason for each in choices if each.finish_reason]


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_chat_completion_does_not_notice_the_network(
    nodes: Deployment, kind: str, name: str
) -> None:
    async with ScenarioProxy([role.port for role in nodes.api], FAULTS[name]) as proxy:
        url, body = f"{proxy.url}/v1", {"extra_body": PARAMS}
        if kind == "async":
            generation_id, text, finishes = await ask_async(url, **body)
        else:
            generation_id, text, finishes = await asyncio.to_thread(ask, url, **body)

    assert text == expected_text({"messages": MESSAGES, "params": PARAMS}, generation_id)
    assert finishes == ["stop"]
    assert proxy.connections > 1


async def test_a_refusal_of_the_node_reaches_the_sdk(nodes: Deployment) -> None:
    http = httpx2.AsyncClient(transport=AsyncResumingTransport())
    url = f"{nodes.urls[0]}/v1"
    async with AsyncOpenAI(base_url=url, api_key="none", http_client=http) as client:
        with pytest.raises(NotFoundError):
            await client.chat.completions.create(model="nobody", messages=MESSAGES, stream=True)
