"""/lobe/ws from outside: a conversation, resumes at every cursor, what is wrong, how it closes."""

from __future__ import annotations

import itertools
import json
import uuid
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.demo import demo_body
from tests.support.raw_client import RawClient, hear, hear_until, tell
from tests.support.raw_wire import first_line, frame, handshake, large_frame, raw_socket_close_code

PATH = "/lobe/ws"


def socket(api: RawClient, node: str = "") -> connect:
    return api.socket(node, path=PATH, subprotocols=None)


def conversation(tokens: int = 8, per_s: float = 0, **members: Any) -> dict[str, Any]:
    body = demo_body(tokens, per_s)
    named = {"sessionId": "s1", "messageId": f"m-{uuid.uuid4()}"}
    return {"type": "startConversation", **body, **named, **members}


async def is_alive(ws: ClientConnection) -> bool:
    await tell(ws, type="ping")
    return (await hear_until(ws, "pong"))[-1] == {"type": "pong"}


def text_of(frames: list[dict[str, Any]]) -> str:
    return "".join(f["content"] for f in frames if f["type"] == "token")


def check(frames: list[dict[str, Any]], message_id: str) -> None:
    """Of one reading without a reset: named, in order, one end and last."""
    assert {f["messageId"] for f in frames} == {message_id}
    places = [tuple(map(int, f["id"].split("-"))) for f in frames if "id" in f]
    assert places == sorted(set(places))
    assert [f["type"] for f in frames].count("end") == 1
    assert frames[-1]["type"] == "end"


async def test_a_conversation_has_tokens_and_then_one_end(api: RawClient):
    start = conversation()
    async with socket(api) as ws:
        await tell(ws, **start)
        frames = await hear_until(ws, "end")
        assert await is_alive(ws)

    check(frames, start["messageId"])
    assert {f["type"] for f in frames} == {"token", "end"}
    assert set(frames[0]) == {"type", "content", "messageId", "id"}
    assert frames[-1]["status"] == "completed"
    assert frames[-1]["usage"]["completion_tokens"] == 8


async def test_a_prompt_and_a_session_are_enough(api: RawClient):
    async with socket(api) as ws:
        await tell(ws, type="startConversation", prompt="Hi", sessionId="s1")
        frames = await hear_until(ws, "token")
        # The whole answer would take ten seconds.
        await tell(ws, type="cancel", messageId=frames[0]["messageId"])
        frames += await hear_until(ws, "end")

    check(frames, frames[0]["messageId"])


async def test_one_socket_carries_many_messages(api: RawClient):
    starts = [conversation(10, 100) for _ in range(3)]
    frames: list[dict[str, Any]] = []
    async with socket(api) as ws:
        for start in starts:
            await tell(ws, **start)
        while sum(f["type"] == "end" for f in frames) < 3:
            frames.append(await hear(ws))

    for start in starts:
        named = start["messageId"]
        check([f for f in frames if f["messageId"] == named], named)


async def test_a_second_start_reads_the_same_message_on_any_node(api: RawClient):
    start = conversation(20, 40)
    async with socket(api) as one, socket(api, api.other_url) as other:
        await tell(one, **start)
        await hear(one)
        await tell(other, **start)
        frames = await hear_until(other, "end")
        await tell(one, **start)
        await hear_until(one, "end")
        await tell(one, **start)
        again = await hear_until(one, "end")
        await tell(other, **{**start, "prompt": "something else"})
        refused = await hear(other)

    check(frames, start["messageId"])
    check(again, start["messageId"])
    assert text_of(frames) == text_of(again)
    assert frames[-1] == again[-1]
    assert (refused["type"], refused["code"]) == ("error", "idempotency_mismatch")


async def test_resume_continues_after_every_cursor_on_any_node(api: RawClient):
    start = conversation()
    async with socket(api) as ws:
        await tell(ws, **start)
        frames = await hear_until(ws, "end")

    for place, node in zip(range(len(frames) - 1), itertools.cycle([api.url, api.other_url])):
        async with socket(api, node) as ws:
            cursor = frames[place]["id"]
            await tell(ws, type="resume", messageId=start["messageId"], lastEventId=cursor)
            rest = await hear_until(ws, "resume_complete")
        said = {"messageId": start["messageId"], "status": "completed", "gap": False}
        assert rest.pop() == {"type": "resume_complete", **said}
        assert text_of(frames[: place + 1] + rest) == text_of(frames)
        check([*frames[: place + 1], *rest], start["messageId"])


async def test_resume_of_a_running_message_says_when_the_reader_has_caught_up(api: RawClient):
    start = conversation(60, 40)
    async with socket(api) as one, socket(api, api.other_url) as other:
        await tell(one, **start)
        first = [await hear(one) for _ in range(10)]
        await one.close()
        at = {"messageId": start["messageId"], "lastEventId": first[-1]["id"]}
        await tell(other, type="resume", **at)
        frames = await hear_until(other, "end")

    marks = [f for f in frames if f["type"] == "resume_complete"]
    assert [(f["status"], f["gap"]) for f in marks] == [("running", False)]
    check(first + [f for f in frames if f not in marks], start["messageId"])


async def test_resume_from_a_foreign_cursor_is_a_gap(api: RawClient):
    start = conversation()
    async with socket(api) as ws:
        await tell(ws, **start)
        frames = await hear_until(ws, "end")
        await tell(ws, type="resume", messageId=start["messageId"], lastEventId="9-3")
        again = await hear_until(ws, "resume_complete")

    assert (again[0]["type"], again[0]["id"]) == ("reset", "0-0")
    assert again[-1]["gap"] is True
    assert text_of(again) == text_of(frames)
    assert [f["type"] for f in again].count("end") == 1


async def test_cancel_from_another_node_ends_it_as_cancelled(api: RawClient):
    start = conversation(10_000, 20)
    async with socket(api) as one, socket(api, api.other_url) as other:
        await tell(one, **start)
        await hear_until(one, "token")
        await tell(other, type="cancel", messageId=start["messageId"])
        frames = await hear_until(one, "end")
        await tell(other, type="cancel", messageId=start["messageId"])
        assert await is_alive(other)

    assert frames[-1]["status"] == "cancelled"


async def test_a_failure_of_the_model_server_is_an_error_and_then_the_end(api: RawClient):
    start = conversation(params={"demo": {"tokens": 5, "fail_at": 2, "fail_retryable": False}})
    async with socket(api) as ws:
        await tell(ws, **start)
        frames = await hear_until(ws, "end")

    check(frames, start["messageId"])
    assert [f["type"] for f in frames[-2:]] == ["error", "end"]
    assert set(frames[-2]) == {"type", "messageId", "code", "message", "retryable"}
    assert frames[-1]["status"] == "failed"


async def test_a_lost_socket_does_not_cancel(api: RawClient):
    start = conversation(20, 40)
    async with socket(api) as ws:
        await tell(ws, **start)
        await hear_until(ws, "token")
    async with socket(api, api.other_url) as ws:
        await tell(ws, type="resume", messageId=start["messageId"])
        frames = await hear_until(ws, "end")

    assert frames[-1]["status"] == "completed"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        "null",
        "{}",
        '{"type":1}',
        '{"type":"no-such-type"}',
        '{"type":"startConversation"}',
        '{"type":"startConversation","prompt":1,"sessionId":"s"}',
        '{"type":"startConversation","prompt":"x","sessionId":1}',
        '{"type":"startConversation","prompt":"x","sessionId":"s","messageId":1}',
        '{"type":"startConversation","prompt":"x","sessionId":"s","model":"no-such-model"}',
        '{"type":"resume"}',
        '{"type":"resume","messageId":"no-such-message"}',
        '{"type":"resume","messageId":"no-such-message","lastEventId":"abc"}',
        '{"type":"resume","messageId":["x"]}',
        '{"type":"cancel"}',
        '{"type":"cancel","messageId":"no-such-message"}',
        '{"type":"cancel","messageId":"\\ud800"}',
        "[" * 50_000,
    ],
    ids=lambda text: text[:60],
)
async def test_a_wrong_frame_gets_an_error_and_the_socket_stays_open(api: RawClient, text: str):
    async with socket(api) as ws:
        await ws.send(text)
        error = await hear(ws)

        assert error["type"] == "error"
        assert set(error) >= {"type", "code", "message", "retryable"}
        assert await is_alive(ws)


async def test_a_binary_frame_gets_an_error_and_close_code_1003(api: RawClient):
    async with socket(api) as ws:
        await ws.send(b"\x00\x01")
        assert (await hear(ws))["type"] == "error"
        await ws.wait_closed()

    assert ws.close_code == 1003


@pytest.mark.parametrize(
    ("sent", "code"),
    [(frame(b"\xff\xfe"), 1007), (large_frame(b"", announced=2**40), 1009)],
    ids=["utf-8", "large"],
)
async def test_a_protocol_violation_closes_the_socket_with_its_code(api: RawClient, sent, code):
    assert await raw_socket_close_code(api.url, sent, api.credentials, path=PATH) == code


async def test_a_foreign_origin_is_refused_at_the_handshake(api: RawClient):
    headers = api.credentials | {"Origin": "https://evil.example"}
    received = await first_line(api.url, handshake(api.url, headers, path=PATH))

    assert received.split(b" ")[1] == b"403"


async def test_a_message_is_a_generation_of_its_session(api: RawClient):
    session = f"s-{uuid.uuid4()}"
    start = conversation(sessionId=session)
    async with socket(api) as ws:
        await tell(ws, **start)
        frames = await hear_until(ws, "end")
        (listed,) = (await api.get(f"/v1/sessions/{session}")).json()["generations"]
        await tell(ws, type="resume", messageId=listed["id"])
        by_id = await hear_until(ws, "end")

    log = await api.log(listed["id"])
    assert text_of(by_id) == text_of(frames) == "".join(e.fields.get("text", "") for e in log)
    assert json.dumps(frames[-1]["id"]) == json.dumps(log[-1].event_id)
