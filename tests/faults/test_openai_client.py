"""OpenAI's own SDK at two nodes while workers, nodes and the upstream fail under it.

The SDK has no cursor and cannot take text back. It must never take a part of an answer for the
whole answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest

from tests.support.client import Client
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient
from tests.support.sdk import HELLO, StreamResult, listen, sdk
from tests.support.shared_fault import SharedFault, death_of_worker
from tests.support.slow_answer import SCRIPT, text_of
from tests.support.wait import until

PROMPT = HELLO[0]["content"]
TEXT = text_of(PROMPT)


@pytest.fixture(scope="module")
def shared_deployment(upstream_deployment: Deployment) -> Deployment:
    return upstream_deployment


@pytest.fixture
async def client(deployment: Deployment) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(f"{deployment.urls[0]}/v1") as client:
        yield client


async def begin(client: openai.AsyncOpenAI, model: str, prompt: str = PROMPT, **script: Any) -> Any:
    """Start a stream; returns it after its tenth chunk, with what was heard."""
    stream = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": prompt}], stream=True,
        extra_body={"upstream": {**SCRIPT, **script}},
    )  # fmt: skip
    heard = StreamResult()
    async for chunk in stream:
        heard.chunks.append(chunk)
        if len(heard.chunks) == 10:
            return stream, heard
    raise AssertionError(f"over after {len(heard.chunks)} chunks")


async def rest_of(stream: Any, heard: StreamResult) -> StreamResult:
    rest = await listen(stream)
    return StreamResult(heard.chunks + rest.chunks, rest.error)


async def continued_stream(client: openai.AsyncOpenAI, fault: SharedFault) -> None:
    stream, heard = await begin(client, "continue")
    await fault.struck()
    heard = await rest_of(stream, heard)

    assert heard.error is None
    assert heard.text == TEXT
    assert heard.finish_reasons == ["stop"]
    roles = [c.choices[0].delta.role for c in heard.chunks if c.choices]
    assert roles.count("assistant") == 1
    assert heard.cursor.split("-")[0] != "1"  # it was taken over


async def restarted_stream(client: openai.AsyncOpenAI, fault: SharedFault) -> None:
    stream, heard = await begin(client, "restart")
    await fault.struck()
    heard = await rest_of(stream, heard)

    assert heard.error is not None and heard.error.code == "stream_reset"
    assert heard.finish_reasons == []
    assert TEXT.startswith(heard.text)


async def restarted_whole_answer(
    deployment: Deployment, client: openai.AsyncOpenAI, fault: SharedFault
) -> None:
    body = {"upstream": SCRIPT, "session": "s-whole"}
    asking = asyncio.ensure_future(
        client.chat.completions.create(model="restart", messages=HELLO, extra_body=body)
    )
    async with RawClient(deployment.urls[1]) as other:

        async def active() -> Any:
            return (await other.get("/v1/sessions/s-whole")).json()["active"]

        (generation_id,) = await until(active, 10, "the generation")
        await other.running(generation_id)
    await fault.struck()
    answer = await asking

    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"


async def test_a_killed_worker_is_hidden_or_an_error(
    deployment: Deployment, client: openai.AsyncOpenAI
) -> None:
    """No seam where the model continues; where it restarts, an error, or the exact whole text."""
    fault = death_of_worker(deployment)
    await fault.strikes(
        continued_stream(client, fault),
        restarted_stream(client, fault),
        restarted_whole_answer(deployment, client, fault),
    )


async def stream_over_a_killed_node(
    deployment: Deployment, client: openai.AsyncOpenAI, fault: SharedFault
) -> None:
    """It is broken off, and the rest is read natively."""
    stream, heard = await begin(client, "continue")
    await fault.struck()
    # The SDK lets the error of its HTTP library through.
    with pytest.raises((openai.APIError, httpx2.HTTPError)):
        await stream_rest(stream, heard)
    async with RawClient(deployment.urls[1]) as other:
        rest = await other.events(heard.id, heard.cursor)
        snapshot = await other.ended(heard.id)

    text = "".join(event.fields["text"] for event in rest.events if event.type == "token")
    assert heard.text + text == TEXT
    assert snapshot["status"] == "completed"


async def stream_rest(stream: Any, heard: StreamResult) -> None:
    async for chunk in stream:
        heard.chunks.append(chunk)


async def test_one_failure_of_the_upstream_is_hidden_from_the_client(
    client: openai.AsyncOpenAI,
) -> None:
    async def ask(fault: str) -> None:
        prompt = f"fail once with {fault}"
        stream, heard = await begin(client, "continue", prompt, fault=fault, fault_at=20)
        heard = await rest_of(stream, heard)

        assert heard.error is None, fault
        assert heard.text == text_of(prompt)
        assert heard.cursor.startswith("2-")

    async with asyncio.TaskGroup() as group:
        for fault in ("error", "eof", "cut"):
            group.create_task(ask(fault))


async def failure(client: openai.AsyncOpenAI, **asked: Any) -> openai.APIError:
    """The failure of a stream: an HTTP status, or after `TAILRACE_HEAD_WAIT_S` an error in it."""
    try:
        heard = await listen(await client.chat.completions.create(**asked, stream=True))
    except openai.APIStatusError as exc:
        return exc
    assert heard.error is not None
    return heard.error


async def test_an_upstream_that_always_fails_is_an_error(client: openai.AsyncOpenAI) -> None:
    body = {"upstream": {"tokens": 20, "fault": "eof", "fault_at": 0, "fault_requests": 0}}
    asked: Any = {"model": "restart", "messages": HELLO, "extra_body": body}
    streamed, whole = await asyncio.gather(
        failure(client, **asked),
        client.chat.completions.create(**asked),
        return_exceptions=True,
    )
    assert isinstance(streamed, openai.APIError) and isinstance(whole, openai.InternalServerError)
    assert (streamed.code, whole.code) == ("attempts_exhausted", "attempts_exhausted")


async def test_a_refusal_of_the_upstream_reaches_the_client_with_its_reason(
    client: openai.AsyncOpenAI,
) -> None:
    body = {"upstream": {"fault": "status", "status": 400, "fault_requests": 0}}
    asked: Any = {"model": "restart", "messages": HELLO, "extra_body": body}
    assert (await failure(client, **asked)).code == "upstream_refused"
    with pytest.raises(openai.APIStatusError) as caught:
        await client.chat.completions.create(**asked)
    assert caught.value.code == "upstream_refused"
    assert "400" in caught.value.message


async def retry_over_a_killed_node(deployment: Deployment, fault: SharedFault) -> None:
    """The SDK asks again for a whole answer, at another node, and gets the same one by its key."""
    body = {"upstream": SCRIPT, "session": "s-retry"}
    headers = {"Idempotency-Key": "retry-1"}
    asked: Any = {"model": "continue", "messages": HELLO, "extra_body": body}
    asked["extra_headers"] = headers
    async with sdk(f"{deployment.urls[0]}/v1") as client, Client(deployment.urls) as native:
        asking = asyncio.ensure_future(client.chat.completions.create(**asked))
        async with RawClient(deployment.urls[1]) as other:

            async def active() -> Any:
                return (await other.get("/v1/sessions/s-retry")).json()["active"]

            (generation_id,) = await until(active, 10, "the generation")
        await fault.struck()
        with pytest.raises(openai.APIConnectionError):
            await asking
        async with sdk(f"{deployment.urls[1]}/v1") as again:
            answer = await again.chat.completions.create(**asked)

        assert answer.id == generation_id
        assert answer.choices[0].message.content == TEXT
        assert (await native.snapshot(generation_id, node=deployment.urls[1]))["attempt"] == 1


async def test_a_killed_node_breaks_answers_off_and_the_other_node_has_them(
    deployment: Deployment, client: openai.AsyncOpenAI
) -> None:
    fault = SharedFault(deployment.api[0].kill)
    await fault.strikes(
        stream_over_a_killed_node(deployment, client, fault),
        retry_over_a_killed_node(deployment, fault),
    )
