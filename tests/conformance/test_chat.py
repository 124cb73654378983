"""Chat completions by OpenAI's own SDK: streamed and whole, errors before and in the answer."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.support.raw_client import RawClient
from tests.support.sdk import HELLO, listen, sdk
from tests.support.wait import until

CHAT = "/v1/chat/completions"


def told(tokens: int, per_s: float = 0, **controls: Any) -> dict[str, Any]:
    """What the demo model is to do, as the SDK sends it beside OpenAI's own members."""
    return {"demo": {"tokens": tokens, "tokens_per_s": per_s, "first_token_s": 0, **controls}}


@pytest.fixture
async def client(api: RawClient) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(f"{api.url}/v1", api.key) as client:
        yield client


async def native_text(api: RawClient, generation_id: str) -> str:
    text: str = (await api.ended(generation_id))["text"]
    return text


@pytest.mark.parametrize("prefix", ["/v1", ""])
async def test_a_stream_has_the_whole_answer(api: RawClient, prefix: str) -> None:
    async with sdk(api.url + prefix, api.key) as client:
        response = await client.chat.completions.with_raw_response.create(
            model="demo", messages=HELLO, stream=True, extra_body=told(30)
        )
        heard = await listen(response.parse())

    assert heard.error is None
    assert heard.id == response.headers["x-generation-id"]
    assert heard.text == await native_text(api, heard.id) != ""
    assert heard.finish_reasons == ["stop"]
    first = heard.chunks[0].choices[0].delta
    assert (first.role, first.content) == ("assistant", "")
    assert all(chunk.choices for chunk in heard.chunks)  # no usage unless asked
    assert {chunk.model for chunk in heard.chunks} == {"demo"}
    assert len({chunk.created for chunk in heard.chunks}) == 1


async def test_the_usage_comes_last_when_the_request_asks_for_it(
    client: openai.AsyncOpenAI,
) -> None:
    stream = await client.chat.completions.create(
        model="demo", messages=HELLO, stream=True, extra_body=told(5),
        stream_options={"include_usage": True},
    )  # fmt: skip
    *others, last = (await listen(stream)).chunks

    assert last.choices == []
    assert last.usage is not None and last.usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in others)


async def test_an_answer_in_one_piece_has_the_same_text(
    api: RawClient, client: openai.AsyncOpenAI
) -> None:
    answer = await client.chat.completions.create(model="demo", messages=HELLO, extra_body=told(30))

    assert answer.object == "chat.completion"
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == await native_text(api, answer.id) != ""
    assert choice.finish_reason == "stop"
    assert answer.usage is not None and answer.usage.total_tokens > 0


async def test_params_reach_the_backend(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="demo", messages=HELLO, max_tokens=3, temperature=0.5, extra_body=told(30)
    )
    assert answer.choices[0].finish_reason == "length"


async def test_the_sdk_assembles_a_tool_call(client: openai.AsyncOpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    asked: Any = {"model": "demo", "messages": HELLO, "tools": [tool]}
    asked["extra_body"] = told(3, tool_call="weather", seed=7)
    async with client.chat.completions.stream(**asked) as stream:
        streamed = (await stream.get_final_completion()).choices[0]
    whole = (await client.chat.completions.create(**asked)).choices[0]

    for choice in (streamed, whole):
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls or []
        assert call.id and call.function.name == "weather"
        assert isinstance(json.loads(call.function.arguments), dict)


async def test_reasoning_is_a_member_of_its_own(api: RawClient, client: openai.AsyncOpenAI) -> None:
    asked: Any = {"model": "demo", "messages": HELLO, "extra_body": told(3, reasoning_tokens=5)}
    heard = await listen(await client.chat.completions.create(**asked, stream=True))
    whole = await client.chat.completions.create(**asked)

    snapshot = await api.ended(heard.id)
    assert (heard.text, heard.reasoning) == (snapshot["text"], snapshot["reasoning"])
    message: Any = whole.choices[0].message
    snapshot = await api.ended(whole.id)
    assert message.reasoning_content == snapshot["reasoning"] != ""
    assert message.content == snapshot["text"]


# Errors before the first byte


async def test_an_unknown_model_is_404(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="no-such", messages=HELLO, stream=True)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model="demo", messages=HELLO, n=2)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": "hi"},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "boss", "content": "hi"}]},
        {"messages": HELLO, "n": 2},
        {"messages": HELLO, "stream": "yes"},
        {"messages": HELLO, "stream_options": []},
        {"messages": HELLO, "on_disconnect": "never"},
        {"messages": HELLO, "model": 7},
        {"messages": [{"role": "user", "content": "\ud800"}]},
    ],
)
async def test_a_body_that_says_something_wrong_is_400(api: RawClient, body: Any) -> None:
    answer = await api.call("POST", CHAT, body=body)
    assert answer.status == 400
    openai_error(answer.json(), "invalid_request")


@pytest.mark.parametrize(
    ("method", "path", "raw", "status", "code"),
    [
        ("POST", CHAT, b"{", 400, "invalid_json"),
        ("POST", CHAT, b"\xff", 400, "invalid_json"),
        ("GET", CHAT, b"", 405, "method_not_allowed"),
        ("POST", "/chat/completions/x", b"{}", 404, "not_found"),
        ("POST", "/v1/chat", b"{}", 404, "not_found"),
    ],
)
async def test_every_error_has_openais_shape(
    api: RawClient, method: str, path: str, raw: bytes, status: int, code: str
) -> None:
    answer = await api.call(method, path, raw=raw, headers={"Content-Type": "application/json"})
    assert answer.status == status
    openai_error(answer.json(), code)


def openai_error(body: Any, code: str) -> None:
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == code
    assert body["error"]["message"] and body["error"]["type"]


async def test_a_wrong_base_url_gets_an_error_that_names_the_right_one(api: RawClient) -> None:
    answer = await api.call("POST", "/v1/v1/chat/completions", body={"messages": HELLO})
    assert answer.status == 404
    assert "/v1" in answer.json()["error"]["message"]


async def test_absent_null_and_unknown_members_are_no_error(api: RawClient) -> None:
    body = {"messages": HELLO, "model": None, "stop": None, "made_up": {"a": 1}, **told(3)}
    answer = await api.call("POST", CHAT, body=body)
    assert answer.status == 200
    first = (await api.get("/v1/models")).json()["data"][0]["id"]
    assert answer.json()["model"] == first


# Errors after it

BROKEN = {"fail_at": 3, "fail_always": True, "fail_retryable": False}


async def test_a_stream_whose_backend_fails_in_mid_answer_ends_with_an_error(
    client: openai.AsyncOpenAI,
) -> None:
    stream = await client.chat.completions.create(
        model="demo", messages=HELLO, stream=True, extra_body=told(9, **BROKEN)
    )
    heard = await listen(stream)

    assert heard.text
    assert heard.error is not None and heard.error.code == "upstream_error"
    assert heard.finish_reasons == []


async def test_the_body_of_a_failed_stream_is_finished(api: RawClient) -> None:
    body = {"messages": HELLO, "stream": True, **told(9, **BROKEN)}
    answer = await api.call("POST", CHAT, body=body)

    assert not answer.is_broken
    assert answer.body.endswith(b"}}\n\ndata: [DONE]\n\n")
    openai_error(
        json.loads(answer.body.split(b"\n\n")[-3].removeprefix(b"data: ")), "upstream_error"
    )


async def test_an_answer_in_one_piece_whose_backend_fails_is_an_error_response(
    client: openai.AsyncOpenAI,
) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(
            model="demo", messages=HELLO, extra_body=told(9, **BROKEN)
        )
    assert caught.value.status_code >= 500
    assert caught.value.code == "upstream_error"
    headers = caught.value.response.headers
    assert headers["x-generation-id"]
    assert headers["x-should-retry"] == "false"  # each try of the SDK's would be another generation


async def test_a_cancel_ends_a_stream_and_an_answer_in_one_piece(
    api: RawClient, client: openai.AsyncOpenAI
) -> None:
    stream = await client.chat.completions.create(
        model="demo", messages=HELLO, stream=True, extra_body=told(10_000, 20)
    )
    first = await anext(stream)
    session = f"s-{first.id}"
    whole = asyncio.ensure_future(
        client.chat.completions.create(
            model="demo", messages=HELLO, extra_body={**told(10_000, 20), "session": session}
        )
    )
    other = await running_in(api, session)
    for generation_id in (first.id, other):
        path = f"/v1/generations/{generation_id}/cancel"
        assert (await api.call("POST", path, node=api.other_url)).status == 202

    heard = await listen(stream)
    assert heard.error is not None and heard.error.code == "cancelled"
    with pytest.raises(openai.ConflictError) as caught:
        await whole
    assert caught.value.code == "cancelled"


async def running_in(api: RawClient, session: str) -> str:
    async def active() -> Any:
        return (await api.get(f"/v1/sessions/{session}")).json()["active"]

    generation_id: str = (await until(active, 10, f"something in {session}"))[0]
    await api.running(generation_id)
    return generation_id


# Coming and going


async def test_a_reader_that_is_cut_off_resumes_natively_at_the_other_node(
    api: RawClient, client: openai.AsyncOpenAI
) -> None:
    stream = await client.chat.completions.create(
        model="demo", messages=HELLO, stream=True, extra_body=told(60, 60)
    )
    heard = await listen(stream, chunks=20)

    rest = await api.events(heard.id, heard.cursor, node=api.other_url)

    text = "".join(event.fields["text"] for event in rest.events if event.type == "token")
    snapshot = await api.ended(heard.id)
    assert snapshot["status"] == "completed"
    assert heard.text + text == snapshot["text"]


async def test_a_client_that_hangs_up_cancels_its_answer(
    api: RawClient, client: openai.AsyncOpenAI
) -> None:
    stream = await client.chat.completions.create(
        model="demo", messages=HELLO, stream=True,
        extra_body={**told(10_000, 20), "on_disconnect": 0.2},
    )  # fmt: skip
    heard = await listen(stream, chunks=3)

    assert (await api.ended(heard.id))["status"] == "cancelled"


async def test_who_hangs_up_before_the_head_cancels(api: RawClient) -> None:
    """The head waits for the first content, which this model has only after a minute."""
    session = f"s-{uuid.uuid4()}"
    body = {"messages": HELLO, "stream": True, "session": session, "on_disconnect": "cancel"}
    body |= {"demo": {"tokens": 3, "first_token_s": 60}}
    asking = asyncio.ensure_future(api.call("POST", CHAT, body=body))
    generation_id = await api.first_of(session)
    assert not asking.done()
    asking.cancel()

    assert (await api.ended(generation_id))["status"] == "cancelled"


async def test_a_client_that_hangs_up_while_another_client_reads_cancels_nothing(
    api: RawClient, client: openai.AsyncOpenAI
) -> None:
    stream = await client.chat.completions.create(
        model="demo", messages=HELLO, stream=True,
        extra_body={**told(40, 20), "on_disconnect": 0.2},
    )  # fmt: skip
    first = await anext(stream)
    async with api.stream(first.id, node=api.other_url) as other:
        await other.content.readline()
        await stream.close()
        await other.read()

    assert (await api.ended(first.id))["status"] == "completed"


async def test_an_answer_in_one_piece_is_cancelled_when_its_client_hangs_up(
    api: RawClient, client: openai.AsyncOpenAI
) -> None:
    session = "s-hung-up-whole"
    body = {**told(10_000, 20), "on_disconnect": 0.2, "session": session}
    asking = asyncio.ensure_future(
        client.chat.completions.create(model="demo", messages=HELLO, extra_body=body)
    )
    generation_id = await running_in(api, session)
    asking.cancel()

    assert (await api.ended(generation_id))["status"] == "cancelled"


async def test_the_same_key_reads_the_same_answer_on_any_node(
    api: RawClient, client: openai.AsyncOpenAI
) -> None:
    asked: Any = {"model": "demo", "messages": HELLO, "extra_body": told(30, 60)}
    asked["extra_headers"] = {"Idempotency-Key": f"chat-{id(client)}"}
    stream = await client.chat.completions.create(**asked, stream=True)
    first = await anext(stream)
    async with sdk(f"{api.other_url}/v1", api.key) as other:
        again = asyncio.ensure_future(
            listen(await other.chat.completions.create(**asked, stream=True))
        )
        whole = await other.chat.completions.create(**asked)
        heard, repeated = await listen(stream), await again

    assert first.id == heard.id == repeated.id == whole.id
    assert heard.text == repeated.text == whole.choices[0].message.content


# Models


@pytest.mark.parametrize("prefix", ["/v1", ""])
async def test_the_models_are_listed_and_found(api: RawClient, prefix: str) -> None:
    async with sdk(api.url + prefix, api.key) as client:
        models = [model async for model in client.models.list()]
        assert "demo" in [model.id for model in models]
        found = await client.models.retrieve(models[0].id)
        assert (found.id, found.object) == (models[0].id, "model")
        assert found.created > 0 and found.owned_by
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve("no/such")
    assert caught.value.code == "model_not_found"
