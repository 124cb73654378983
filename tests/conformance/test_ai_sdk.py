"""The AI SDK's routes from outside: chunks over HTTP and on a socket, counted, resumed, stopped."""

from __future__ import annotations

import json
import uuid
from typing import Any
from urllib.parse import quote

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.demo import demo_body
from tests.support.raw_client import Answer, RawClient, hear, hear_until, tell
from tests.support.raw_wire import exchange, handshake

CHAT, SOCKET = "/ai-sdk/chat", "/ai-sdk/ws"
DONE, PING = b"data: [DONE]\n\n", b": ping\n"
RUN, TAIL = "x-workflow-run-id", "x-workflow-stream-tail-index"
UNKNOWN = "gen_00000000000000000000000000"
# Of the first part of a test's chats: no two runs share one.
NAMES = ["tame", "AbCdEfGhIj123456", "gen_is-no-run-of-mine-1234", "a/b ü?#%25", "..", "%", "\n"]


def new_chat(name: str = "chat") -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


def told(tokens: int = 5, per_s: float = 0, **controls: Any) -> dict[str, Any]:
    """The members that choose the demo model and say what it shall do."""
    body = demo_body(tokens, per_s, **controls)
    return {"model": body["model"], "params": body["params"]}


def asking(chat: str, *, text: str = "tell me", **members: Any) -> dict[str, Any]:
    """What DefaultChatTransport posts."""
    message = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": text}]}
    return {"id": chat, "trigger": "submit-message", "messages": [message], **members}


def path_of(name: str, what: str = "stream") -> str:
    return f"{CHAT}/{quote(name, safe='')}/{what}"


async def post(api: RawClient, body: dict[str, Any], **kwargs: Any) -> Answer:
    return await api.call("POST", CHAT, body=body, **kwargs)


def chunks(answer: Answer) -> list[dict[str, Any]]:
    """The chunks of a stream that ended well."""
    assert answer.status == 200 and not answer.is_broken, answer
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert answer.body.endswith(DONE)
    frames = answer.body.removesuffix(DONE).replace(PING, b"").removesuffix(b"\n\n")
    found = [chunk_of(frame) for frame in frames.split(b"\n\n")]
    assert [chunk["type"] for chunk in found].count("finish") == 1
    assert found[-1]["type"] == "finish"
    return found


def chunk_of(frame: bytes) -> dict[str, Any]:
    assert frame.startswith(b"data: ") and b"\n" not in frame, frame
    chunk: dict[str, Any] = json.loads(frame.removeprefix(b"data: "))
    return chunk


def text_of(found: list[dict[str, Any]]) -> str:
    return "".join(chunk["delta"] for chunk in found if chunk["type"] == "text-delta")


def kinds(found: list[dict[str, Any]]) -> list[str]:
    """The types in order, each run of deltas once."""
    types = [chunk["type"] for chunk in found]
    return [kind for at, kind in enumerate(types) if not at or kind != types[at - 1]]


async def begun(api: RawClient, chat: str, **kwargs: Any) -> str:
    """Start an endless answer in a chat, hang up, and return its run."""
    async with api.opened("POST", CHAT, body=asking(chat, **told(10_000, 20)), **kwargs) as head:
        run: str = head.headers[RUN]
    await api.running(run)
    return run


# Over HTTP


async def test_an_answer_has_chunks_and_a_finish(api: RawClient) -> None:
    answer = await post(api, asking(new_chat(), **told(20)))

    found = chunks(answer)
    run = answer.headers[RUN]
    assert answer.headers["x-generation-id"] == run
    assert kinds(found) == [
        "start", "start-step", "text-start", "text-delta", "text-end", "finish-step", "finish",
    ]  # fmt: skip
    assert found[0]["messageId"] == run
    assert found[-1]["finishReason"] == "stop"
    assert text_of(found) == (await api.ended(run))["text"]


async def test_reasoning_and_tool_calls_have_parts_of_their_own(api: RawClient) -> None:
    body = asking(new_chat(), **told(3, reasoning_tokens=3, tool_call="weather"))
    found = chunks(await post(api, body))

    assert kinds(found) == [
        "start", "start-step",
        "reasoning-start", "reasoning-delta", "reasoning-end",
        "text-start", "text-delta", "text-end",
        "tool-input-start", "tool-input-delta", "tool-input-available",
        "finish-step", "finish",
    ]  # fmt: skip
    (call,) = [chunk for chunk in found if chunk["type"] == "tool-input-available"]
    deltas = [chunk["inputTextDelta"] for chunk in found if chunk["type"] == "tool-input-delta"]
    assert call["toolName"] == "weather" and call["input"] == json.loads("".join(deltas))
    assert found[-1]["finishReason"] == "tool-calls"


@pytest.mark.parametrize("content_type", ["", "text/plain;charset=UTF-8", "application/json"])
async def test_a_body_is_read_as_json_with_any_content_type(
    api: RawClient, content_type: str
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    raw = json.dumps({"messages": asking("")["messages"], **told(3)}).encode()
    assert chunks(await api.call("POST", CHAT, raw=raw, headers=headers))


async def test_the_same_key_reads_the_same_answer(api: RawClient) -> None:
    body, headers = asking(new_chat(), **told(5)), {"Idempotency-Key": str(uuid.uuid4())}
    first, again = [
        await post(api, body, headers=headers, node=node) for node in (api.url, api.other_url)
    ]
    assert (first.headers[RUN], first.body) == (again.headers[RUN], again.body)
    other = await post(api, {**body, **told(6)}, headers=headers)
    assert other.status == 422


@pytest.mark.parametrize(("retryable", "controls"), [(False, {}), (True, {"reasoning_tokens": 2})])
async def test_a_failure_is_an_error_part_and_a_finish(
    api: RawClient, retryable: bool, controls: dict[str, Any]
) -> None:
    failing = told(5, fail_at=2, fail_retryable=retryable, fail_code="upstream_error", **controls)
    found = chunks(await post(api, asking(new_chat(), **failing)))

    error, finish = found[-2:]
    assert set(error) == {"type", "errorText"} and error["errorText"]
    assert finish == {"type": "finish", "finishReason": "error"}


@pytest.mark.parametrize("name", NAMES)
async def test_a_chats_running_answer_is_replayed_and_stopped_on_any_node(
    api: RawClient, name: str
) -> None:
    chat = new_chat(name)
    assert (await api.get(path_of(chat))).status == 204
    run = await begun(api, chat)
    async with (
        api.opened("GET", path_of(chat), node=api.other_url) as replay,
        api.opened("GET", path_of(chat) + "?startIndex=0") as counted,
    ):
        blocks = [await each.content.readuntil(b"\n\n") for each in (replay, counted)]
        for node in (api.other_url, api.url):
            assert (await api.call("POST", path_of(chat, "stop"), node=node)).status == 204
            assert (await api.get(path_of(chat), node=node)).status == 204

        found, whole = [
            chunks(Answer(each.status, each.headers, block + await each.content.read()))
            for each, block in zip((replay, counted), blocks, strict=True)
        ]
    # Where nobody counts, the text so far may be one delta.
    assert (kinds(found), text_of(found)) == (kinds(whole), text_of(whole))
    assert found[0]["messageId"] == run
    assert kinds(found)[-3:] == ["text-end", "abort", "finish"]
    assert found[-1]["finishReason"] == "other"
    ended = await api.ended(run)
    assert (ended["status"], ended["text"]) == ("cancelled", text_of(found))


async def test_a_client_that_hangs_up_stops_nothing(api: RawClient) -> None:
    async with api.opened("POST", CHAT, body=asking(new_chat(), **told(40, 20))) as response:
        run = response.headers[RUN]
        await response.content.readuntil(b"\n\n")
    assert (await api.ended(run))["status"] == "completed"


# Counted


async def test_every_index_gives_the_same_chunks_on_every_node(api: RawClient) -> None:
    answer = await post(api, asking(new_chat(), **told(6)))
    whole, run = chunks(answer), answer.headers[RUN]
    tail = len(whole) - 1
    for number in [*range(tail + 3), 10**9, *range(-tail - 3, 0)]:
        for node in (api.url, api.other_url):
            found = await api.get(path_of(run) + f"?startIndex={number}", node=node)
            assert chunks(found) == (whole[number:] or whole[-1:]), number
            assert found.headers[TAIL] == str(tail)


async def test_a_run_resumes_on_another_node_at_the_next_chunk(api: RawClient) -> None:
    chat = new_chat()
    seen: list[dict[str, Any]] = []
    async with api.opened("POST", CHAT, body=asking(chat, **told(60, 40))) as response:
        run = response.headers[RUN]
        while len(seen) < 12:
            block = await response.content.readuntil(b"\n\n")
            seen.append(chunk_of(block.replace(PING, b"").removesuffix(b"\n\n")))
    rest = await api.get(path_of(run) + f"?startIndex={len(seen)}", node=api.other_url)

    assert int(rest.headers[TAIL]) >= len(seen) - 1
    whole = chunks(await api.get(path_of(run) + "?startIndex=0"))
    assert seen + chunks(rest) == whole
    assert text_of(whole) == (await api.ended(run))["text"]


@pytest.mark.parametrize("name", [UNKNOWN, "no-such-chat", "AbCdEfGhIj123456", "x/y"])
async def test_an_unknown_run_is_404_with_a_sentence(api: RawClient, name: str) -> None:
    answer = await api.get(path_of(name) + "?startIndex=0")
    assert answer.status == 404
    assert answer.headers["content-type"].startswith("text/plain")
    assert b"not_found" in answer.body


@pytest.mark.parametrize("index", ["", "x", "1.5", "1e3", "0x1", "9" * 30, "%00", "٣"])
async def test_an_index_that_is_no_number_is_400(api: RawClient, index: str) -> None:
    assert (await api.get(path_of(UNKNOWN) + f"?startIndex={quote(index)}")).status == 400


async def test_head_ends_at_once(api: RawClient) -> None:
    chat = new_chat()
    run = await begun(api, chat)
    for path in (path_of(chat), path_of(run) + "?startIndex=0"):
        answer = await api.call("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")
    assert (await api.call("POST", path_of(chat, "stop"))).status == 204


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"messages": []}, 422),
        ({"messages": [1]}, 422),
        ({"messages": [{"role": "user", "parts": [{"type": "text"}]}]}, 422),
        ({"messages": [{"role": "robot", "parts": []}]}, 422),
        ({**asking("c"), "id": 7}, 422),
        ({**asking("c"), "resetStep": "yes"}, 422),
        ({**asking("c"), "params": []}, 422),
        ({**asking("c"), "model": "no-such-model"}, 404),
        ([], 422),
    ],
    ids=str,
)
async def test_a_wrong_request_gets_a_sentence(api: RawClient, body: Any, status: int) -> None:
    answer = await post(api, body)
    assert answer.status == status
    assert answer.headers["content-type"].startswith("text/plain")
    assert b"{" not in answer.body


# On the socket


def socket(api: RawClient, node: str = "") -> connect:
    return api.socket(node, path=SOCKET, subprotocols=None)


def sending(chat: str, request: str = "r1", **members: Any) -> dict[str, Any]:
    """What WebSocketChatTransport sends."""
    body = members.pop("body", told())
    return {**asking(chat), "type": "send", "requestId": request, "body": body, **members}


async def heard(
    ws: ClientConnection, request: str, *before: dict[str, Any]
) -> list[dict[str, Any]]:
    """The chunks of one request, counted from 0; `before` has its frames that were read before."""
    first, *frames, end = [*before, *await hear_until(ws, "end")]
    assert (first, end["requestId"]) == ({"type": "start", "requestId": request}, request)
    assert [frame["sequence"] for frame in frames] == list(range(len(frames)))
    assert {frame["requestId"] for frame in frames} == {request}
    found: list[dict[str, Any]] = [frame["chunk"] for frame in frames]
    assert found[-1]["type"] == "finish"
    return found


async def test_a_socket_gives_the_chunks_of_http(api: RawClient) -> None:
    chat = new_chat()
    async with socket(api) as ws:
        await tell(ws, **sending(chat))
        found = await heard(ws, "r1")
        await tell(ws, type="resume", requestId="r2", id=chat)
        assert await hear(ws) == {"type": "no-active", "requestId": "r2"}

    run = found[0]["messageId"]
    assert found == chunks(await api.get(path_of(run) + "?startIndex=0", node=api.other_url))


async def test_a_lost_socket_stops_nothing_and_an_abort_on_another_node_stops_the_answer(
    api: RawClient,
) -> None:
    chat = new_chat()
    async with socket(api) as one, socket(api) as lost, socket(api, api.other_url) as other:
        await tell(lost, **sending(chat, body=told(10_000, 20)))
        seen = [await hear(lost) for _ in range(8)]
        await lost.close()
        await tell(one, type="resume", requestId="a", id=chat)
        await tell(other, type="resume", requestId="b", id=chat)
        start = await hear(one)
        await hear(other)
        await tell(other, type="abort", requestId="b")
        found = await heard(one, "a", start)
        await tell(other, type="resume", requestId="c", id=chat)
        assert (await hear_until(other, "no-active"))[-1]["requestId"] == "c"

    assert found[: len(seen) - 1] == [frame["chunk"] for frame in seen[1:]]
    assert kinds(found)[-2:] == ["abort", "finish"]
    assert (await api.ended(found[0]["messageId"]))["status"] == "cancelled"


async def test_many_requests_share_a_socket(api: RawClient) -> None:
    frames: list[dict[str, Any]] = []
    async with socket(api) as ws:
        for name in "abc":
            await tell(ws, **sending(new_chat(), name, body=told(20, 100)))
        while sum(frame["type"] == "end" for frame in frames) < 3:
            frames.append(await hear(ws))
    for name in "abc":
        own = [f for f in frames if f["requestId"] == name and f["type"] == "chunk"]
        assert [frame["sequence"] for frame in own] == list(range(len(own)))


@pytest.mark.parametrize(
    "text",
    [
        "", "no json", "[]", "null", "{}", '{"type":1}', '{"type":"send"}',
        '{"type":"send","requestId":"","id":"c","messages":[]}',
        '{"type":"send","requestId":"r","id":"c","messages":[]}',
        '{"type":"send","requestId":"r","id":"c","messages":[{"role":"user","content":"x"}],"body":1}',
        '{"type":"send","requestId":"r","id":"c","messages":[{"role":"user","content":"x"}],'
        '"body":{"model":"no-such-model"}}',
        '{"type":"resume","requestId":"r"}',
        '{"type":"resume","requestId":"r","id":["c"]}',
        '{"type":"abort"}',
        "[" * 50_000,
    ],
    ids=lambda text: text[:60],
)  # fmt: skip
async def test_a_wrong_frame_gets_an_error_and_the_socket_stays_open(
    api: RawClient, text: str
) -> None:
    async with socket(api) as ws:
        await ws.send(text)
        error = await hear(ws)
        assert set(error) == {"type", "requestId", "errorText"}
        assert error["type"] == "error" and error["errorText"]
        await tell(ws, type="resume", requestId="alive", id=new_chat())
        assert await hear(ws) == {"type": "no-active", "requestId": "alive"}


async def test_a_foreign_origin_is_refused_at_the_handshake(api: RawClient) -> None:
    headers = api.credentials | {"Origin": "https://evil.example"}
    received = await exchange(api.url, handshake(api.url, headers, path=SOCKET), within_s=3)
    assert received.split(b" ")[1] == b"403"
