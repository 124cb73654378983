"""A stream of OpenAI's API: its head waits for the first content, the failure, or the bound."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from api.dialects.chat.fold import CHAT
from api.dialects.held_stream import held_stream, is_content
from api.dialects.openai_errors import failure_of
from api.dialects.responses.fold import RESPONSES
from api.dialects.responses.routes import _failure_of as responses_failure_of
from api.hub.contracts import ReadingOutcome
from api.readers.head_hold import _Opening
from api.transport.extensions import CHECKED_AT, IDENTITY
from shared.config.credentials import Identity
from shared.log.event_bytes import LOST
from shared.log.events import (
    Data,
    End,
    Event,
    Extra,
    Failure,
    Progress,
    Reasoning,
    Reset,
    Start,
    Token,
    ToolCall,
    Usage,
    encode,
)
from shared.log.fold import Dialect
from tests.support.hub_harness import END, GENERATION, Client, HubHarness, make_scope, settle
from tests.support.recorded import REFUSAL, recorded_meta
from tests.support.wait import until

REFUSED = End("failed", "error", error=Failure("upstream_refused", "m", False, REFUSAL))
BROKEN = End("failed", "error", error=Failure("upstream_error", "it broke", True))
START = Start(1, "demo")
REQUEST = recorded_meta().request
FOR_EVER_S = 600.0  # a bound that no test reaches


class Reading:
    """One client of the stream."""

    def __init__(
        self,
        hub_harness: HubHarness,
        dialect: Dialect = CHAT,
        failure_of: Callable[[End], Failure | None] = failure_of,
        **credentials: Any,
    ) -> None:
        self.client = Client()
        self.client.incoming.get_nowait()  # the request body, which the route has read before
        meta, headers = hub_harness.log.known[GENERATION], {"x-generation-id": GENERATION}
        answer = held_stream(hub_harness.hub, meta, dialect, headers, failure_of=failure_of)
        scope: Any = make_scope(self.client, method="POST") | credentials
        self.task = asyncio.ensure_future(
            answer(scope, self.client.receive, self.client.send)  # type: ignore[arg-type]
        )

    async def ended(self) -> Client:
        async with asyncio.timeout(5):
            await self.task
        return self.client


@pytest.fixture
async def hub_harness() -> AsyncIterator[HubHarness]:
    async with HubHarness(head_wait_s=FOR_EVER_S) as hub_harness:
        hub_harness.log.create(grace_s=5.0, request=REQUEST)
        yield hub_harness


def chunks(body: bytes) -> list[dict[str, Any]]:
    blocks = body.removesuffix(b"data: [DONE]\n\n").split(b"\n\n")[:-1]
    return [json.loads(block.removeprefix(b"data: ")) for block in blocks]


@pytest.mark.parametrize(
    "content",
    [
        Token("a"),
        Token("a", extra={"choice": {"logprobs": {}}}),
        Reasoning("hm"),
        ToolCall(0, "call_a", "weather"),
        Extra({"delta": {"audio": {"data": "x"}}}),
    ],
    ids=["token", "token with extra", "reasoning", "tool call", "delta of another kind"],
)
async def test_nothing_is_sent_before_the_first_content(
    hub_harness: HubHarness, content: Event
) -> None:
    reading = Reading(hub_harness)
    hub_harness.log.append(START)
    await settle()
    hub_harness.log.append(Progress("search", 1, 2, 50.0), Data("d", 1), Reset("restarted"))
    hub_harness.log.append(Start(2, "demo"), Usage(1, 0, 1), Extra({"chunk": {"provider": "p"}}))
    await settle()
    assert reading.client.messages == []

    hub_harness.log.append(content)
    await settle()
    assert reading.client.status == 200
    assert chunks(reading.client.body)[0]["choices"][0]["delta"]["role"] == "assistant"
    hub_harness.log.append(END)

    assert (await reading.ended()).is_finished
    assert hub_harness.log.count("attach") == 1


@pytest.mark.parametrize(
    ("end", "status", "code"),
    [
        (REFUSED, 400, "context_length_exceeded"),
        (BROKEN, 502, "upstream_error"),
        (End("cancelled", "cancelled"), 409, "cancelled"),
    ],
    ids=["refused", "broken", "cancelled"],
)
async def test_a_failure_before_the_first_content_is_an_http_status(
    hub_harness: HubHarness, end: End, status: int, code: str
) -> None:
    reading = Reading(hub_harness)
    hub_harness.log.append(START)
    await settle()
    hub_harness.log.append(end)
    client = await reading.ended()
    late = await Reading(hub_harness).ended()

    for found in (client, late):
        assert (found.status, json.loads(found.body)["error"]["code"]) == (status, code)
        assert found.headers[b"x-generation-id"] == GENERATION.encode()
    assert not hub_harness.hub.connections


async def test_a_cancelled_response_is_no_failure(hub_harness: HubHarness) -> None:
    hub_harness.log.append(START, End("cancelled", "cancelled"))

    client = await Reading(hub_harness, RESPONSES, responses_failure_of).ended()

    assert client.status == 200
    assert b"event: response.incomplete" in client.body


async def test_a_failure_after_content_is_an_error_in_the_stream(hub_harness: HubHarness) -> None:
    hub_harness.log.append(START, Token("a"), REFUSED)

    client = await Reading(hub_harness).ended()

    assert client.status == 200
    assert chunks(client.body)[-1]["error"]["code"] == "context_length_exceeded"


async def test_an_answer_that_completes_without_content_is_a_stream(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.append(START, END)

    client = await Reading(hub_harness).ended()

    assert client.status == 200
    assert chunks(client.body)[-1]["choices"][0]["finish_reason"] == "stop"


async def test_after_the_bound_the_stream_begins_and_an_error_is_its_first_chunk() -> None:
    async with HubHarness(head_wait_s=0.001) as hub_harness:
        hub_harness.log.create(request=REQUEST)
        reading = Reading(hub_harness)
        hub_harness.log.append(START)
        await until(lambda: reading.client.status, 5, "the head")
        assert reading.client.status == 200
        hub_harness.log.append(REFUSED)
        client = await reading.ended()

    assert [chunk["error"]["code"] for chunk in chunks(client.body)] == ["context_length_exceeded"]
    assert client.is_finished


async def test_without_a_bound_the_head_leaves_at_once() -> None:
    async with HubHarness(head_wait_s=0) as hub_harness:
        hub_harness.log.create(request=REQUEST)
        reading = Reading(hub_harness)
        await settle()
        assert reading.client.status == 200
        hub_harness.log.append(END)
        await reading.ended()


async def test_a_client_that_leaves_during_the_wait_starts_the_grace(
    hub_harness: HubHarness,
) -> None:
    reading = Reading(hub_harness)
    await settle()
    assert hub_harness.hub.statistics().connections == {"chat": 1}
    reading.client.leave()
    await reading.ended()
    await settle()

    assert reading.client.status != 200
    assert hub_harness.log.count("detach") == 1
    assert not hub_harness.hub.connections


async def test_a_drain_answers_a_waiting_client_at_once(hub_harness: HubHarness) -> None:
    reading = Reading(hub_harness)
    await settle()
    (waiting,) = hub_harness.hub.connections
    waiting.break_off(ReadingOutcome.ROTATED)  # the age of a connection: the client cannot resume
    await settle()
    assert reading.client.messages == []
    waiting.break_off(ReadingOutcome.DRAINED)
    client = await reading.ended()

    assert (client.status, json.loads(client.body)["error"]["code"]) == (503, "draining")
    assert client.headers[b"retry-after"] and client.headers[b"x-generation-id"]


async def test_a_wait_ends_with_the_token_and_no_leeway_begins(hub_harness: HubHarness) -> None:
    identity = Identity("alice", expires_at=time.time() - 1)  # and it was good at the check
    reading = Reading(hub_harness, **{IDENTITY: identity, CHECKED_AT: time.time() - 2})

    client = await reading.ended()

    assert client.status == 200
    assert client.was_aborted and not client.is_finished
    assert not hub_harness.hub.connections


async def test_a_generation_that_is_lost_during_the_wait_is_500(hub_harness: HubHarness) -> None:
    reading = Reading(hub_harness)
    await settle()
    hub_harness.hub.relays[GENERATION].end_unlogged(LOST)
    client = await reading.ended()

    assert (client.status, json.loads(client.body)["error"]["code"]) == (500, "lost")


def test_content_is_looked_for_again_in_a_log_that_was_rewritten() -> None:
    start, token = encode(START), encode(Token("a"))
    feed = SimpleNamespace(base=0, epoch=1, raws=[start, start, start])
    relay: Any = SimpleNamespace(feed=feed, is_over=False)
    opening = _Opening(relay, is_content)
    assert not opening.is_decided()

    feed.epoch, feed.raws = 2, [start, token]
    assert opening.is_decided()
