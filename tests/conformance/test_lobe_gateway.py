"""LobeHub's agent gateway from outside: resumes at every number, interrupts, hostile frames."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.demo import demo_body
from tests.support.raw_client import Answer, RawClient, hear, hear_until, tell

PATH, STREAM = "/lobe-gateway/ws", "/api/agent/stream"
PING = b": ping\n"
UNKNOWN = "gen_00000000000000000000000000"


def socket(api: RawClient, operation: str, node: str = "") -> connect:
    return api.socket(node, path=f"{PATH}?operationId={operation}", subprotocols=None)


async def started(api: RawClient, tokens: int = 8, per_s: float = 0, **controls: Any) -> str:
    body = demo_body(tokens, per_s, **controls)
    run: str = (await api.call("POST", "/v1/generations", body=body)).json()["id"]
    return run


async def resume(ws: ClientConnection, seen: str = "") -> None:
    """Say what LobeHub's client says first."""
    await tell(ws, type="auth", token="any-token")
    assert await hear(ws) == {"type": "auth_success"}
    await tell(ws, type="resume", lastEventId=seen, wantStatus=True)


async def whole(api: RawClient, operation: str, seen: str = "", node: str = "") -> list[Any]:
    """Return the numbered events of a reading to its end."""
    async with socket(api, operation, node) as ws:
        await resume(ws, seen)
        frames = await hear_until(ws, "resume_complete")
        while not any(frame["type"] == "session_complete" for frame in frames):
            frames.append(await hear(ws))
    return [(int(f["id"]), f["event"]) for f in frames if f["type"] == "agent_event"]


def frames_of(answer: Answer) -> list[Any]:
    """Return the numbered events of a stream, without the greeting."""
    assert answer.status == 200 and not answer.is_broken, answer
    greeting, *blocks = answer.body.replace(PING, b"").removesuffix(b"\n\n").split(b"\n\n")
    assert greeting.startswith(b"event: connected\n")
    found = []
    for block in blocks:
        number, kind, data = (line.partition(b": ")[2] for line in block.split(b"\n"))
        event = json.loads(data)
        assert event["type"] == kind.decode()
        found.append((int(number), event))
    return found


def text_of(events: list[Any]) -> str:
    """Return the text that a client shows, by the rules of snapshots."""
    text = ""
    for _, event in events:
        data = event["data"]
        if data.get("chunkType") == "text":
            text = data["content"] if "snapshotMode" in data else text + data["content"]
    return text


async def test_an_operation_has_its_events_and_one_end(api: RawClient) -> None:
    run = await started(api, reasoning_tokens=2, tool_call="weather")
    ended = await api.ended(run)
    events = await whole(api, run)

    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    kinds = [event["type"] for _, event in events]
    assert (kinds[:2], kinds[-2:]) == (
        ["agent_runtime_init", "stream_start"], ["stream_end", "agent_runtime_end"],
    )  # fmt: skip
    assert events[-1][1]["data"]["reason"] == "completed"
    assert text_of(events) == ended["text"]
    (calls,) = [e["data"] for _, e in events if e["data"].get("chunkType") == "tools_calling"]
    assert calls["toolsCalling"][0]["apiName"] == "weather"
    assert all(event["operationId"] == run for _, event in events)


async def test_a_client_resumes_at_every_number_on_every_node_in_both_forms(
    api: RawClient,
) -> None:
    run = await started(api)
    await api.ended(run)
    events = await whole(api, run)
    assert frames_of(await api.get(f"{STREAM}?operationId={run}")) == events
    for seen in range(1, len(events)):
        rest = events[seen:]
        assert await whole(api, run, str(seen), api.other_url) == rest
        query = f"{STREAM}?operationId={run}&lastEventId={seen}&includeHistory=true"
        assert frames_of(await api.get(query, node=api.other_url)) == rest
        old = f"{STREAM}?operationId={run}&lastEventId=0"
        header = {"last-event-id": str(seen)}
        assert frames_of(await api.get(old, headers=header)) == rest
    at_end = await api.get(f"{STREAM}?operationId={run}&lastEventId={len(events)}")
    assert frames_of(at_end) == []


async def test_a_cut_socket_goes_on_at_another_node(api: RawClient) -> None:
    run = await started(api, 60, 40)
    seen: list[Any] = []
    async with socket(api, run) as ws:
        await resume(ws)
        while len(seen) < 12:
            frame = await hear(ws)
            if frame["type"] == "agent_event":
                seen.append((int(frame["id"]), frame["event"]))
    events = [*seen, *await whole(api, run, str(seen[-1][0]), api.other_url)]

    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    assert text_of(events) == (await api.ended(run))["text"]


async def test_an_interrupt_on_another_node_ends_the_operation(api: RawClient) -> None:
    run = await started(api, 10_000, 20)
    async with socket(api, run) as reader, socket(api, run, api.other_url) as other:
        await resume(reader)
        (*_, status) = await hear_until(reader, "resume_complete")
        assert status["status"] == "running"
        await tell(other, type="auth", token="t")
        await tell(other, type="interrupt")
        frames = await hear_until(reader, "session_complete")

    end = [f["event"] for f in frames if f["type"] == "agent_event"][-1]
    assert (end["type"], end["data"]["reason"]) == ("agent_runtime_end", "interrupted")
    assert (await api.ended(run))["status"] == "cancelled"


async def test_the_key_of_a_start_names_the_operation(api: RawClient) -> None:
    key = f"op-{uuid.uuid4()}"
    body, headers = demo_body(3, 0), {"idempotency-key": key}
    run = (await api.call("POST", "/v1/generations", body=body, headers=headers)).json()["id"]
    await api.ended(run)

    by_key, by_id = await whole(api, key), await whole(api, run)
    assert {event["operationId"] for _, event in by_key} == {key}
    assert [number for number, _ in by_key] == [number for number, _ in by_id]
    assert text_of(by_key) == text_of(by_id)


async def test_a_late_client_is_told_the_status(api: RawClient) -> None:
    run = await started(api, 3, 0, fail_at=1, fail_always=True, fail_retryable=False)
    await api.ended(run)
    async with socket(api, run) as ws:
        await resume(ws)
        frames = await hear_until(ws, "resume_complete")

    assert frames[-1]["status"] == "error"
    kinds = [f["event"]["type"] for f in frames if f["type"] == "agent_event"]
    assert kinds[-2:] == ["error", "agent_runtime_end"]


async def test_a_number_beyond_the_log_ends_the_reading(api: RawClient) -> None:
    run = await started(api, 3)
    await api.ended(run)
    async with socket(api, run) as ws:
        await resume(ws, "900")
        frames = await hear_until(ws, "session_complete")
    answer = await api.get(f"{STREAM}?operationId={run}&lastEventId=900")

    errors = [f["event"]["data"] for f in frames if f.get("event", {}).get("type") == "error"]
    assert [error["errorType"] for error in errors] == ["stream_reset"]
    assert (answer.status, answer.error_code) == (409, "stream_reset")


@pytest.mark.parametrize("operation", ["", UNKNOWN, "no-such-operation", "x" * 256, "%00"])
async def test_an_unknown_operation_is_final(api: RawClient, operation: str) -> None:
    async with socket(api, operation) as ws:
        await resume(ws)
        frame = await hear(ws)
        await ws.wait_closed()
    answer = await api.get(f"{STREAM}?operationId={operation}")

    assert frame["type"] == "auth_failed" and "not_found" in frame["reason"]
    assert ws.close_code == 1008
    assert (answer.status, answer.error_code) == (404, "not_found")


@pytest.mark.parametrize(
    "said",
    [
        "", "{", "[]", "1", '"x"', "{}", '{"type":1}', '{"type":"tool_result"}',
        '{"type":"resume","lastEventId":7}', '{"type":"resume","lastEventId":"1-2"}',
        '{"type":"resume","lastEventId":"-1"}', '{"type":"resume","lastEventId":[]}',
    ],
)  # fmt: skip
async def test_a_wrong_frame_gets_an_error_and_the_socket_stays_open(
    api: RawClient, said: str
) -> None:
    run = await started(api, 3)
    async with socket(api, run) as ws:
        await ws.send(said)
        assert (await hear(ws))["type"] == "error"
        await tell(ws, type="heartbeat")
        assert await hear(ws) == {"type": "heartbeat_ack"}


@pytest.mark.parametrize("number", ["x", "-1", "1-2", "9" * 30])
async def test_an_invalid_number_is_400(api: RawClient, number: str) -> None:
    answer = await api.get(f"{STREAM}?operationId={UNKNOWN}&lastEventId={number}")

    assert (answer.status, answer.error_code) == (400, "cursor_invalid")
