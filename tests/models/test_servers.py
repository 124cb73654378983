"""Each real server behind Tailrace, from the prompt to the reader, with SmolLM2-135M.

The model is small and its answers are odd. What is compared is the same text twice, not its sense.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.support.client import Client
from tests.support.model_servers import LlamaServer, ModelServer, Record
from tests.support.processes import Deployment
from tests.support.wait import until

ANSWER_S = 180.0  # on a machine that does much else
QUESTION = "Why is the sky blue? Explain it in three paragraphs."
GREEDY = {"temperature": 0, "seed": 1}
SYSTEM = {
    "role": "system",
    "content": "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
}
MODELS = ("llama", "llama-text", "local", "litellm", "ollama")
SERVERS = ("llama", "litellm", "ollama")
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture(params=MODELS)
def name(
    request: pytest.FixtureRequest, deployment: Deployment, others: dict[str, ModelServer]
) -> str:
    if request.param in ("litellm", "ollama") and request.param not in others:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


class StartedAnswer:
    """One generation. `text` is what it had when it was last looked at."""

    def __init__(self, deployment: Deployment, client: Client, found: dict[str, Any]) -> None:
        self.id = str(found["id"])
        self.text = ""
        self.seen: dict[str, Any] = {}
        self._cluster, self._client = deployment, client

    async def look(self) -> dict[str, Any]:
        self.seen = await self._client.snapshot(self.id)
        self.text = self.seen["text"] or ""
        return self.seen

    async def said(self, characters: int) -> None:
        """Wait until the answer is so long."""

        async def is_long() -> bool:
            seen = await self.look()
            assert seen["status"] in ("queued", "running"), seen
            return len(self.text) >= characters

        await until(is_long, ANSWER_S, "a part of the answer")

    async def ended(self) -> dict[str, Any]:
        async def is_over() -> bool:
            return (await self.look())["status"] in ("completed", "failed", "cancelled")

        await until(is_over, ANSWER_S, "the end of the answer")
        return self.seen

    async def kinds(self) -> list[str]:
        """Return the type of each event."""
        url = f"{self._cluster.api[0].url}/v1/generations/{self.id}/events"
        headers = {"Accept": "application/x-ndjson"}
        async with aiohttp.ClientSession(headers=headers) as http, http.get(url) as response:
            lines = (await response.text()).splitlines()
        return [json.loads(line)["type"] for line in lines if line]


async def start(deployment: Deployment, client: Client, model: str, **params: Any) -> StartedAnswer:
    body = {
        "model": model,
        "messages": [SYSTEM, {"role": "user", "content": params.pop("prompt", QUESTION)}],
        "params": {**GREEDY, **params},
    }
    return StartedAnswer(deployment, client, await client.start(body))


@pytest.fixture
async def client(deployment: Deployment) -> Any:
    async with Client(deployment.urls, deadline_s=30) as client:
        yield client


async def whole(
    deployment: Deployment, client: Client, model: str, **params: Any
) -> dict[str, Any]:
    return await (await start(deployment, client, model, **params)).ended()


async def test_an_answer_ends_at_max_tokens_with_its_counts(
    deployment: Deployment, client: Client, name: str, record: Record
) -> None:
    seen = await whole(deployment, client, name, max_tokens=24)

    assert (seen["status"], seen["finish_reason"]) == ("completed", "length"), seen
    usage = seen["usage"]
    assert usage["completion_tokens"] == 24 and usage["prompt_tokens"] > 20
    record("`max_tokens` → `length`, usage", name, "yes")


async def test_an_answer_ends_before_a_stop_text(
    deployment: Deployment, client: Client, name: str, record: Record
) -> None:
    uncut = (await whole(deployment, client, name, max_tokens=24))["text"]
    stop = uncut.split()[6]
    seen = await whole(deployment, client, name, max_tokens=24, stop=[stop])

    assert seen["finish_reason"] == "stop" and seen["text"] == uncut[: uncut.find(stop)], seen
    record("`stop`", name, "yes")


async def test_a_request_with_tools_is_answered(
    deployment: Deployment, client: Client, name: str, record: Record
) -> None:
    seen = await whole(deployment, client, name, max_tokens=24, tools=[TOOL])

    if name == "llama-text":
        assert seen["error"]["code"] == "upstream_refused"
        record("tools are accepted", name, "refused (400)")
        return
    assert seen["status"] == "completed", seen
    record("tools are accepted", name, "yes, ignored" if name == "local" else "yes")


async def test_an_answer_at_temperature_0_is_that_of_the_server(
    deployment: Deployment, client: Client, llama: LlamaServer, others: dict[str, ModelServer],
    name: str, record: Record,
) -> None:  # fmt: skip
    seen = await whole(deployment, client, name, max_tokens=60)
    if name == "local":
        direct = (await whole(deployment, client, name, max_tokens=60))["text"]
    else:
        server = others.get(name, llama)
        messages = [SYSTEM, {"role": "user", "content": QUESTION}]
        body = {"model": "smollm2", "messages": messages, "max_tokens": 60, **GREEDY}
        if server is llama:
            body["cache_prompt"] = False
        direct = (await server.ask(body))["choices"][0]["message"]["content"]

    is_equal = seen["text"] == direct
    assert is_equal or name in ("litellm", "ollama"), (seen["text"], direct)
    record("equal to asking directly, temperature 0", name, "yes" if is_equal else "no")


async def test_a_prompt_that_is_too_long_is_said_so(
    deployment: Deployment, client: Client, name: str, record: Record
) -> None:
    seen = await whole(deployment, client, name, prompt="sky " * 9_000, max_tokens=8)

    error = seen["error"]
    if name == "ollama" and error is None:
        record("a prompt that is too long", name, "cut in silence")
        return
    assert error["code"] == "upstream_refused" and not error["retryable"], error
    code = (error.get("upstream") or {}).get("code")
    assert code == "context_length_exceeded", error
    record("a prompt that is too long", name, f"`{code}`")


@pytest.mark.parametrize("server", SERVERS)
async def test_an_unknown_model_is_said_so(
    deployment: Deployment,
    client: Client,
    others: dict[str, ModelServer],
    server: str,
    record: Record,
) -> None:
    if server != "llama" and server not in others:
        pytest.skip(f"{server} is not installed")
    seen = await whole(deployment, client, f"{server}-unknown", max_tokens=8)

    if server == "llama":  # it has one model, and reads no name
        assert seen["status"] == "completed", seen
        record("a model that the server does not have", server, "answers with its own")
        return
    error = seen["error"]
    assert error["code"] == "upstream_refused" and not error["retryable"], error
    status = (error.get("upstream") or {}).get("status")
    record("a model that the server does not have", server, f"refused ({status})")


async def test_a_cancelled_answer_stops_the_work_of_the_server(
    deployment: Deployment, client: Client, llama: LlamaServer, name: str, record: Record
) -> None:
    asked = await start(deployment, client, name, max_tokens=1_500)
    await asked.said(20)
    if name == "local":
        await client.cancel(asked.id)
        assert (await asked.ended())["status"] == "cancelled"
        # The pool has two processes: two answers end only if the cancelled one has stopped.
        first, second = [await start(deployment, client, name, max_tokens=8) for _ in range(2)]
        await asyncio.gather(first.ended(), second.ended())
        record("a cancel stops the work", name, "yes")
        return
    if name == "ollama":
        pytest.skip("Ollama does not say whether it computes")
    assert await llama.is_computing()
    clock = asyncio.get_running_loop().time
    began = clock()
    await client.cancel(asked.id)

    async def is_idle() -> bool:
        return not await llama.is_computing()

    await until(is_idle, 10, "the server to stop")
    record("a cancel stops the work", name, f"after {clock() - began:.1f} s")
    assert (await asked.ended())["status"] == "cancelled"


async def test_a_worker_that_is_killed_costs_no_text(
    deployment: Deployment, client: Client, name: str, record: Record
) -> None:
    """`on_takeover = "auto"`, after the trial of the doctor."""
    uncut = (await whole(deployment, client, name, max_tokens=80))["text"]
    outcomes = []
    for characters in (40, 120, 220):
        asked = await start(deployment, client, name, max_tokens=80)
        await asked.said(characters)
        deployment.workers[0].kill()
        deployment.workers[0].start()
        await deployment.ready(deployment.workers)
        seen = await asked.ended()
        assert seen["status"] == "completed" and seen["attempt"] >= 2, seen
        kinds = await asked.kinds()
        outcomes.append((_alike(seen["text"], uncut), kinds.count("reset")))

    if name == "local":
        assert outcomes == [("equal", 0)] * 3
    said = "; ".join(f"{how}{', after a `reset`' * resets}" for how, resets in outcomes)
    record("a worker killed at 40, 120, 220 characters", name, said)


@pytest.mark.parametrize("server", ["llama", "llama-text", "litellm"])
async def test_a_server_that_is_killed_and_comes_back_goes_on(
    deployment: Deployment, client: Client, llama: LlamaServer, others: dict[str, ModelServer],
    server: str, record: Record,
) -> None:  # fmt: skip
    if server == "litellm" and server not in others:
        pytest.skip(f"{server} is not installed")
    uncut = (await whole(deployment, client, server, max_tokens=80))["text"]
    asked = await start(deployment, client, server, max_tokens=80)
    await asked.said(80)
    llama.kill()
    await llama.start()
    seen = await asked.ended()

    said = f"`{seen['error']['code']}`" if seen["error"] else _alike(seen["text"], uncut)
    resets = (await asked.kinds()).count("reset")
    record("llama-server killed and started again", server, said + ", after a `reset`" * resets)
    assert seen["status"] == "completed" or server == "litellm", seen


def _alike(text: str, uncut: str) -> str:
    """Say how far two answers are equal."""
    if text == uncut:
        return "equal"
    if text.startswith(uncut):
        return f"equal, and {len(text) - len(uncut)} characters more"
    if uncut.startswith(text):
        return f"equal, {len(uncut) - len(text)} characters less"
    pairs = zip(text, uncut, strict=False)
    count = next(at for at, (one, other) in enumerate(pairs) if one != other)
    return f"equal for {count} of {len(uncut)} characters"
