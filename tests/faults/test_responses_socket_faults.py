"""The WebSocket mode of Responses while nodes, workers and Redis fail under its streams.

Every socket may die. Whatever died, the numbers of a response go on without a gap and without a
repeat on the next socket, and each request has one answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import websockets
from openai.types.websocket_reconnection import ReconnectingEvent, ReconnectingOverrides

from tests.support.processes import Deployment
from tests.support.proxy import Proxy
from tests.support.raw_client import RawClient, hear, hear_until, tell
from tests.support.responses import TERMINAL
from tests.support.sdk import ANSWER_S, sdk
from tests.support.shared_fault import SharedFault, death_of_worker
from tests.support.slow_answer import PROMPT, SCRIPT, TEXT
from tests.support.upstream import Upstream

PATH: dict[str, Any] = {"path": "/v1/responses", "subprotocols": None}


@pytest.fixture(scope="module")
def shared_deployment(upstream_deployment: Deployment) -> Deployment:
    return upstream_deployment


def create(model: str = "continue", **members: Any) -> dict[str, Any]:
    script = {**SCRIPT, **members.pop("script", {})}
    asked = {"type": "response.create", "model": model, "input": PROMPT, "upstream": script}
    return {**asked, **members}


async def hear_some(ws: Any, frames: int) -> list[dict[str, Any]]:
    return [await hear(ws) for _ in range(frames)]


async def hear_end(ws: Any) -> list[dict[str, Any]]:
    """The events up to the last one of a response."""
    frames = []
    while not frames or frames[-1]["type"] not in TERMINAL:
        frames.append(await hear(ws))
    return frames


async def hear_cut(ws: Any) -> tuple[list[dict[str, Any]], int]:
    """The events until the socket is cut, and its close code."""
    frames: list[dict[str, Any]] = []
    with pytest.raises(websockets.ConnectionClosed):
        while True:
            frames.append(await hear(ws))
    return frames, ws.close_code


def check(frames: list[dict[str, Any]], text: str = TEXT) -> None:
    """One response, from 0 without a gap or a repeat, with the whole text."""
    assert [frame["sequence_number"] for frame in frames] == list(range(len(frames)))
    last = frames[-1]
    assert last["type"] == "response.completed", last
    (item,) = last["response"]["output"]
    assert item["content"][0]["text"] == text
    deltas = [f["delta"] for f in frames if f.get("item_id") == item["id"] and "delta" in f]
    assert "".join(deltas) == text


def resume(frames: list[dict[str, Any]]) -> dict[str, Any]:
    named = {"response_id": frames[0]["response"]["id"]}
    return {"type": "response.resume", **named, "starting_after": frames[-1]["sequence_number"]}


async def count_of(api: RawClient, session: str, node: str) -> int:
    return len((await api.get(f"/v1/sessions/{session}", node=node)).json()["generations"])


async def stream_over_a_killed_worker(api: RawClient, fault: SharedFault, model: str) -> None:
    async with api.socket(**PATH) as ws:
        await tell(ws, **create(model))
        frames = await hear_some(ws, 12)
        await fault.struck()
        frames += await hear_end(ws)

    check(frames)
    items = [f for f in frames if f["type"] == "response.output_item.added"]
    assert len(items) == (1 if model == "continue" else 2)


async def test_a_killed_worker_leaves_every_number(deployment: Deployment, api: RawClient) -> None:
    fault = death_of_worker(deployment)
    await fault.strikes(
        stream_over_a_killed_worker(api, fault, "continue"),
        stream_over_a_killed_worker(api, fault, "restart"),
    )


async def streams_over_a_killed_node(
    deployment: Deployment, api: RawClient, fault: SharedFault
) -> None:
    """All streams of its socket go on at the other node."""
    names = ["a", "b", "c"]
    async with api.socket(**PATH) as ws:
        for name in names:
            await tell(ws, **create(stream_id=name, store=False))
        frames = await hear_some(ws, 30)
        await fault.struck()
        frames += (await hear_cut(ws))[0]
    heard = {name: [f for f in frames if f["stream_id"] == name] for name in names}
    async with api.socket(deployment.urls[1], **PATH) as ws:
        for name in names:
            await tell(ws, **resume(heard[name]), stream_id=name)
        while any(heard[name][-1]["type"] not in TERMINAL for name in names):
            frame = await hear(ws)
            heard[frame["stream_id"]].append(frame)

    for name in names:
        check(heard[name])


async def create_over_a_killed_node(
    deployment: Deployment, api: RawClient, fault: SharedFault
) -> None:
    """A `response.create` without an answer is repeated at the other node."""
    event = create(session="r-repeat", idempotency_key="r-repeat")
    async with api.socket(**PATH) as ws:
        await tell(ws, **event)
        await api.first_of("r-repeat")
        await fault.struck()
    async with api.socket(deployment.urls[1], **PATH) as ws:
        await tell(ws, **event)
        check(await hear_end(ws))

    assert await count_of(api, "r-repeat", deployment.urls[1]) == 1


async def turn_over_a_killed_node(
    deployment: Deployment, api: RawClient, fault: SharedFault
) -> None:
    """A turn that is sent again in full is the same answer.

    As Codex does it: first on top of a warm-up, then on another socket with everything.
    """
    turn = {"client_metadata": {"thread_id": "t", "turn_id": "u"}, "store": False}
    rules, ask = ({"role": role, "content": role} for role in ("developer", "user"))
    named = {**turn, "session": "r-turn"}
    async with api.socket(**PATH) as ws:
        await tell(ws, **create(generate=False, input=[rules], store=False))
        warm = (await hear_end(ws))[-1]["response"]["id"]
        await tell(ws, **create(previous_response_id=warm, input=[ask], **named))
        first = await hear_some(ws, 12)
        await fault.struck()
    async with api.socket(deployment.urls[1], **PATH) as ws:
        await tell(ws, **create(input=[rules, ask], **named))
        again = await hear_end(ws)

    assert [f["sequence_number"] for f in again] == list(range(len(again)))
    assert again[-1]["type"] == "response.completed"
    assert again[0]["response"]["id"] == first[0]["response"]["id"]
    assert await count_of(api, "r-turn", deployment.urls[1]) == 1


async def test_answers_of_a_killed_node_go_on_at_the_other_node(
    deployment: Deployment, api: RawClient
) -> None:
    fault = SharedFault(deployment.api[0].kill)
    await fault.strikes(
        streams_over_a_killed_node(deployment, api, fault),
        create_over_a_killed_node(deployment, api, fault),
        turn_over_a_killed_node(deployment, api, fault),
    )


async def test_a_drain_closes_with_1012_and_the_response_goes_on(
    deployment: Deployment, api: RawClient
) -> None:
    async with api.socket(**PATH) as ws:
        await tell(ws, **create())
        frames = await hear_some(ws, 12)
        deployment.api[0].terminate()
        more, code = await hear_cut(ws)
    frames += more
    async with api.socket(deployment.urls[1], **PATH) as ws:
        await tell(ws, **resume(frames))
        frames += await hear_end(ws)

    assert code == 1012
    check(frames)


async def test_a_restarted_redis_costs_no_number(deployment: Deployment, api: RawClient) -> None:
    async with api.socket(**PATH) as ws:
        await tell(ws, **create())
        frames = await hear_some(ws, 12)
        deployment.server.restart()
        frames += await hear_end(ws)

    check(frames)


async def test_the_sdk_reconnects_by_itself_and_resumes_what_ran(deployment: Deployment) -> None:
    """The SDK opens the next connection, through one address; its handler asks for the rest."""
    frames: list[dict[str, Any]] = []
    sent: list[asyncio.Task[None]] = []

    def ask_for_the_rest(event: ReconnectingEvent) -> ReconnectingOverrides:
        if event.attempt == 1:  # queued by the SDK until the next connection is open
            asked: Any = resume(frames)
            sent.append(asyncio.create_task(connection.send(asked)))
        return {}

    host, _, port = deployment.urls[0].removeprefix("http://").partition(":")
    async with Proxy(host, int(port)) as proxy, sdk(f"http://{host}:{proxy.port}/v1") as client:
        manager = client.responses.connect(
            on_reconnecting=ask_for_the_rest, initial_delay=0.05, max_retries=20
        )
        async with manager as connection, asyncio.timeout(2 * ANSWER_S):
            first: Any = create()
            await connection.send(first)
            async for event in connection:
                frames.append(event.to_dict())
                if len(frames) == 12:
                    deployment.api[0].kill()
                    proxy.lead_to(int(deployment.urls[1].rpartition(":")[2]))
                if event.type in TERMINAL:
                    break

    assert sent
    check(frames)


async def test_a_cancel_at_the_other_node_reaches_the_upstream(
    upstream: Upstream, api: RawClient
) -> None:
    before = len(upstream.calls)
    async with api.socket(**PATH) as ws, api.socket(api.other_url, **PATH) as other:
        await tell(ws, **create(script={"tokens": 10_000}))
        frames = await hear_some(ws, 12)
        await tell(other, type="response.cancel", response_id=frames[0]["response"]["id"])
        await hear_until(other, "response.cancel.accepted")
        frames += await hear_end(ws)

    assert frames[-1]["response"]["status"] == "cancelled"
    await asyncio.wait_for(upstream.calls[before].left.wait(), 10)


async def test_an_upstream_that_always_fails_is_an_error_and_a_failed_response(
    api: RawClient,
) -> None:
    fault = {"fault": "eof", "fault_at": 5, "fault_requests": 0, "delay_s": 0}
    async with api.socket(**PATH) as ws:
        await tell(ws, **create("restart", script=fault))
        frames = await hear_end(ws)

    assert [f["type"] for f in frames[-2:]] == ["error", "response.failed"]
    assert frames[-2]["status"] == 502
    assert frames[-2]["error"]["code"] == "attempts_exhausted"
