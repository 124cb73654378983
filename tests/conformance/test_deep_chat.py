"""deep-chat's routes from outside: a stream, one Response, a socket whose answers a key closes."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any
from urllib.parse import quote

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.demo import demo_body
from tests.support.raw_client import ANSWER_S, Answer, RawClient
from tests.support.raw_wire import exchange, frame, handshake, large_frame, raw_socket_close_code

CHAT, SOCKET, KEY = "/deep-chat", "/deep-chat/ws", "stop-key"
SSE = {"Accept": "text/event-stream"}
PING = b": ping\n"


def asking(tokens: int = 5, per_s: float = 0, **controls: Any) -> dict[str, Any]:
    """What the component sends, with additionalBodyProps of ours."""
    body = demo_body(tokens, per_s, **controls)
    messages = [{"role": "user", "text": "tell me"}]
    return {"messages": messages, "model": body["model"], "params": body["params"]}


def new_session() -> str:
    return f"s-{uuid.uuid4()}"


async def post(api: RawClient, body: Any, **headers: str) -> Answer:
    return await api.call("POST", CHAT, body=body, headers=headers)


async def newest(api: RawClient, session: str) -> dict[str, Any]:
    listed = await api.get(f"/v1/sessions/{session}", node=api.other_url)
    found: dict[str, Any] = listed.json()["generations"][0]
    return found


def responses(answer: Answer) -> list[dict[str, Any]]:
    """The Responses of a stream that ended well; each block has its cursor."""
    assert answer.status == 200 and not answer.is_broken, answer
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.body.replace(PING, b"").removesuffix(b"\n\n").split(b"\n\n"):
        cursor, _, data = block.partition(b"\n")
        assert cursor.startswith(b"id: ") and data.startswith(b"data: ") and b"\n" not in data
        found.append(json.loads(data.removeprefix(b"data: ")))
    return found


def shown(found: list[dict[str, Any]]) -> str:
    """The text of the bubble in the end."""
    text = ""
    for response in found:
        if "text" in response:
            text = response["text"] if response.get("overwrite") else text + response["text"]
    return text


# Over HTTP


async def test_a_stream_has_the_whole_answer(api: RawClient) -> None:
    answer = await post(api, asking(20), **SSE)

    found = responses(answer)
    snapshot = await api.ended(answer.headers["x-generation-id"])
    assert shown(found) == snapshot["text"] != ""
    assert all(set(response) == {"text"} for response in found)
    assert snapshot["messages"] == [{"role": "user", "content": "tell me"}]


@pytest.mark.parametrize("accept", ["", "*/*", "application/json"])
async def test_a_request_without_the_accept_header_gets_one_response(
    api: RawClient, accept: str
) -> None:
    answer = await post(api, asking(20), **({"Accept": accept} if accept else {}))

    assert answer.headers["content-type"].startswith("application/json")
    snapshot = await api.ended(answer.headers["x-generation-id"])
    assert answer.json() == {"text": snapshot["text"]}


async def test_a_failure_keeps_the_text_and_is_told_in_a_sentence(api: RawClient) -> None:
    failing = asking(5, fail_at=2, fail_retryable=False)
    *texts, error = responses(await post(api, failing, **SSE))
    assert texts and set(error) == {"error"} and isinstance(error["error"], str)

    whole = await post(api, failing)
    assert whole.status >= 500 and whole.headers["x-generation-id"]
    assert isinstance(whole.json()["error"], str)


async def test_an_answer_that_begins_anew_overwrites(api: RawClient) -> None:
    """No attempt goes on from a thought: what is shown in the end is the last one's text."""
    answer = await post(api, asking(5, fail_at=2, reasoning_tokens=2), **SSE)
    found = responses(answer)
    assert any(response.get("overwrite") for response in found)
    assert shown(found) == (await api.ended(answer.headers["x-generation-id"]))["text"]


@pytest.mark.parametrize("headers", [SSE, {}])
async def test_a_cancel_from_another_node_ends_the_answer_with_its_text_so_far(
    api: RawClient, headers: dict[str, str]
) -> None:
    session = new_session()
    body = {**asking(10_000, 20), "session": session}
    waiting = asyncio.ensure_future(post(api, body, **headers))
    generation_id = await api.first_of(session)
    await api.running(generation_id)
    await api.call("POST", f"/v1/generations/{generation_id}/cancel", node=api.other_url)
    answer = await waiting

    text = shown(responses(answer)) if headers else answer.json()["text"]
    ended = await api.ended(generation_id)
    assert (ended["status"], ended["text"]) == ("cancelled", text)


async def test_an_answer_is_cancelled_when_its_reader_stays_away_for_the_grace_time(
    api: RawClient,
) -> None:
    body = {**asking(10_000, 20), "on_disconnect": 0.2}
    async with api.opened("POST", CHAT, body=body, headers=SSE) as response:
        generation_id = response.headers["x-generation-id"]
        await response.content.readany()
    assert (await api.ended(generation_id))["status"] == "cancelled"


@pytest.mark.parametrize("headers", [SSE, {}])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ([], 422),
        ({"messages": []}, 422),
        ({"messages": [1]}, 422),
        ({"messages": [{"role": "user"}]}, 422),
        ({"messages": [{"role": "user", "text": 1}]}, 422),
        ({"messages": [{"role": 1, "text": "x"}]}, 422),
        ({"messages": [{"error": "only errors"}]}, 422),
        ({**asking(), "params": []}, 422),
        ({**asking(), "model": "no-such-model"}, 404),
    ],
    ids=str,
)
async def test_a_wrong_request_is_told_in_a_sentence(
    api: RawClient, headers: dict[str, str], body: Any, status: int
) -> None:
    answer = await post(api, body, **headers)
    assert answer.status == status
    assert set(answer.json()) == {"error"} and isinstance(answer.json()["error"], str)


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
async def test_another_content_type_is_415(api: RawClient, content_type: str) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answer = await api.call("POST", CHAT, raw=b"x=1", headers=headers)
    assert answer.status == 415
    assert set(answer.json()) == {"error"}


def form(**parts: tuple[str, str] | str) -> dict[str, Any]:
    """A request with files, as the component sends it: `(media type, content)` is a file."""
    body = ""
    for name, part in parts.items():
        media_type, content = part if isinstance(part, tuple) else ("", part)
        head = f'--b\r\nContent-Disposition: form-data; name="{name}"'
        file = f'; filename="a.file"\r\nContent-Type: {media_type}' if media_type else ""
        body += f"{head}{file}\r\n\r\n{content}\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    return {"raw": (body + "--b--\r\n").encode(), "headers": headers}


async def test_a_form_with_a_picture_is_a_message_with_that_picture(api: RawClient) -> None:
    said, params = json.dumps({"role": "user", "text": "What?"}), json.dumps(asking()["params"])
    told = {"message1": said, "model": "demo", "params": params}
    answer = await api.call("POST", CHAT, **form(files=("image/png", "abc"), **told))
    asked = await api.ended(answer.headers["x-generation-id"])
    (message,) = asked["messages"]
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,YWJj"}}
    assert message["content"] == [{"type": "text", "text": "What?"}, picture]
    assert answer.json() == {"text": asked["text"]}

    for parts, status in [
        ({"files": ("application/zip", "abc"), **told}, 415),
        ({**told, "params": "[object Object]"}, 422),
        ({**told, "message1": "no json"}, 400),
        ({**told, "model": "no-such-model"}, 404),
    ]:
        refused = await api.call("POST", CHAT, **form(**parts))
        assert (refused.status, set(refused.json())) == (status, {"error"})


# On the socket


def socket(api: RawClient, key: str = "", node: str = "") -> connect:
    query = f"?stop_key={quote(key)}" if key else ""
    return api.socket(node, path=SOCKET, query=query, subprotocols=None)


async def tell(ws: ClientConnection, body: Any) -> None:
    await ws.send(json.dumps(body))


async def heard(ws: ClientConnection, key: str = KEY) -> list[dict[str, Any]]:
    """One answer: the Responses up to the key, which is not among them."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(ANSWER_S):
        while not found or found[-1] != {"text": key}:
            text = await ws.recv()
            assert isinstance(text, str)
            found.append(json.loads(text))
    assert [response.get("text") for response in found].count(key) == 1
    return found[:-1]


async def test_answers_come_in_turn_and_the_stop_key_closes_each(api: RawClient) -> None:
    sessions = [new_session() for _ in range(3)]
    async with socket(api, "a key ü") as ws:
        for session in sessions:
            await tell(ws, {**asking(20, 200), "session": session})
        answers = [await heard(ws, "a key ü") for _ in sessions]
    for session, answer in zip(sessions, answers, strict=True):
        ended = await api.ended((await newest(api, session))["id"])
        assert shown(answer) == ended["text"] != ""


async def test_no_piece_of_an_answer_looks_like_the_stop_key(api: RawClient) -> None:
    """Each piece of a fixed answer in turn is the key."""
    body = asking(12, 200, seed=7)
    async with socket(api) as ws:
        await tell(ws, body)
        pieces = {response["text"] for response in await heard(ws)}
    whole = (await post(api, body)).json()["text"]
    for key in sorted(piece for piece in pieces if len(piece) > 1 and piece.strip()):
        async with socket(api, key) as ws:
            await tell(ws, body)
            assert shown(await heard(ws, key)) == whole, key


async def test_the_stop_key_follows_an_error_and_the_next_answer_comes(api: RawClient) -> None:
    async with socket(api) as ws:
        await tell(ws, asking(5, fail_at=2, fail_retryable=False))
        *texts, error = await heard(ws)
        assert texts and set(error) == {"error"}
        await tell(ws, {**asking(), "model": "no-such-model"})
        (refused,) = await heard(ws)
        assert set(refused) == {"error"} and isinstance(refused["error"], str)
        await tell(ws, asking())
        assert shown(await heard(ws))


async def test_the_stop_key_follows_a_cancel_from_another_node(api: RawClient) -> None:
    session = new_session()
    async with socket(api) as ws:
        await tell(ws, {**asking(10_000, 20), "session": session})
        generation_id = await api.first_of(session)
        await api.running(generation_id)
        await api.call("POST", f"/v1/generations/{generation_id}/cancel", node=api.other_url)
        answer = await heard(ws)
    assert shown(answer) == (await api.ended(generation_id))["text"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "null",
        "{}",
        '{"messages":[]}',
        '{"messages":[{"text":1}]}',
        "[" * 9_999,
    ],
    ids=lambda text: text[:40],
)
async def test_a_wrong_frame_gets_an_error_and_the_socket_stays_open(
    api: RawClient, text: str
) -> None:
    async with socket(api) as ws:
        await ws.send(text)
        (error,) = await heard(ws)
        assert set(error) == {"error"} and isinstance(error["error"], str)
        await tell(ws, asking(3))
        assert shown(await heard(ws))


async def test_a_binary_frame_gets_an_error_and_close_code_1003(api: RawClient) -> None:
    async with socket(api) as ws:
        await ws.send(b"\x00\x01")
        (error,) = await heard(ws)
        assert set(error) == {"error"}
        await ws.wait_closed()
    assert ws.close_code == 1003


@pytest.mark.parametrize(
    ("sent", "code"),
    [(frame(b"\xff\xfe"), 1007), (large_frame(b"", announced=2**40), 1009)],
    ids=["utf-8", "large"],
)
async def test_a_protocol_violation_closes_the_socket_with_its_code(
    api: RawClient, sent: bytes, code: int
) -> None:
    assert await raw_socket_close_code(api.url, sent, api.credentials, path=SOCKET) == code


async def test_a_foreign_origin_is_refused_at_the_handshake(api: RawClient) -> None:
    """Never accepted and closed: the component would come back at once, for ever."""
    headers = api.credentials | {"Origin": "https://evil.example"}
    received = await exchange(api.url, handshake(api.url, headers, path=SOCKET), within_s=3)
    assert received.split(b" ")[1] == b"403"
