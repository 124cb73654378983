"""OpenAI's Responses by its own SDK while workers, nodes and the upstream fail under them.

The client can count and go on, so whatever dies it ends with the whole answer, or is told the
truth; and the SDK's helpers, which are strict about the order of events, accept what it is told.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from api.dialects.responses.response_object import generation_id
from tests.support.processes import Deployment
from tests.support.responses import ResponseEvents, hear
from tests.support.sdk import sdk
from tests.support.shared_fault import SharedFault, death_of_worker
from tests.support.slow_answer import PROMPT, SCRIPT, TEXT, text_of
from tests.support.upstream import expected_text, script_of
from tests.support.wait import until


@pytest.fixture(scope="module")
def shared_deployment(upstream_deployment: Deployment) -> Deployment:
    return upstream_deployment


@pytest.fixture
async def client(deployment: Deployment) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(f"{deployment.urls[0]}/v1") as client:
        yield client


@pytest.fixture
async def other(deployment: Deployment) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(f"{deployment.urls[1]}/v1") as client:
        yield client


async def begin(
    client: openai.AsyncOpenAI, model: str, prompt: str = PROMPT, **script: Any
) -> tuple[Any, ResponseEvents]:
    """Start one in the background; returns its stream after the twelfth event, and what it said."""
    stream = await client.responses.create(
        model=model, input=prompt, background=True, stream=True,
        extra_body={"upstream": {**SCRIPT, **script}},
    )  # fmt: skip
    told = ResponseEvents()
    async for event in stream:
        told.events.append(event)
        if event.sequence_number == 11:
            return stream, told
    raise AssertionError(f"over after {told.types}")


async def continued(
    client: openai.AsyncOpenAI, other: openai.AsyncOpenAI, fault: SharedFault
) -> None:
    """There is no seam where the model continues."""
    stream, told = await begin(client, "continue")
    await fault.struck()
    told = await hear(stream, told=told)

    told.check()
    assert told.final.status == "completed"
    assert told.texts == {0: TEXT}
    assert told.final.output_text == TEXT
    elsewhere = await hear(await other.responses.retrieve(told.id, stream=True))
    assert elsewhere.events == told.events


async def restarted(
    client: openai.AsyncOpenAI, other: openai.AsyncOpenAI, fault: SharedFault
) -> None:
    """There is a new item where the model restarts."""
    stream, told = await begin(client, "restart")
    await fault.struck()
    told = await hear(stream, told=told)

    told.check()
    assert told.texts.keys() == {0, 1}
    assert TEXT.startswith(told.texts[0]) and told.texts[1] == TEXT
    done: list[Any] = [e for e in told.events if e.type == "response.output_item.done"]
    assert [event.item.status for event in done] == ["incomplete", "completed"]
    (item,) = told.final.output
    assert item.id == done[1].item.id
    # The helper is strict about items; it takes the whole, and a part.
    for after in (None, 11):
        async with other.responses.stream(
            response_id=told.id, **({} if after is None else {"starting_after": after})
        ) as helped:
            numbers = [event.sequence_number async for event in helped]
            final = await helped.get_final_response()
        assert numbers == told.numbers[(after + 1 if after is not None else 0) :]
        assert final.output_text == TEXT
    # Whatever number a client has got to, the rest is the same on the other node.
    for after in range(0, len(told.events), 12):
        rest = await other.responses.retrieve(told.id, stream=True, starting_after=after)
        assert (await hear(rest)).events == told.events[after + 1 :]
    assert (await client.responses.retrieve(told.id)).output_text == TEXT


async def restarted_under_the_stream_helper(client: openai.AsyncOpenAI, fault: SharedFault) -> None:
    body = {"upstream": SCRIPT}
    async with client.responses.stream(model="restart", input=PROMPT, extra_body=body) as stream:
        async for event in stream:
            if event.sequence_number == 11:
                await fault.struck()
        final = await stream.get_final_response()

    assert final.output_text == TEXT
    assert len(final.output) == 1


async def restarted_and_not_streamed(client: openai.AsyncOpenAI, fault: SharedFault) -> None:
    stream, told = await begin(client, "restart")
    await stream.close()
    await fault.struck()

    async def is_over() -> Any:
        found = await client.responses.retrieve(told.id)
        return found if found.status not in ("queued", "in_progress") else None

    found = await until(is_over, 20, "the end")
    assert (found.status, found.output_text) == ("completed", TEXT)


async def test_a_killed_worker_leaves_the_exact_text(
    deployment: Deployment, client: openai.AsyncOpenAI, other: openai.AsyncOpenAI
) -> None:
    fault = death_of_worker(deployment)
    await fault.strikes(
        continued(client, other, fault),
        restarted(client, other, fault),
        restarted_under_the_stream_helper(client, fault),
        restarted_and_not_streamed(client, fault),
    )


async def test_a_killed_node_is_an_error_and_the_other_node_has_the_rest(
    deployment: Deployment, client: openai.AsyncOpenAI, other: openai.AsyncOpenAI
) -> None:
    stream, told = await begin(client, "continue")
    deployment.api[0].kill()
    # The SDK lets the error of its HTTP library through.
    with pytest.raises((openai.APIError, httpx2.HTTPError)):
        await hear(stream, told=told)
    after = told.numbers[-1]
    rest = await other.responses.retrieve(told.id, stream=True, starting_after=after)
    told = await hear(rest, told=told)

    told.check()
    assert told.text == told.final.output_text == TEXT


async def test_a_client_that_leaves_does_not_stop_a_background_response(
    client: openai.AsyncOpenAI, other: openai.AsyncOpenAI
) -> None:
    stream = await client.responses.create(
        model="continue", input=PROMPT, background=True, stream=True,
        extra_body={"upstream": SCRIPT, "on_disconnect": "cancel"},
    )  # fmt: skip
    told = await hear(stream, upto=6)

    async def is_over() -> Any:
        found = await other.responses.retrieve(told.id)
        return found if found.status not in ("queued", "in_progress") else None

    found = await until(is_over, 20, "the end")
    assert (found.status, found.output_text) == ("completed", TEXT)


async def test_a_client_that_leaves_stops_a_foreground_response(
    client: openai.AsyncOpenAI, other: openai.AsyncOpenAI
) -> None:
    stream = await client.responses.create(
        model="continue", input=PROMPT, stream=True,
        extra_body={"upstream": {**SCRIPT, "tokens": 2_000}, "on_disconnect": "cancel"},
    )  # fmt: skip
    told = await hear(stream, upto=6)

    async def is_over() -> Any:
        found = await other.responses.retrieve(told.id)
        return found if found.status not in ("queued", "in_progress") else None

    assert (await until(is_over, 20, "the end")).status == "cancelled"


async def test_one_failure_of_the_upstream_is_hidden_from_the_client(
    client: openai.AsyncOpenAI,
) -> None:
    async def ask(fault: str) -> None:
        prompt = f"answer once with {fault}"
        stream, told = await begin(client, "continue", prompt, fault=fault, fault_at=20)
        told = await hear(stream, told=told)

        told.check()
        assert told.texts == {0: text_of(prompt)}, fault

    async with asyncio.TaskGroup() as group:
        for fault in ("error", "eof", "cut"):
            group.create_task(ask(fault))


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ({"fault": "eof", "fault_at": 5, "fault_requests": 0}, "attempts_exhausted"),
        ({"fault": "status", "status": 400, "fault_requests": 0}, "upstream_refused"),
    ],
)
async def test_an_upstream_that_always_fails_ends_with_its_reason(
    client: openai.AsyncOpenAI, script: dict[str, Any], code: str
) -> None:
    body = {"upstream": {"tokens": 20, **script}}
    asked: Any = {"model": "restart", "input": f"fail with {code}", "extra_body": body}
    told = ResponseEvents()
    asking = asyncio.ensure_future(client.responses.create(**asked))
    stream = await client.responses.create(**asked, stream=True, background=True)
    with pytest.raises(openai.APIError) as said:
        await hear(stream, told=told)
    assert said.value.code == code
    # The SDK raises at the event `error`; the event after it has the whole response.
    error_number = len(told.events)
    rest = await client.responses.retrieve(told.id, stream=True, starting_after=error_number)
    (last,) = [event async for event in rest]
    assert (last.type, last.sequence_number) == ("response.failed", error_number + 1)
    assert (last.response.status, last.response.error.code) == ("failed", code)
    found = await client.responses.retrieve(told.id)
    assert found.error is not None and found.error.code == code
    with pytest.raises(openai.APIStatusError) as caught:
        await asking
    assert caught.value.code == code


async def test_the_first_events_leave_before_a_worker_has_begun(
    deployment: Deployment, client: openai.AsyncOpenAI
) -> None:
    for worker in deployment.workers:
        worker.kill()
    stream = await client.responses.create(
        model="continue",
        input=PROMPT,
        background=True,
        stream=True,
        extra_body={"upstream": SCRIPT},
    )
    told = await hear(stream, upto=1)
    assert told.types == ["response.created", "response.queued"]
    found = await client.responses.retrieve(told.id)
    assert found.status == "queued"
    cancelled = await client.responses.cancel(told.id)
    assert (cancelled.status, cancelled.output) == ("cancelled", [])
    rest = await client.responses.retrieve(told.id, stream=True, starting_after=1)
    told = await hear(rest, told=told)
    told.check()
    assert told.types[2:] == ["response.incomplete"]


async def test_a_sequence_number_from_after_a_loss_is_refused(
    deployment: Deployment, client: openai.AsyncOpenAI, other: openai.AsyncOpenAI, tmp_path: Path
) -> None:
    """Redis goes back in time and the worker is dead: another writes on, from the older log."""
    server, kept = deployment.server, tmp_path / "kept"
    stream, told = await begin(client, "continue", tokens=50)
    shutil.copytree(server.directory, kept)
    async for event in stream:
        told.events.append(event)
        if event.sequence_number == 30:
            break
    (await deployment.holder(generation_id(told.id))).kill()
    server.kill()
    shutil.rmtree(server.directory)
    shutil.copytree(kept, server.directory)
    server.start()
    with pytest.raises((openai.APIError, httpx2.HTTPError)):
        await hear(stream, told=told)

    async def refused(node: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.ConflictError) as caught:
            await node.responses.retrieve(told.id, stream=True, starting_after=told.numbers[-1])
        assert caught.value.code == "stream_reset"

    # Together: each node waits a while for the lost events to come back.
    await asyncio.gather(refused(client), refused(other))
    anew = await hear(await other.responses.retrieve(told.id, stream=True))
    anew.check()
    assert anew.text == expected_text(
        PROMPT, script_of({"messages": [], "upstream": {"tokens": 50}})
    )
    # What stood before the loss stands as it was, and may be gone on with.
    assert anew.events[:9] == told.events[:9]
    rest = await client.responses.retrieve(told.id, stream=True, starting_after=8)
    assert (await hear(rest)).events == anew.events[9:]
