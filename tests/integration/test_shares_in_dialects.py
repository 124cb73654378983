"""Shares read through the AI SDK's and LobeChat's paths what they read natively, and no more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from shared.config.settings import Settings
from shared.log.events import Token
from tests.support.local_node import LocalNode, ManualWorker, serve_here
from tests.support.redis_server import RedisServer

KEY = "key-of-alice-0123456789"
ALICE = {"authorization": f"Bearer {KEY}"}
PARTS = [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "x"}]}]


@pytest.fixture
async def node(redis_server: RedisServer) -> AsyncIterator[LocalNode]:
    client = Redis.from_url(redis_server.url, protocol=2)
    await client.flushall()
    await client.aclose()
    settings = Settings(redis_url=redis_server.url, api_keys=f"{KEY}:alice")
    async with serve_here(settings) as local_node:
        yield local_node


@pytest.fixture
async def web() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        yield session


async def start(node: LocalNode, web: aiohttp.ClientSession, chat: str) -> str:
    """Start a run of a chat of alice, and leave."""
    body = {"id": chat, "messages": PARTS}
    async with web.post(f"{node.url}/ai-sdk/chat", json=body, headers=ALICE) as answer:
        assert answer.status == 200
        return answer.headers["x-workflow-run-id"]


async def share(node: LocalNode, web: aiohttp.ClientSession, **what: Any) -> dict[str, str]:
    async with web.post(f"{node.url}/v1/share", json=what, headers=ALICE) as answer:
        return {"authorization": f"Bearer {(await answer.json())['token']}"}


@pytest.mark.parametrize("kind", ["session", "generation"])
async def test_a_share_reads_the_runs_of_its_chat_and_no_other(
    node: LocalNode, web: aiohttp.ClientSession, kind: str
) -> None:
    shown, other = await start(node, web, "room"), await start(node, web, "secret")
    named = {"session": "room"} if kind == "session" else {"generation": shown}
    token = await share(node, web, **named)

    async def status(path: str, method: str = "GET") -> int:
        url = f"{node.url}/ai-sdk/chat/{path}"
        async with web.request(method, url, headers=token) as answer:
            return answer.status

    assert await status("room/stream") == 200
    assert await status(f"{shown}/stream?startIndex=0") == 200
    assert await status("room/stream?startIndex=0") == 200
    assert await status("secret/stream") == 204, "as a chat in which nothing runs"
    assert await status("secret/stream?startIndex=0") == 404
    assert await status(f"{other}/stream?startIndex=0") == 404
    assert await status("room/stop", "POST") == 403


async def test_a_share_reads_its_run_of_ag_ui_and_ends_none(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    shown, other = await start(node, web, "room"), await start(node, web, "secret")
    token = await share(node, web, generation=shown)

    async def status(run: str, what: str = "stream", method: str = "GET") -> int:
        url = f"{node.url}/ag-ui/demo/runs/{run}/{what}"
        async with web.request(method, url, headers=token) as answer:
            return answer.status

    assert await status(shown) == 200
    assert await status(other) == 404
    assert await status("no-such-run") == 404
    assert await status(shown, "cancel", "POST") == 403


async def test_a_share_resumes_on_the_socket_of_the_ai_sdk_and_starts_nothing(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    await start(node, web, "room")
    await start(node, web, "secret")
    token = await share(node, web, session="room")

    async with web.ws_connect(f"{node.url}/ai-sdk/ws", headers=token) as socket:
        await socket.send_json({"type": "resume", "requestId": "a", "id": "room"})
        assert (await socket.receive_json())["type"] == "start"
        await socket.send_json({"type": "resume", "requestId": "b", "id": "secret"})
        seen = []
        while not seen or seen[-1]["requestId"] != "b":
            seen.append(await socket.receive_json())
        assert seen[-1]["type"] == "no-active"
        for frame in ({"type": "send", "id": "room", "messages": PARTS}, {"type": "abort"}):
            await socket.send_json({**frame, "requestId": "c"})
            said = await socket.receive_json()
            assert said["type"] == "error" and "forbidden" in said["errorText"]


async def test_a_share_resumes_on_the_socket_of_lobe_and_tells_no_other_message(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    shown = await ManualWorker.take(node.node.store, owner="alice", session="room")
    await shown.append(Token("Hi"))
    async with web.ws_connect(f"{node.url}/lobe/ws", headers=ALICE) as socket:
        frame = {"type": "startConversation", "prompt": "x", "messageId": "m1", "sessionId": "no"}
        await socket.send_json(frame)
        await socket.send_json({"type": "ping"})
        assert (await socket.receive_json())["type"] == "pong"
    token = await share(node, web, session="room")

    async with web.ws_connect(f"{node.url}/lobe/ws", headers=token) as socket:
        await socket.send_json({"type": "resume", "messageId": shown.generation_id})
        assert (await socket.receive_json())["content"] == "Hi"
        assert (await socket.receive_json())["type"] == "resume_complete"
        refusals = []
        for name in ("m1", "absent"):
            await socket.send_json({"type": "resume", "messageId": name})
            said = await socket.receive_json()
            refusals.append((said["code"], said["message"]))
        assert refusals == [("not_found", "no such message")] * 2
        await socket.send_json({"type": "cancel", "messageId": shown.generation_id})
        assert (await socket.receive_json())["code"] == "forbidden"


async def test_a_share_resumes_on_the_socket_of_responses_and_starts_nothing(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    shown, hidden = [
        await ManualWorker.take(node.node.store, owner="alice", session=name)
        for name in ("room", "secret")
    ]
    await shown.append(Token("Hi"))
    ids = [each.generation_id.replace("gen_", "resp_") for each in (shown, hidden)]
    token = await share(node, web, session="room")

    async with web.ws_connect(f"{node.url}/v1/responses", headers=token) as socket:

        async def refusal(**event: Any) -> str:
            await socket.send_json(event)
            while (said := await socket.receive_json())["type"] != "error":
                pass
            return str(said["error"]["code"])

        await socket.send_json({"type": "response.resume", "response_id": ids[0]})
        said = await socket.receive_json()
        assert (said["type"], said["response"]["id"]) == ("response.created", ids[0])
        resume = {"type": "response.resume", "response_id": ids[1], "stream_id": "b"}
        assert await refusal(**resume) == "not_found"
        assert await refusal(type="response.cancel", response_id=ids[0]) == "forbidden"
        assert await refusal(type="response.create", input="x") == "forbidden"
        steer = {"previous_response_id": ids[0], "input": "x"}
        assert await refusal(type="response.steer", **steer) == "forbidden"


async def test_deep_chat_has_nothing_to_read_for_a_share(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    token = await share(node, web, session="room")

    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await web.ws_connect(f"{node.url}/deep-chat/ws", headers=token)

    assert caught.value.status == 403
