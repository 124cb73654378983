"""Requests of many megabytes: accepted up to the limit in each dialect, and refused beyond it.

The limit is the default of TAILRACE_BODY_BYTES_MAX.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from tests.support.demo import demo_body
from tests.support.raw_client import RawClient, hear, hear_until, tell
from tests.support.raw_wire import large_frame

BODY_BYTES_MAX = 33_554_432
PICTURE = "data:image/png;base64," + "iVBORw0KGgo=" * 250_000  # 3 MB
CONTENT = [
    {"type": "text", "text": "what is this"},
    {"type": "image_url", "image_url": {"url": PICTURE}},
]
DEMO: dict[str, Any] = {name: demo_body(3, 0)[name] for name in ("model", "params")}
MESSAGES = [{"role": "user", "content": CONTENT}]
NATIVE = {**DEMO, "messages": MESSAGES}
PARTS = [
    {"type": "text", "text": "what is this"},
    {"type": "file", "mediaType": "image/png", "url": PICTURE},
]
TO_AI_SDK = {**DEMO, "id": "c-large", "messages": [{"id": "m", "role": "user", "parts": PARTS}]}
FILES = [{"type": "image", "src": PICTURE}]
TO_DEEP_CHAT = {**DEMO, "messages": [{"role": "user", "text": "what is this", "files": FILES}]}
ITEM_PARTS = [
    {"type": "input_text", "text": "what is this"},
    {"type": "input_image", "image_url": PICTURE},
]
ITEM = {"role": "user", "content": ITEM_PARTS}
TO_RESPONSES = {"model": "demo", **DEMO["params"], "input": [ITEM]}
# The first frame of a client on each socket, and how the answer ends.
SOCKETS: dict[str, tuple[dict[str, Any], str]] = {
    "/v1/ws": ({"type": "start", "ref": "r", **NATIVE}, '"type":"end"'),
    "/lobe/ws": ({"type": "startConversation", "messageId": "m-large", **NATIVE}, '"type":"end"'),
    "/ai-sdk/ws": ({"type": "send", "requestId": "r", "body": DEMO, **TO_AI_SDK}, '"type":"end"'),
    "/v1/responses": ({"type": "response.create", **TO_RESPONSES}, '"type":"response.completed"'),
    "/deep-chat/ws": (TO_DEEP_CHAT, "stop-key"),
}


def is_error(frame: str) -> bool:
    """Whether a frame reports an error; a response without one has the member, as null."""
    return '"error"' in frame.replace('"error":null', "")


def socket(api: RawClient, path: str) -> Any:
    return api.socket(path=path, subprotocols=None)


async def heard_until(ws: ClientConnection, mark: str) -> list[str]:
    frames = [str(await ws.recv())]
    while mark not in frames[-1].replace(": ", ":"):
        frames.append(str(await ws.recv()))
    return frames


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/generations", NATIVE),
        ("/v1/chat/completions", {"model": "demo", "messages": MESSAGES, "max_tokens": 3}),
        ("/ai-sdk/chat", TO_AI_SDK),
        ("/deep-chat", TO_DEEP_CHAT),
    ],
    ids=["native", "chat", "ai-sdk", "deep-chat"],
)
async def test_a_request_with_a_large_picture_is_answered(
    api: RawClient, path: str, body: dict[str, Any]
) -> None:
    answer = await api.call("POST", path, body=body)

    assert answer.status in (200, 202) and not answer.is_broken, answer.body[:300]


async def test_a_large_request_comes_back_unchanged(api: RawClient) -> None:
    created = (await api.post(NATIVE)).json()["id"]

    assert (await api.ended(created))["messages"] == MESSAGES


@pytest.mark.parametrize("path", SOCKETS)
async def test_a_large_picture_on_a_socket_is_answered(api: RawClient, path: str) -> None:
    frame, mark = SOCKETS[path]
    text = json.dumps(frame)
    async with socket(api, path) as ws:
        await ws.send(text)
        frames = await heard_until(ws, mark)

    assert len(frames) > 1 and not is_error(frames[0])


@pytest.mark.parametrize("path", SOCKETS)
async def test_a_too_large_frame_is_an_error_and_the_next_one_is_answered(
    api: RawClient, path: str
) -> None:
    frame, mark = SOCKETS[path]
    # Built before the socket opens: this client answers no ping meanwhile.
    too_large = large_frame(json.dumps(frame | {"more": "x" * BODY_BYTES_MAX}).encode())
    accepted = large_frame(json.dumps(frame).encode())
    async with socket(api, path) as ws:
        ws.transport.write(too_large)
        refused = await heard_until(ws, str(BODY_BYTES_MAX))
        if path == "/deep-chat/ws":
            await heard_until(ws, mark)
        ws.transport.write(accepted)
        answered = await heard_until(ws, mark)

    assert is_error(refused[0])
    assert len(answered) > 1 and not is_error(answered[0])


async def test_answers_go_on_while_too_large_frames_are_refused(api: RawClient) -> None:
    part = b"x" * 9_000_000
    message = large_frame(part, fin=False) + large_frame(part, opcode=0, fin=False) * 2
    message += large_frame(part, opcode=0)  # one message in four fragments
    async with api.socket() as ws:
        await tell(ws, type="start", ref="r", **demo_body(40, 40))
        generation = (await hear(ws))["id"]
        for _ in range(2):
            ws.transport.write(message)
        frames = await hear_until(ws, "end")
        while sum(each["type"] == "error" for each in frames) < 2:
            frames.append(await hear(ws))

    errors = [each for each in frames if each["type"] == "error"]
    assert {(each["code"], each["retryable"]) for each in errors} == {("body_too_large", False)}
    ids = [each["event_id"] for each in frames if each.get("id") == generation and "text" in each]
    assert len(ids) == len(set(ids)) > 1
