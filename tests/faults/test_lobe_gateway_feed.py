"""LobeHub's server feeds operations while nodes, Redis and that server itself fail."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import websockets
from aiohttp import web

from tests.support.processes import Deployment
from tests.support.raw_client import RawClient, hear, hear_until, tell
from tests.support.tokens import SECRET, hmac_token
from tests.support.wait import until

SERVICE = "service-token-of-lobehub"
PREFIX = "/lobe-gateway/api/operations"
WORDS = [f"word{n} " for n in range(60)]


class LobeHub:
    """The route of LobeHub's server that takes the results of tools.

    Attributes:
        statuses: the answers to come; then 204.
        results: the bodies with a good token.
    """

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.results: list[dict[str, Any]] = []
        self.url = ""
        app = web.Application()
        app.router.add_post("/api/agent/tool-result", self._take)
        self._runner = web.AppRunner(app)

    async def __aenter__(self) -> LobeHub:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        if self.statuses:
            return web.Response(status=self.statuses.pop(0))
        assert request.headers["authorization"] == "Bearer token-of-the-gateway"
        self.results.append(await request.json())
        return web.Response(status=204)


@pytest.fixture(scope="module")
async def lobehub() -> AsyncIterator[LobeHub]:
    async with LobeHub() as it:
        yield it


@pytest.fixture(scope="module")
async def shared_deployment(lobehub: LobeHub) -> AsyncIterator[Deployment]:
    settings = {
        "api_keys": f"{SERVICE}:lobehub:generate act",
        "jwt_secret": SECRET,
        "lobehub_url": lobehub.url,
        "lobehub_token": "token-of-the-gateway",
        "lobehub_lease_s": "2",
    }
    async with Deployment(api=2, workers=1, jobs=1, settings=settings) as it:
        yield it


@pytest.fixture
async def feeder(deployment: Deployment) -> AsyncIterator[RawClient]:
    async with RawClient(*deployment.urls, key=SERVICE) as it:
        yield it


async def post(feeder: RawClient, path: str, node: str = "", **body: Any) -> Any:
    return await feeder.call("POST", f"{PREFIX}/{path}", node=node, body=body)


async def begun(feeder: RawClient, user: str = "alice") -> str:
    operation = f"op_{uuid.uuid4().hex}"
    answer = await post(feeder, "init", operationId=operation, userId=user)
    assert answer.status == 200, answer
    return operation


def event(operation: str, kind: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, "operationId": operation, "stepIndex": 0, "timestamp": 1, "data": data}


def mux(url: str, user: str = "alice", client: str = "tab") -> Any:
    token = hmac_token(sub=user)
    path = f"/lobe-gateway/v2/ws?token={token}&clientId={client}"
    return websockets.connect(url.replace("http", "ws") + path)


async def subscribe(ws: Any, operation: str, **rest: Any) -> list[dict[str, Any]]:
    await hear(ws)
    await tell(ws, type="subscribe", operationId=operation, **rest)
    return await hear_until(ws, "resume_complete")


def words_of(frames: list[dict[str, Any]]) -> list[str]:
    chunks = [f["event"] for f in frames if f["type"] == "agent_event"]
    return [c["data"]["content"] for c in chunks if c["type"] == "stream_chunk"]


async def test_a_feeder_and_a_reader_go_on_when_their_node_is_killed(
    deployment: Deployment, feeder: RawClient
) -> None:
    operation = await begun(feeder)
    a, b = deployment.urls

    async def write(words: list[str], node: str) -> None:
        for word in words:
            chunk = event(operation, "stream_chunk", chunkType="text", content=word)
            answer = await post(feeder, "push-event", node, operationId=operation, event=chunk)
            assert answer.status == 200, answer

    async with mux(a) as ws:
        frames = await subscribe(ws, operation)
        writing = asyncio.create_task(write(WORDS[:30], b))
        frames += [await hear(ws) for _ in range(10)]
        deployment.api[0].kill()
        with pytest.raises(websockets.ConnectionClosedError):
            while True:
                frames.append(await hear(ws))
    await writing
    last = max(int(frame["id"]) for frame in frames if "id" in frame)
    async with mux(b) as ws:
        frames += await subscribe(ws, operation, lastEventId=str(last))
        await write(WORDS[30:], b)
        done = event(operation, "agent_runtime_end", reason="done")
        await post(feeder, "push-event", b, operationId=operation, event=done)
        frames += await hear_until(ws, "session_complete")

    assert words_of(frames) == WORDS
    numbers = [int(frame["id"]) for frame in frames if "id" in frame]
    assert numbers == list(range(1, len(WORDS) + 3))


async def test_an_event_passes_a_pause_of_redis_once(
    deployment: Deployment, feeder: RawClient
) -> None:
    operation = await begun(feeder)
    async with mux(deployment.urls[1]) as ws:
        await subscribe(ws, operation)
        deployment.server.freeze()
        chunk = event(operation, "stream_chunk", chunkType="text", content="once")
        writing = asyncio.create_task(
            post(feeder, "push-event", operationId=operation, event=chunk)
        )
        await asyncio.wait({writing}, timeout=0.5)
        deployment.server.thaw()
        assert (await writing).status == 200
        done = event(operation, "agent_runtime_end", reason="done")
        await post(feeder, "push-event", operationId=operation, event=done)
        frames = await hear_until(ws, "session_complete")
    assert words_of(frames) == ["once"]


async def test_no_post_fails_while_redis_restarts(
    deployment: Deployment, feeder: RawClient
) -> None:
    first, later = await begun(feeder), f"op_{uuid.uuid4().hex}"
    chunk = event(first, "stream_chunk", chunkType="text", content="once")
    await post(feeder, "push-event", operationId=first, event=chunk)
    deployment.server.kill()
    a, b = deployment.urls
    posts = [
        asyncio.create_task(post(feeder, "init", a, operationId=later, userId="alice")),
        asyncio.create_task(post(feeder, "push-event", b, operationId=first, event=chunk)),
        asyncio.create_task(post(feeder, "update-status", a, operationId=first, status="running")),
        asyncio.create_task(
            post(feeder, "tool-execute", b, operationId=first, data={"toolCallId": "t1"})
        ),
    ]
    done, _ = await asyncio.wait(posts, timeout=1, return_when=asyncio.FIRST_COMPLETED)
    assert not done, "a POST was refused at once"
    deployment.server.start()
    assert [(await each).status for each in posts] == [200] * len(posts)
    async with mux(b) as ws:
        frames = await subscribe(ws, first)
    assert words_of(frames)[-1] == "once" and len(words_of(frames)) <= 2
    kinds = [frame["type"] for frame in frames if "id" in frame]
    assert kinds.count("status_change") == 1


async def test_a_feeder_whose_node_is_killed_while_it_waits_asks_at_the_other(
    deployment: Deployment, feeder: RawClient
) -> None:
    operation = await begun(feeder)
    a, b = deployment.urls
    asked = {"operationId": operation, "toolCallId": "t1", "tool": {"apiName": "rm"}}
    async with mux(b) as ws:
        await subscribe(ws, operation)
        waiting = asyncio.create_task(post(feeder, "request-confirmation", a, **asked))
        assert (await hear(ws))["type"] == "tool_confirmation_request"
        deployment.api[0].kill()
        await asyncio.wait({waiting})
        assert waiting.exception() is not None or waiting.result().is_broken
        await tell(
            ws, type="tool_confirmation", operationId=operation, toolCallId="t1", approved=True
        )
        again = await post(feeder, "request-confirmation", b, **asked)
    assert again.json() == {"approved": True}


async def test_a_result_reaches_the_server_once_it_is_back(
    deployment: Deployment, feeder: RawClient, lobehub: LobeHub
) -> None:
    operation, call = await begun(feeder), f"call_{uuid.uuid4().hex}"
    marker = f"call_{uuid.uuid4().hex}"
    lobehub.statuses = [503, 429]
    async with mux(deployment.urls[1]) as ws:
        await subscribe(ws, operation, executor=True)
        for each in (call, marker):
            await post(feeder, "tool-execute", operationId=operation, data={"toolCallId": each})
            assert (await hear(ws))["event"]["type"] == "tool_execute"
        result = {"toolCallId": call, "content": None, "success": False, "error": {"message": "no"}}
        for _ in range(2):
            await tell(ws, type="tool_result", operationId=operation, **result)
        await until(partial(has_come, lobehub, call), 15, "the result")
        # The result of the other call comes after a second copy of the first result would come.
        for told in (result, result | {"toolCallId": marker}):
            await tell(ws, type="tool_result", operationId=operation, **told)
        await until(partial(has_come, lobehub, marker), 15, "the result of the other call")
    assert [each for each in lobehub.results if each["toolCallId"] == call] == [result]


def has_come(lobehub: LobeHub, call: str) -> bool:
    return any(each["toolCallId"] == call for each in lobehub.results)


async def refusal(ws: Any, operation: str, call: str) -> Any:
    result = {"toolCallId": call, "content": "forged", "success": True}
    await tell(ws, type="tool_result", operationId=operation, **result)
    await tell(ws, type="heartbeat")
    return (await hear_until(ws, "heartbeat_ack"))[0].get("code")


async def test_a_result_for_the_call_of_another_operation_does_not_reach_the_server(
    deployment: Deployment, feeder: RawClient, lobehub: LobeHub
) -> None:
    call = f"call_{uuid.uuid4().hex}"
    victim, own = await begun(feeder, "bob"), await begun(feeder, "alice")
    await post(feeder, "tool-execute", operationId=victim, data={"toolCallId": call})
    for node in deployment.urls:
        async with mux(node) as ws:
            await subscribe(ws, own)
            assert await refusal(ws, own, call) == "invalid_request"
        path = f"/lobe-gateway/ws?operationId={own}&access_token={hmac_token(sub='alice')}"
        async with websockets.connect(node.replace("http", "ws") + path) as ws:
            assert await refusal(ws, own, call) == "invalid_request"

    # A user who feeds an operation may announce any call. The name is that of the service key.
    for user in ("alice", "lobehub"):
        async with RawClient(deployment.urls[0], key=hmac_token(sub=user)) as client:
            taken = await post(client, "push-event", operationId=victim, event={"type": "forged"})
            assert taken.status == 404
            forged = await begun(client, user)
            await post(client, "tool-execute", operationId=forged, data={"toolCallId": call})
        async with mux(deployment.urls[1], user) as ws:
            await subscribe(ws, forged)
            assert await refusal(ws, forged, call) is None

    async with mux(deployment.urls[1], "bob") as ws:
        await subscribe(ws, victim)
        result = {"toolCallId": call, "content": "true", "success": True}
        await tell(ws, type="tool_result", operationId=victim, **result)

        async def has_come() -> bool:
            return any(each["content"] == "true" for each in lobehub.results)

        await until(has_come, 15, "the result")
    assert [each for each in lobehub.results if each["toolCallId"] == call] == [result]


async def test_users_read_their_own_operations_only(
    deployment: Deployment, feeder: RawClient
) -> None:
    operation = await begun(feeder, "alice")
    taken = await post(feeder, "init", operationId=operation, userId="bob")
    assert (taken.status, taken.error_code) == (422, "invalid_request")
    async with mux(deployment.urls[0], "bob") as ws:
        frames = await subscribe(ws, operation)
        assert frames[-1]["pending"] is True
    async with mux(deployment.urls[0]) as ws:
        assert (await subscribe(ws, operation))[-1]["status"] == "running"
    async with RawClient(deployment.urls[0], key=hmac_token(sub="alice")) as alice:
        push = {"operationId": operation, "event": {"type": "forged"}}
        answer = await alice.call("POST", f"{PREFIX}/push-event", body=push)
        assert answer.status == 404
    with pytest.raises(websockets.ConnectionClosedError) as closed:
        url = deployment.urls[0].replace("http", "ws")
        async with websockets.connect(f"{url}/lobe-gateway/v2/ws?token=wrong") as ws:
            await ws.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4401, "auth_failed")


async def test_an_operation_whose_feeder_is_silent_fails(
    deployment: Deployment, feeder: RawClient
) -> None:
    operation = await begun(feeder)
    async with mux(deployment.urls[0]) as ws:
        frames = await subscribe(ws, operation)
        frames += await hear_until(ws, "status_change")
    assert frames[-1]["status"] == "error"
    assert frames[-2]["event"]["data"]["reason"] == "error"
    answer = await post(feeder, "push-event", operationId=operation, event={"type": "late"})
    assert answer.json()["error"]["status"] == "failed"
