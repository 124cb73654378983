"""OpenAI's Responses by its own SDK: streamed, whole, in the background, gone on with elsewhere."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.support.raw_client import RawClient
from tests.support.responses import ResponseEvents, hear
from tests.support.sdk import sdk
from tests.support.wait import until

WEATHER: Any = {"type": "function", "name": "weather", "parameters": {}, "strict": False}


def told(tokens: int, per_s: float = 0, **controls: Any) -> dict[str, Any]:
    """What the demo model is to do, beside OpenAI's own members."""
    return {"demo": {"tokens": tokens, "tokens_per_s": per_s, "first_token_s": 0, **controls}}


def native(response_id: str) -> str:
    return response_id.replace("resp_", "gen_")


@pytest.fixture
async def client(api: RawClient) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(f"{api.url}/v1", api.key) as client:
        yield client


@pytest.fixture
async def other(api: RawClient) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(f"{api.other_url}/v1", api.key) as client:
        yield client


async def background(client: openai.AsyncOpenAI, tokens: int, per_s: float, **asked: Any) -> Any:
    return await client.responses.create(
        model="demo", input="tell me", background=True, extra_body=told(tokens, per_s), **asked
    )


# In the foreground


async def test_a_streamed_response_has_the_whole_answer(
    api: RawClient, client: openai.AsyncOpenAI
) -> None:
    raw = await client.responses.with_raw_response.create(
        model="demo", input="tell me", stream=True, instructions="Be brief.",
        metadata={"a": "b"}, extra_body=told(30),
    )  # fmt: skip
    heard = await hear(raw.parse())

    heard.check()
    snapshot = await api.ended(raw.headers["x-generation-id"])
    assert native(heard.id) == snapshot["id"]
    assert heard.text == heard.final.output_text == snapshot["text"] != ""
    assert (heard.final.status, heard.final.instructions) == ("completed", "Be brief.")
    assert (heard.final.metadata, heard.final.background) == ({"a": "b"}, False)
    assert heard.final.usage.total_tokens == snapshot["usage"]["total_tokens"] > 0
    assert [message["role"] for message in snapshot["messages"]] == ["system", "user"]


async def test_a_response_in_one_piece_is_the_same_object(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model="demo", input="tell me", extra_body=told(30))
    again = await client.responses.retrieve(answer.id)

    assert answer.status == "completed" and answer.output_text
    assert answer == again


async def test_a_token_limit_makes_a_response_incomplete(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(
        model="demo", input="tell me", max_output_tokens=3, extra_body=told(30)
    )
    assert answer.status == "incomplete" and answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"


async def test_a_tool_is_called_and_the_model_answers_its_output(
    client: openai.AsyncOpenAI,
) -> None:
    asked: Any = {"model": "demo", "tools": [WEATHER], "tool_choice": "auto"}
    asked["extra_body"] = told(3, tool_call="weather", reasoning_tokens=4)
    async with client.responses.stream(input="tell me", **asked) as stream:
        first = await stream.get_final_response()

    assert [item.type for item in first.output] == ["reasoning", "message", "function_call"]
    call: Any = first.output[-1]
    assert call.name == "weather" and isinstance(json.loads(call.arguments), dict)
    assert first.tools[0].to_dict() | WEATHER == first.tools[0].to_dict()
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    history: Any = [{"role": "user", "content": "tell me"}, *first.output, output]
    second = await client.responses.create(model="demo", input=history, extra_body=told(3))
    assert second.output_text
    items = (await client.responses.input_items.list(second.id, order="asc")).data
    assert [item.type for item in items] == [
        "message", "message", "function_call", "function_call_output",
    ]  # fmt: skip
    found: Any = items[2]
    assert (found.call_id, found.arguments) == (call.call_id, call.arguments)


async def test_the_sdk_parses_an_answer_into_the_clients_own_type(
    client: openai.AsyncOpenAI,
) -> None:
    """The form reaches the backend; the demo's answer is no JSON, and the SDK says so."""

    class Answer(BaseModel):
        city: str

    with pytest.raises(ValueError, match="Answer"):
        await client.responses.parse(
            model="demo", input="tell me", text_format=Answer, extra_body=told(3)
        )


async def test_a_conversation_continues_from_a_stored_response(
    api: RawClient, client: openai.AsyncOpenAI, other: openai.AsyncOpenAI
) -> None:
    first = await client.responses.create(
        model="demo", input="one", instructions="Be brief.", extra_body=told(3)
    )
    second = await other.responses.create(
        model="demo", input="two", previous_response_id=first.id, instructions="Shout.",
        extra_body=told(3),
    )  # fmt: skip
    third = await client.responses.create(
        model="demo", input="three", previous_response_id=second.id, extra_body=told(3)
    )

    assert third.previous_response_id == second.id
    messages = (await api.ended(native(third.id)))["messages"]
    assert [message["content"] for message in messages] == [
        "one", first.output_text, "two", second.output_text, "three",
    ]  # fmt: skip
    assert (await api.ended(native(second.id)))["messages"][0]["content"] == "Shout."
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(
            model="demo", input="x", previous_response_id="resp_00000000000000000000000000"
        )


async def test_referenced_items_are_found_on_another_node(
    api: RawClient, client: openai.AsyncOpenAI, other: openai.AsyncOpenAI
) -> None:
    """The AI SDK names its earlier items like this from the second turn on."""
    asked: Any = {"model": "demo", "tools": [WEATHER]}
    first = await client.responses.create(
        input="one", extra_body=told(3, tool_call="weather", reasoning_tokens=4), **asked
    )
    call: Any = first.output[-1]
    (question,) = (await client.responses.input_items.list(first.id)).data
    named: Any = [{"type": "item_reference", "id": item.id} for item in (question, *first.output)]
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    second = await other.responses.create(input=[*named, output], extra_body=told(3), **asked)

    messages = (await api.ended(native(second.id)))["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool"]
    assert (messages[0]["content"], messages[1]["content"]) == ("one", first.output_text)
    assert messages[1]["tool_calls"][0]["id"] == call.call_id
    for unknown in ("msg_68ad", call.id[:-1] + "9"):
        with pytest.raises(openai.NotFoundError, match=unknown):
            lost: Any = [{"type": "item_reference", "id": unknown}]
            await client.responses.create(model="demo", input=[*lost, output])


async def test_a_custom_tool_is_called_with_free_text(client: openai.AsyncOpenAI) -> None:
    tools: Any = [{"type": "custom", "name": "apply_patch", "description": "Edits files."}]
    asked: Any = {"model": "demo", "tools": tools}
    asked["extra_body"] = told(3, tool_call="apply_patch")

    async with client.responses.stream(input="Edit.", **asked) as stream:
        events = [event async for event in stream]
        first = await stream.get_final_response()
    (call,) = [item for item in first.output if item.type == "custom_tool_call"]
    deltas = [
        event.delta for event in events if event.type == "response.custom_tool_call_input.delta"
    ]
    result: Any = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "done"}
    second = await client.responses.create(
        previous_response_id=first.id, input=[result], model="demo", extra_body=told(3)
    )

    assert call.name == "apply_patch" and call.input == "".join(deltas) != ""
    assert second.status == "completed"


async def test_tools_that_no_backend_runs_are_named_in_a_header(
    client: openai.AsyncOpenAI,
) -> None:
    tools: Any = [WEATHER, {"type": "web_search"}, {"type": "image_generation"}]
    for is_stream in (False, True):
        raw = await client.responses.with_raw_response.create(
            model="demo", input="tell me", tools=tools, stream=is_stream, extra_body=told(3)
        )
        assert raw.headers["x-tailrace-ignored"] == "tools[1], tools[2]"


async def test_a_reasoning_summary_is_sent_when_the_request_asks_for_one(
    client: openai.AsyncOpenAI,
) -> None:
    async with client.responses.stream(
        model="demo", input="tell me", reasoning={"summary": "auto"},
        extra_body=told(3, reasoning_tokens=4),
    ) as stream:  # fmt: skip
        deltas = [
            event.delta
            async for event in stream
            if event.type == "response.reasoning_summary_text.delta"
        ]
        final = await stream.get_final_response()
    item: Any = final.output[0]
    assert item.summary[0].text == "".join(deltas) != ""
    assert final.reasoning is not None and final.reasoning.summary == "auto"


async def test_a_response_that_is_not_stored_exists_for_its_own_request_only(
    api: RawClient, client: openai.AsyncOpenAI
) -> None:
    answer = await client.responses.create(
        model="demo", input="tell me", store=False, extra_body=told(3)
    )
    assert answer.output_text
    for call in (client.responses.retrieve, client.responses.cancel, client.responses.delete):
        with pytest.raises(openai.NotFoundError):
            await call(answer.id)  # type: ignore[operator]
    with pytest.raises(openai.BadRequestError):
        await background(client, 3, 0, store=False)


# In the background


async def test_a_streamed_response_resumes_on_another_node_without_a_seam(
    api: RawClient, client: openai.AsyncOpenAI, other: openai.AsyncOpenAI
) -> None:
    heard = await hear(await background(client, 60, 100, stream=True), upto=12)
    assert heard.numbers == list(range(13))
    after = heard.numbers[-1]
    rest = await other.responses.retrieve(heard.id, stream=True, starting_after=after)
    heard = await hear(rest, told=heard)

    heard.check()
    assert heard.final.background is True
    assert heard.text == heard.final.output_text == (await api.ended(native(heard.id)))["text"]
    # After the end, too: all, a part, and nothing.
    again = await hear(await other.responses.retrieve(heard.id, stream=True))
    assert again.events == heard.events
    for after in (0, 1, 2, len(heard.events) // 2, heard.numbers[-2], heard.numbers[-1]):
        rest = await client.responses.retrieve(
            heard.id, stream=True, starting_after=after, include_obfuscation=False
        )
        assert (await hear(rest)).events == heard.events[after + 1 :]


async def test_a_turn_that_is_sent_again_is_the_same_answer(
    client: openai.AsyncOpenAI, other: openai.AsyncOpenAI
) -> None:
    """As Codex does it over HTTP: the same body once more, after a cut in the middle."""
    turn = {"client_metadata": {"thread_id": "t", "turn_id": secrets.token_hex(8)}}

    async def ask(at: openai.AsyncOpenAI, question: str, attempt: str) -> Any:
        return await at.responses.create(
            model="demo", input=question, stream=True, store=False,
            metadata={"attempt": attempt}, extra_body=told(60, 60) | turn,
        )  # fmt: skip

    stream = await ask(client, "tell me", "first")
    created = await anext(aiter(stream))
    await stream.close()
    again = await hear(await ask(other, "tell me", "second"))
    later = await hear(await ask(client, "tell me more", "first"))

    again.check()
    assert again.events[0] == created
    assert later.id != again.id


async def test_the_stream_helper_resumes_after_a_sequence_number(
    client: openai.AsyncOpenAI, other: openai.AsyncOpenAI
) -> None:
    heard = await hear(await background(client, 40, 100, stream=True), upto=8)
    async with other.responses.stream(response_id=heard.id, starting_after=8) as stream:
        numbers = [event.sequence_number async for event in stream]
        final = await stream.get_final_response()

    assert numbers == list(range(9, 9 + len(numbers)))
    assert final.output_text == (await client.responses.retrieve(heard.id)).output_text


async def test_a_background_response_is_accepted_at_once_and_polled_until_its_end(
    client: openai.AsyncOpenAI, other: openai.AsyncOpenAI
) -> None:
    started = await background(client, 30, 60)
    assert started.status in ("queued", "in_progress") and started.background

    async def is_over() -> Any:
        found = await other.responses.retrieve(started.id)
        return found if found.status not in ("queued", "in_progress") else None

    done = await until(is_over, 10, "the end")
    assert done.status == "completed" and done.output_text


async def test_a_cancel_works_from_any_node_and_keeps_the_text_so_far(
    client: openai.AsyncOpenAI, other: openai.AsyncOpenAI
) -> None:
    stream = await background(client, 2_000, 50, stream=True)
    heard = await hear(stream, upto=12)
    reading = await client.responses.retrieve(heard.id, stream=True, starting_after=12)
    cancelled = await other.responses.cancel(heard.id)
    heard = await hear(reading, told=heard)

    heard.check()
    assert heard.types[-1] == "response.incomplete"
    assert cancelled.status == heard.final.status == "cancelled"
    assert cancelled.output_text == heard.text != ""
    assert cancelled.output[0].status == "incomplete"  # type: ignore[union-attr]
    assert await client.responses.cancel(heard.id) == cancelled
    assert await client.responses.retrieve(heard.id) == cancelled


async def test_a_cancel_does_not_change_an_ended_response(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model="demo", input="tell me", extra_body=told(3))
    assert await client.responses.cancel(answer.id) == answer


async def test_a_deleted_response_is_gone_on_every_node(
    api: RawClient, client: openai.AsyncOpenAI, other: openai.AsyncOpenAI
) -> None:
    answer = await client.responses.create(model="demo", input="tell me", extra_body=told(3))
    await other.responses.delete(answer.id)
    calls: list[Any] = []
    for node in (client, other):
        responses = node.responses
        calls += [call(answer.id) for call in (responses.retrieve, responses.cancel)]
        calls += [responses.delete(answer.id), responses.input_items.list(answer.id)]
        calls += [responses.retrieve(answer.id, stream=True, starting_after=1)]
    # At once: a cursor makes the node wait for two seconds.
    said = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(error) for error in said} == {openai.NotFoundError}
    for node_url in (api.url, api.other_url):
        gone = await api.get(f"/v1/generations/{native(answer.id)}", node=node_url)
        assert gone.status == 404


async def test_the_deletion_of_a_running_response_stops_its_answer(
    api: RawClient, client: openai.AsyncOpenAI, other: openai.AsyncOpenAI
) -> None:
    heard = await hear(await background(client, 2_000, 50, stream=True), upto=8)
    reply = await api.call("DELETE", f"/v1/responses/{heard.id}", node=api.other_url)
    assert reply.json() == {"id": heard.id, "object": "response", "deleted": True}
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(heard.id)


async def test_input_items_come_in_pages(client: openai.AsyncOpenAI) -> None:
    turns: Any = [{"role": "user", "content": f"turn {n}"} for n in range(5)]
    answer = await client.responses.create(model="demo", input=turns, extra_body=told(1))
    texts = [
        item.content[0].text  # type: ignore[union-attr]
        async for item in client.responses.input_items.list(answer.id, limit=2)
    ]
    assert texts == [f"turn {n}" for n in (4, 3, 2, 1, 0)]
    with pytest.raises(openai.NotFoundError):
        await client.responses.input_items.list(answer.id, after="no-such")


# Errors


@pytest.mark.parametrize(
    "asked",
    [
        {"input": []},
        {"input": "x", "conversation": "c"},
        {"input": "x", "tools": [{"type": "function"}]},
        {"input": [{"type": "item_reference"}]},
        {"input": "x", "stream": "yes"},
        {"input": "x", "max_output_tokens": 0},
        {"input": 3},
        {},
    ],
)
async def test_a_body_that_cannot_be_served_gets_an_error_with_the_reason(
    api: RawClient, asked: dict[str, Any]
) -> None:
    reply = await api.call("POST", "/v1/responses", body={"model": "demo", **asked})
    assert reply.status == 400
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_request")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("resp_00000000000000000000000000", 404),
        ("gen_00000000000000000000000000", 404),
        ("x", 404),
        ("resp_00000000000000000000000000/nothing", 404),
        ("resp_00000000000000000000000000?stream=maybe", 400),
        ("resp_00000000000000000000000000?stream=true&starting_after=-1", 400),
        ("resp_00000000000000000000000000?stream=true&starting_after=x", 400),
        ("resp_00000000000000000000000000/input_items?limit=0", 400),
    ],
)
async def test_errors_have_the_shape_of_openai(api: RawClient, path: str, status: int) -> None:
    reply = await api.get(f"/v1/responses/{path}")
    assert reply.status == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


async def test_a_sequence_number_that_no_server_sent_is_a_stream_reset(
    api: RawClient, client: openai.AsyncOpenAI
) -> None:
    answer = await client.responses.create(model="demo", input="tell me", extra_body=told(3))
    with pytest.raises(openai.ConflictError) as caught:
        await client.responses.retrieve(answer.id, stream=True, starting_after=10_000)
    assert caught.value.code == "stream_reset"


async def test_a_native_generation_can_be_read_as_a_response(
    api: RawClient, client: openai.AsyncOpenAI
) -> None:
    body = {"prompt": "tell me", "params": told(20), "model": "demo"}
    generation_id = await api.finished(body)
    found = ResponseEvents()
    named = generation_id.replace("gen_", "resp_")
    found = await hear(await client.responses.retrieve(named, stream=True))
    found.check()
    assert found.text == (await api.ended(generation_id))["text"]
