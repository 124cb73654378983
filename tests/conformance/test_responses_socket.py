"""OpenAI's WebSocket mode of Responses by its own SDK, and what is ours in it: resume, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai.lib.responses_websocket import (
    AsyncResponsesWebSocketSession,
    ResponsesWebSocketLimits,
)
from openai.resources.responses.responses import AsyncResponsesConnection

from tests.support.raw_client import RawClient, hear, tell
from tests.support.responses import TERMINAL, ResponseEvents
from tests.support.sdk import ANSWER_S, sdk

PATH = "/v1/responses"
LIMITS = ResponsesWebSocketLimits(
    max_lanes=4,
    max_events_per_lane=500,
    max_events=1_000,
    max_bytes_per_lane=2**20,
    max_bytes=2**21,
    max_response_bytes=None,
)
WEATHER: Any = {"type": "function", "name": "weather", "parameters": {}, "strict": False}


@pytest.fixture
async def client(api: RawClient) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(f"{api.url}/v1", api.key) as client:
        yield client


@pytest.fixture
async def other(api: RawClient) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(f"{api.other_url}/v1", api.key) as client:
        yield client


@pytest.fixture
async def connection(client: openai.AsyncOpenAI) -> AsyncIterator[AsyncResponsesConnection]:
    async with client.responses.connect() as connection:
        yield connection


async def create(
    connection: AsyncResponsesConnection, tokens: int = 30, per_s: float = 0, **members: Any
) -> None:
    controls = {"tokens": tokens, "tokens_per_s": per_s, "first_token_s": 0}
    controls |= members.pop("demo", {})
    event: Any = {"type": "response.create", "model": "demo", "input": "tell me", "demo": controls}
    await connection.send(event | members)


async def send(connection: AsyncResponsesConnection, kind: str, **members: Any) -> None:
    event: Any = {"type": kind, **members}
    await connection.send(event)


async def events_until(
    connection: AsyncResponsesConnection, *kinds: str, number: int | None = None
) -> list[Any]:
    """The events up to one of these types, or up to a number."""
    found: list[Any] = []
    async with asyncio.timeout(ANSWER_S):
        while True:
            found.append(await connection.recv())
            if found[-1].type in kinds or found[-1].sequence_number == number is not None:
                return found


async def response_of(connection: AsyncResponsesConnection) -> ResponseEvents:
    return ResponseEvents(await events_until(connection, *TERMINAL))


async def test_a_response_is_the_one_that_http_shows(
    connection: AsyncResponsesConnection, other: openai.AsyncOpenAI
) -> None:
    await create(connection, instructions="Be brief.", metadata={"a": "b"})
    heard = await response_of(connection)

    heard.check()
    assert heard.text == heard.final.output_text != ""
    assert await other.responses.retrieve(heard.id) == heard.final


async def test_a_socket_has_many_streams_and_each_is_in_order(
    connection: AsyncResponsesConnection,
) -> None:
    names = ["planner", "critic", None]
    for name in names:
        named: dict[str, Any] = {"stream_id": name} if name else {}
        await create(connection, 30, 200, **named)
        await create(connection, 3, **named, input="and then")
    heard: dict[str | None, list[Any]] = {name: [] for name in names}
    order = []
    while any(sum(e.type in TERMINAL for e in heard[name]) < 2 for name in names):
        event: Any = await asyncio.wait_for(connection.recv(), ANSWER_S)
        heard[event.stream_id].append(event)
        order.append(event.stream_id)

    for name in names:
        half = next(n for n, e in enumerate(heard[name]) if e.type in TERMINAL) + 1
        for events in (heard[name][:half], heard[name][half:]):
            ResponseEvents(events).check()
    firsts = {name: order.index(name) for name in names}
    assert max(firsts.values()) < order.index("planner") + 60, "the streams run at once"


async def test_the_sdk_routes_the_events_of_its_lanes(
    connection: AsyncResponsesConnection,
) -> None:
    """Its own session reads the socket, and gives each lane its responses."""
    async with AsyncResponsesWebSocketSession(connection, limits=LIMITS) as session:
        lanes = [session.lane(name) for name in ("planner", "critic")]
        for tokens, lane in zip((5, 9), lanes, strict=True):
            event: Any = {"type": "response.create", "model": "demo", "input": "tell me"}
            await lane.send(event | {"demo": {"tokens": tokens, "first_token_s": 0}})
        found = [await lane.get_final_response() for lane in lanes]

    assert [response.status for response in found] == ["completed", "completed"]
    assert len(found[0].output_text) < len(found[1].output_text)


@pytest.mark.parametrize("number", [0, 1, 4, 17])
async def test_the_other_node_reads_on_after_the_number(
    client: openai.AsyncOpenAI, other: openai.AsyncOpenAI, number: int
) -> None:
    async with client.responses.connect() as connection:
        await create(connection, 40, 200, store=False)
        seen = await events_until(connection, number=number)
    async with other.responses.connect() as connection:
        response_id = seen[0].response.id
        named = {"response_id": response_id, "stream_id": "again"}
        await send(connection, "response.resume", **named, starting_after=number)
        rest = await events_until(connection, *TERMINAL)
        await send(connection, "response.resume", response_id=response_id)
        whole = await response_of(connection)

    heard = ResponseEvents([*seen, *rest])
    heard.check()
    assert heard.text == heard.final.output_text == whole.text != ""
    assert {event.stream_id for event in rest} == {"again"}
    whole.check()


async def test_a_repeat_with_the_key_is_never_a_second_answer(
    client: openai.AsyncOpenAI, other: openai.AsyncOpenAI
) -> None:
    key = {"idempotency_key": f"repeat-{id(client)}-{asyncio.get_running_loop().time()}"}
    async with client.responses.connect() as connection:
        await create(connection, 30, 200, **key)
        seen = await events_until(connection, number=9)
    async with other.responses.connect() as connection:
        await create(connection, 30, 200, **key, starting_after=9)
        rest = await events_until(connection, *TERMINAL)
        await create(connection, 30, 200, **key)
        whole = await response_of(connection)

    heard = ResponseEvents([*seen, *rest])
    heard.check()
    assert whole.id == heard.id
    assert whole.numbers == heard.numbers


async def test_a_warm_up_has_no_answer_and_is_continued_on_the_other_node(
    connection: AsyncResponsesConnection, other: openai.AsyncOpenAI
) -> None:
    await create(connection, generate=False, input="Remember the word apple.")
    warm = await response_of(connection)
    warm.check()
    assert (warm.final.status, warm.final.output) == ("completed", [])
    assert (await other.responses.retrieve(warm.id)).status == "completed"

    async with other.responses.connect() as there:
        await create(there, previous_response_id=warm.id)
        heard = await response_of(there)
    assert heard.final.previous_response_id == warm.id
    items = (await other.responses.input_items.list(heard.id, order="asc")).data
    assert len(items) == 2 and "apple" in str(items[0])


async def test_an_unstored_response_is_continued_on_its_socket_only(
    connection: AsyncResponsesConnection, other: openai.AsyncOpenAI
) -> None:
    await create(connection, 3, store=False)
    first = await response_of(connection)
    await create(connection, 3, store=False, previous_response_id=first.id)
    second = await response_of(connection)
    assert second.final.previous_response_id == first.id

    async with other.responses.connect() as there:
        await create(there, previous_response_id=first.id, stream_id="s")
        (error,) = await events_until(there, "error")
    assert (error.status, error.stream_id) == (400, "s")
    assert error.error.code == "previous_response_not_found"
    assert (error.error.type, error.error.param) == (
        "invalid_request_error", "previous_response_id",
    )  # fmt: skip


async def test_a_tool_is_called_and_its_output_continues_the_response(
    connection: AsyncResponsesConnection,
) -> None:
    asked: dict[str, Any] = {"tools": [WEATHER], "demo": {"tool_call": "weather"}}
    await create(connection, 3, **asked)
    first = await response_of(connection)
    call = first.final.output[-1]
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    await create(connection, 3, previous_response_id=first.id, input=[output])
    second = await response_of(connection)

    assert call.type == "function_call"
    assert second.final.status == "completed" and second.text


async def test_a_cancel_on_another_node_ends_the_stream(
    connection: AsyncResponsesConnection, other: openai.AsyncOpenAI
) -> None:
    await create(connection, 2_000, 50)
    seen = await events_until(connection, number=6)
    async with other.responses.connect() as there:
        await send(there, "response.cancel", response_id=seen[0].response.id)
        (accepted,) = await events_until(there, "response.cancel.accepted")
    heard = ResponseEvents([*seen, *await events_until(connection, *TERMINAL)])

    assert accepted.status == "cancelled"
    heard.check()
    assert heard.final.status == "cancelled"


async def test_a_steered_response_goes_on_with_the_input(
    connection: AsyncResponsesConnection,
) -> None:
    await create(connection, 30, 200, stream_id="s", metadata={"a": "b"})
    seen = await events_until(connection, number=4)
    await connection.response.steer(previous_response_id=seen[0].response.id, input="be brief")
    seen += await events_until(connection, *TERMINAL)
    accepted = [event for event in seen if event.type == "response.steer.accepted"]
    successor = await response_of(connection)

    ResponseEvents([event for event in seen if event not in accepted]).check()
    assert [event.steer.previous_response_id for event in accepted] == [seen[0].response.id]
    successor.check()
    assert successor.final.previous_response_id == seen[0].response.id
    assert (successor.final.metadata, successor.events[0].stream_id) == ({"a": "b"}, "s")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("wrong", "status", "code"),
    [
        ({"type": "response.create", "model": "none", "input": "x"}, 404, "model_not_found"),
        ({"type": "response.create", "input": "x", "stream_id": ""}, 400, "invalid_stream_id"),
        ({"type": "response.create"}, 400, "invalid_request"),
        ({"type": "response.resume", "response_id": "resp_x"}, 404, "not_found"),
        ({"type": "unheard.of"}, 400, "invalid_request"),
    ],
)
async def test_a_wrong_event_is_an_error_and_the_socket_lives(
    api: RawClient, wrong: dict[str, Any], status: int, code: str
) -> None:
    async with api.socket(path=PATH, subprotocols=None) as ws:
        await tell(ws, **wrong)
        error = await hear(ws)
        await tell(ws, **{**wrong, "type": "response.cancel", "response_id": "resp_y"})
        after = await hear(ws)

    assert (error["type"], error["status"]) == ("error", status)
    assert error["error"]["code"] == code
    assert after["error"]["code"] == "not_found"


async def test_a_stream_too_many_is_refused_and_the_others_go_on(api: RawClient) -> None:
    async with api.socket(path=PATH, subprotocols=None) as ws:
        for number in range(33):
            resume = {"response_id": "resp_x", "stream_id": f"s{number}"}
            await tell(ws, type="response.resume", **resume)
            error = await hear(ws)
            if number < 32:
                assert (error["error"]["code"], error["stream_id"]) == ("not_found", f"s{number}")

    assert error["status"] == 400
    assert error["error"]["code"] == "websocket_stream_limit_reached"


async def test_the_credentials_of_a_browser_stand_in_the_subprotocol(api: RawClient) -> None:
    offered: Any = ["tailrace.v1", f"bearer.{api.key or 'none'}"]
    async with (
        RawClient(api.url) as browser,
        browser.socket(path=PATH, subprotocols=offered) as ws,
    ):
        await tell(ws, type="response.cancel", response_id="resp_x")
        assert (await hear(ws))["error"]["code"] == "not_found"
        assert ws.subprotocol == "tailrace.v1"


async def test_a_plain_get_is_told_to_upgrade(api: RawClient) -> None:
    answer = await api.get(PATH)
    assert (answer.status, answer.json()["error"]["code"]) == (400, "upgrade_required")
