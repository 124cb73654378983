"""The sockets of three dialects at two nodes while workers, nodes and the upstream fail."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import websockets

from tests.support.processes import Deployment
from tests.support.raw_client import RawClient, hear, hear_until, tell
from tests.support.shared_fault import SharedFault, death_of_worker
from tests.support.slow_answer import PROMPT, SCRIPT, TEXT
from tests.support.sse import SseParser
from tests.support.upstream import Upstream
from tests.support.wait import until

LOBE, DEEP_CHAT, STOP = "/lobe/ws", "/deep-chat/ws", {"text": "stop-key"}
WS = {"subprotocols": None}


@pytest.fixture(scope="module")
def shared_deployment(upstream_deployment: Deployment) -> Deployment:
    return upstream_deployment


def lobe(model: str, name: str, **script: Any) -> dict[str, Any]:
    """A `startConversation` whose session and message have one name."""
    params = {"upstream": {**SCRIPT, **script}}
    named = {"sessionId": name, "messageId": name, "model": model, "params": params}
    return {"type": "startConversation", "prompt": PROMPT, **named}


def deep_chat(model: str, session: str, **script: Any) -> dict[str, Any]:
    params = {"upstream": {**SCRIPT, **script}}
    messages = [{"role": "user", "text": PROMPT}]
    return {"messages": messages, "model": model, "session": session, "params": params}


async def newest(api: RawClient, session: str, node: str = "") -> dict[str, Any]:
    """The generation of a session, once there is one."""

    async def listed() -> Any:
        return (await api.get(f"/v1/sessions/{session}", node=node)).json()["generations"]

    found: Any = await until(listed, 10, f"a generation of {session}")
    return dict(found[0])


def lobe_text(frames: list[dict[str, Any]]) -> str:
    """The contents since the last reset; ids must rise and there must be one end, the last."""
    places = [tuple(map(int, f["id"].split("-"))) for f in frames if "id" in f]
    assert places == sorted(set(places))
    assert [f["type"] for f in frames].count("end") == 1 and frames[-1]["type"] == "end"
    resets = [n for n, f in enumerate(frames) if f["type"] == "reset"]
    tail = frames[resets[-1] if resets else 0 :]
    return "".join(f["content"] for f in tail if f["type"] == "token")


def shown_text(responses: list[dict[str, Any]]) -> str:
    text = ""
    for response in responses:
        if "text" in response and response != STOP:
            text = response["text"] if response.get("overwrite") else text + response["text"]
    return text


# /lobe/ws


async def lobe_over_a_killed_worker(api: RawClient, fault: SharedFault, model: str) -> None:
    async with api.socket(path=LOBE, **WS) as ws:
        await tell(ws, **lobe(model, f"l-worker-{model}"))
        frames = [await hear(ws) for _ in range(10)]
        await fault.struck()
        frames += await hear_until(ws, "end")

    assert lobe_text(frames) == TEXT
    assert frames[-1]["status"] == "completed"
    assert sum(f["type"] == "reset" for f in frames) == (model == "restart")


async def lobe_over_a_killed_node(
    deployment: Deployment, api: RawClient, fault: SharedFault
) -> None:
    """A reader of the dead node resumes on the other node."""
    async with api.socket(path=LOBE, **WS) as ws:
        await tell(ws, **lobe("continue", "l-node"))
        frames = [await hear(ws) for _ in range(10)]
        await fault.struck()
        with pytest.raises(websockets.ConnectionClosedError):
            while True:
                frames.append(await hear(ws))
    async with api.socket(deployment.urls[1], path=LOBE, **WS) as ws:
        cursor = frames[-1]["id"]
        await tell(ws, type="resume", messageId="l-node", lastEventId=cursor)
        rest = await hear_until(ws, "end")

    marks = [f for f in rest if f["type"] == "resume_complete"]
    assert [f["gap"] for f in marks] == [False]
    assert lobe_text(frames + [f for f in rest if f not in marks]) == TEXT


async def unanswered_start_over_a_killed_node(
    deployment: Deployment, api: RawClient, fault: SharedFault
) -> None:
    """It is repeated on the other node, and is the same generation."""
    start = lobe("continue", "l-repeat")
    async with api.socket(path=LOBE, **WS) as ws:
        await tell(ws, **start)
        await newest(api, "l-repeat", deployment.urls[1])
        await fault.struck()
    async with api.socket(deployment.urls[1], path=LOBE, **WS) as ws:
        await tell(ws, **start)
        frames = await hear_until(ws, "end")

    assert lobe_text(frames) == TEXT
    listed = (await api.get("/v1/sessions/l-repeat", node=deployment.urls[1])).json()
    assert len(listed["generations"]) == 1


async def test_cancel_on_the_other_node_reaches_the_upstream(
    upstream: Upstream, api: RawClient
) -> None:
    before = len(upstream.calls)
    async with api.socket(path=LOBE, **WS) as ws:
        await tell(ws, **lobe("continue", "l-cancel", tokens=10_000))
        await hear_until(ws, "token")
        async with api.socket(api.other_url, path=LOBE, **WS) as other:
            await tell(other, type="cancel", messageId="l-cancel")
            frames = await hear_until(ws, "end")

    assert frames[-1]["status"] == "cancelled"
    await asyncio.wait_for(upstream.calls[before].left.wait(), 10)


async def test_an_upstream_that_always_fails_is_an_error_and_an_end(api: RawClient) -> None:
    fault = {"fault": "eof", "fault_at": 5, "fault_requests": 0, "delay_s": 0}
    async with api.socket(path=LOBE, **WS) as ws:
        await tell(ws, **lobe("restart", "l-fail", **fault))
        frames = await hear_until(ws, "end")

    assert [f["type"] for f in frames[-2:]] == ["error", "end"]
    assert (frames[-2]["code"], frames[-1]["status"]) == ("attempts_exhausted", "failed")


# LobeHub's agent gateway


def gateway_text(frames: list[dict[str, Any]]) -> str:
    """The text that a client shows; numbers must rise by one, and the end must be the last."""
    told = [frame for frame in frames if frame["type"] == "agent_event"]
    assert [int(frame["id"]) for frame in told] == list(range(1, len(told) + 1))
    assert told[-1]["event"]["type"] == "agent_runtime_end"
    text = ""
    for data in (frame["event"]["data"] for frame in told):
        if data.get("chunkType") == "text":
            text = data["content"] if "snapshotMode" in data else text + data["content"]
    return text


async def begun(api: RawClient, model: str, session: str) -> str:
    """Start an answer for the gateway; return its path."""
    params = {"upstream": SCRIPT}
    body = {"model": model, "prompt": PROMPT, "session": session, "params": params}
    run = (await api.call("POST", "/v1/generations", body=body)).json()["id"]
    return f"/lobe-gateway/ws?operationId={run}"


async def resume(ws: Any, seen: str = "") -> None:
    await tell(ws, type="auth", token="any")
    await tell(ws, type="resume", lastEventId=seen, wantStatus=True)


async def gateway_over_a_killed_worker(api: RawClient, fault: SharedFault, model: str) -> None:
    """Its readers see nothing of it, or a snapshot."""
    path = await begun(api, model, f"g-worker-{model}")
    async with api.socket(path=path, **WS) as ws:
        await resume(ws)
        frames = [await hear(ws) for _ in range(12)]
        await fault.struck()
        frames += await hear_until(ws, "session_complete")

    assert gateway_text(frames) == TEXT
    assert ("snapshotMode" in str(frames)) == (model == "restart")


async def gateway_over_a_killed_node(
    deployment: Deployment, api: RawClient, fault: SharedFault
) -> None:
    """A reader of the dead gateway resumes at the next number on the other node."""
    path = await begun(api, "continue", "g-node")
    async with api.socket(path=path, **WS) as ws:
        await resume(ws)
        frames = [await hear(ws) for _ in range(12)]
        await fault.struck()
        with pytest.raises(websockets.ConnectionClosedError):
            while True:
                frames.append(await hear(ws))
    async with api.socket(deployment.urls[1], path=path, **WS) as ws:
        await resume(ws, frames[-1]["id"])
        rest = await hear_until(ws, "session_complete")

    assert "running" in [frame.get("status") for frame in rest]
    assert gateway_text(frames + rest) == TEXT


# deep-chat


async def hear_response(ws: Any) -> dict[str, Any]:
    async with asyncio.timeout(15):
        response: dict[str, Any] = json.loads(await ws.recv())
    return response


async def hear_answer(ws: Any) -> list[dict[str, Any]]:
    """All up to the stop key, without it."""
    responses = [await hear_response(ws)]
    while responses[-1] != STOP:
        responses.append(await hear_response(ws))
    return responses[:-1]


async def socket_over_a_killed_worker(api: RawClient, fault: SharedFault, model: str) -> None:
    session = f"d-worker-{model}"
    async with api.socket(path=DEEP_CHAT, **WS) as ws:
        await tell(ws, **deep_chat(model, session))
        responses = [await hear_response(ws) for _ in range(10)]
        await tell(ws, **deep_chat(model, session, tokens=3, delay_s=0))
        await fault.struck()
        responses += await hear_answer(ws)
        second = await hear_answer(ws)

    assert shown_text(responses) == TEXT
    assert sum("overwrite" in r for r in responses) == (model == "restart")
    assert TEXT.startswith(shown_text(second)) and shown_text(second)


async def test_over_a_socket_an_error_keeps_the_text_and_has_a_key(api: RawClient) -> None:
    fault = {"fault": "status", "status": 400, "fault_requests": 0}
    async with api.socket(path=DEEP_CHAT, **WS) as ws:
        await tell(ws, **deep_chat("continue", "d-fail", **fault))
        await tell(ws, **deep_chat("continue", "d-fail", tokens=3, delay_s=0))
        failed, answered = await hear_answer(ws), await hear_answer(ws)

    (error,) = failed
    assert "as told" in error["error"]
    assert TEXT.startswith(shown_text(answered))


class Posted:
    """One streamed answer, read piece by piece."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.responses: list[dict[str, Any]] = []
        self._parser = SseParser()

    async def read(self, count: int = 0) -> list[dict[str, Any]]:
        """Read until there are so many, or to the end; what breaks off raises."""
        async for piece in self.response.content.iter_any():
            self.responses += [json.loads(block.data) for block in self._parser.feed(piece)]
            if count and len(self.responses) >= count:
                break
        return self.responses


@contextlib.asynccontextmanager
async def posted(url: str, body: dict[str, Any]) -> AsyncIterator[Posted]:
    headers = {"Accept": "text/event-stream"}
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{url}/deep-chat", json=body, headers=headers) as response:
            yield Posted(response)


async def http_over_a_killed_worker(api: RawClient, fault: SharedFault, model: str) -> None:
    async with posted(api.url, deep_chat(model, f"h-worker-{model}")) as answer:
        await answer.read(10)
        await fault.struck()
        responses = await answer.read()

    assert shown_text(responses) == TEXT
    assert sum("overwrite" in r for r in responses) == (model == "restart")


async def http_over_a_killed_node(
    deployment: Deployment, api: RawClient, fault: SharedFault
) -> None:
    """That is no end, and the rest is read natively."""
    async with posted(deployment.urls[0], deep_chat("continue", "h-node")) as answer:
        generation_id = answer.response.headers["X-Generation-Id"]
        await answer.read(10)
        await fault.struck()
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await answer.read()
    events = (await api.events(generation_id, node=deployment.urls[1])).events

    assert "".join(e.fields.get("text", "") for e in events) == TEXT


# One fault under all of them


async def test_a_killed_worker_leaves_the_exact_text_in_every_dialect(
    deployment: Deployment, api: RawClient
) -> None:
    fault = death_of_worker(deployment)
    await fault.strikes(
        *(
            play(api, fault, model)
            for model in ("continue", "restart")
            for play in (
                lobe_over_a_killed_worker,
                gateway_over_a_killed_worker,
                socket_over_a_killed_worker,
                http_over_a_killed_worker,
            )
        )
    )


async def test_readers_of_a_killed_node_have_the_rest_from_the_other_node_in_every_dialect(
    deployment: Deployment, api: RawClient
) -> None:
    fault = SharedFault(deployment.api[0].kill)
    await fault.strikes(
        *(
            play(deployment, api, fault)
            for play in (
                lobe_over_a_killed_node,
                unanswered_start_over_a_killed_node,
                gateway_over_a_killed_node,
                http_over_a_killed_node,
            )
        )
    )


async def test_hanging_up_stops_the_upstream_after_the_grace(
    upstream: Upstream, deployment: Deployment, api: RawClient
) -> None:
    before = len(upstream.calls)
    body = deep_chat("continue", "h-stop", tokens=10_000) | {"on_disconnect": 0.2}
    async with posted(deployment.urls[0], body) as answer:
        await answer.read(5)
        answer.response.close()
    await asyncio.wait_for(upstream.calls[before].left.wait(), 15)

    assert (await api.ended((await newest(api, "h-stop"))["id"]))["status"] == "cancelled"


async def test_a_whole_answer_that_fails_is_a_plain_error(api: RawClient) -> None:
    body = deep_chat("restart", "h-fail", fault="eof", fault_requests=0, delay_s=0)
    answer = await api.call("POST", "/deep-chat", body=body)
    whole = await api.call("POST", "/deep-chat", body=deep_chat("restart", "h-whole", delay_s=0))

    assert answer.status == 502
    assert set(answer.json()) == {"error"} and isinstance(answer.json()["error"], str)
    assert whole.json() == {"text": TEXT}
