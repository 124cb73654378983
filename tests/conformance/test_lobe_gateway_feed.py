"""LobeHub's agent gateway from outside, as LobeHub's server feeds it and its clients reply."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.raw_client import Answer, RawClient, hear, hear_until, tell

PREFIX = "/lobe-gateway/api/operations"
STREAM = "/api/agent/stream"
ODD = '{"big":12345678901234567,"one":1.0,"e":1E5,"text":"\\u00e9\\n","deep":[[[]]],"none":null}'


def name_operation() -> str:
    return f"op_{uuid.uuid4().hex}"


def event(operation: str, kind: str, data: Any, *, step: int = 0, at: int = 1) -> dict[str, Any]:
    return {
        "type": kind, "operationId": operation, "stepIndex": step, "timestamp": at, "data": data,
    }  # fmt: skip


def text(operation: str, content: str, *, at: int = 1, step: int = 0) -> dict[str, Any]:
    data = {"chunkType": "text", "content": content}
    return event(operation, "stream_chunk", data, step=step, at=at)


def ended(operation: str, reason: str = "done", **data: Any) -> dict[str, Any]:
    return event(operation, "agent_runtime_end", {"reason": reason, **data}, at=9)


async def post(api: RawClient, path: str, node: str = "", **body: Any) -> Answer:
    headers = body.pop("headers", {})
    return await api.call("POST", f"{PREFIX}/{path}", node=node, body=body, headers=headers)


async def begun(api: RawClient, **body: Any) -> tuple[str, str]:
    """Begin an operation; return its name and its generation."""
    operation = name_operation()
    answer = await post(api, "init", operationId=operation, userId="user_1", **body)
    assert answer.status == 200, answer
    return operation, answer.json()["generationId"]


async def push(api: RawClient, operation: str, *events: Any, node: str = "") -> None:
    for each in events:
        answer = await post(api, "push-event", node, operationId=operation, event=each)
        assert answer.status == 200, answer


def socket(api: RawClient, operation: str, node: str = "") -> connect:
    path = f"/lobe-gateway/ws?operationId={operation}"
    return api.socket(node, path=path, subprotocols=None)


def mux(api: RawClient, node: str = "", client: str = "c1") -> connect:
    path = f"/lobe-gateway/v2/ws?token={api.key or 'any'}&clientId={client}"
    return api.socket(node, path=path, subprotocols=None)


async def resume(ws: ClientConnection, seen: str = "") -> list[dict[str, Any]]:
    await tell(ws, type="auth", token="any-token")
    assert await hear(ws) == {"type": "auth_success"}
    await tell(ws, type="resume", lastEventId=seen, wantStatus=True)
    return await hear_until(ws, "resume_complete")


async def messages(api: RawClient, operation: str, seen: str = "", node: str = "") -> list[Any]:
    """Return the messages of a reading to its end, without the frames that have no number."""
    async with socket(api, operation, node) as ws:
        frames = await resume(ws, seen)
        while not any(frame["type"] == "session_complete" for frame in frames):
            frames.append(await hear(ws))
    return [frame for frame in frames if "id" in frame]


async def test_events_come_out_as_they_came_in_at_every_number_on_every_node(
    api: RawClient,
) -> None:
    operation, run = await begun(api)
    told = [
        event(operation, "agent_runtime_init", json.loads(ODD)),
        text(operation, "Hello"),
        event(operation, "stream_chunk", {"chunkType": "reasoning", "reasoning": "Hm"}, step=1),
        event("op_member", "agent_runtime_end", {"reason": "error"}),
        text(operation, " world", step=1),
        event(operation, "tool_end", {"isSuccess": True, "result": None}, step=1),
        ended(operation),
    ]
    for index, each in enumerate(told):
        await push(api, operation, each, node=(api.url, api.other_url)[index % 2])
    whole = await messages(api, operation)
    assert [frame["event"] for frame in whole] == told
    assert [frame["id"] for frame in whole] == [str(n) for n in range(1, 8)]
    for seen in range(1, 8):
        assert await messages(api, operation, str(seen), api.other_url) == whole[seen:]
        answer = await api.get(f"{STREAM}?operationId={operation}&lastEventId={seen}")
        assert answer.body.count(b"\nid: ") == 7 - seen
    shown = await api.ended(run)
    assert (shown["status"], shown["text"]) == ("completed", "Hello world")


async def test_the_json_text_of_an_event_is_kept(api: RawClient) -> None:
    operation, _ = await begun(api)
    raw = f'{{"data": {ODD}, "type": "step_start"}}'
    body = f'{{"operationId":"{operation}","event":{raw}}}'.encode()
    headers = {"content-type": "application/json"}
    answer = await api.call("POST", f"{PREFIX}/push-event", raw=body, headers=headers)
    assert answer.status == 200, answer
    await push(api, operation, ended(operation))
    stream = await api.get(f"{STREAM}?operationId={operation}")
    assert f'data: {{"data":{ODD},"type":"step_start"}}\n'.encode() in stream.body


async def test_posts_that_come_together_are_written_in_the_order_of_their_times(
    api: RawClient,
) -> None:
    operation, run = await begun(api)
    # Sent at once, the latest time first.
    words = [text(operation, f"{n} ", at=n) for n in range(20)]
    await asyncio.gather(*(push(api, operation, word) for word in reversed(words)))
    await push(api, operation, ended(operation))
    shown = [frame["event"]["timestamp"] for frame in await messages(api, operation)]
    assert sorted(shown[:-1]) == list(range(20))
    assert len((await api.ended(run))["text"].split()) == 20


async def test_a_repeat_writes_nothing_twice(api: RawClient) -> None:
    operation, run = await begun(api)
    for node in (api.url, api.other_url):
        again = await post(api, "init", node, operationId=operation, userId="user_1")
        assert again.json()["generationId"] == run
        for index, word in enumerate((text(operation, "a"), text(operation, "b"))):
            key = {"idempotency-key": f"k{index}"}
            await post(api, "push-event", node, operationId=operation, event=word, headers=key)
        for call in ("t1", "t2"):
            data = {"toolCallId": call, "apiName": "x"}
            await post(api, "tool-execute", node, operationId=operation, data=data)
    await push(api, operation, ended(operation))
    kinds = [frame["event"]["type"] for frame in await messages(api, operation)]
    assert kinds == [*2 * ["stream_chunk"], *2 * ["tool_execute"], "agent_runtime_end"]


async def test_a_key_with_another_body_is_another_write(api: RawClient) -> None:
    operation, run = await begun(api)
    key = {"idempotency-key": "k"}
    for word in ("a", "b", "a"):
        event = text(operation, word)
        await post(api, "push-event", operationId=operation, event=event, headers=key)
    asked = []
    async with socket(api, operation) as ws:
        await resume(ws)
        for prompt in ("x?", "y?", "x?"):
            body = {"operationId": operation, "prompt": prompt, "timeout": 10}
            await post(api, "request-input", **body, headers=key)
        await push(api, operation, ended(operation))
        asked = [f for f in await hear_until(ws, "session_complete") if "requestId" in f]
    assert [frame["prompt"] for frame in asked] == ["x?", "y?"]
    assert len({frame["requestId"] for frame in asked}) == 2
    assert (await api.ended(run))["text"] == "ab"


@pytest.mark.parametrize("seen", ["", "1", "2"])
@pytest.mark.parametrize("end", ["event", "status"])
async def test_an_ended_operation_closes_after_the_status(
    api: RawClient, end: str, seen: str
) -> None:
    operation, _ = await begun(api)
    await push(api, operation, text(operation, "a"))
    if end == "event":
        await push(api, operation, ended(operation))
    else:
        await post(api, "update-status", operationId=operation, status="completed")
    async with socket(api, operation, api.other_url) as ws:
        frames = await resume(ws, seen)
        assert frames[-1]["status"] == "completed"
        assert "session_complete" not in [frame["type"] for frame in frames]
        if (end, seen) != ("status", "2"):
            assert (await hear(ws))["type"] == "session_complete"


async def test_a_number_that_is_too_high_ends_the_reading_and_not_the_operation(
    api: RawClient,
) -> None:
    operation, _ = await begun(api)
    await push(api, operation, text(operation, "a"))
    async with socket(api, operation, api.other_url) as ws:
        await tell(ws, type="auth", token="any-token")
        await tell(ws, type="resume", lastEventId="99", wantStatus=True)
        error, end, last = (await hear_until(ws, "session_complete"))[1:]
        assert error["event"]["data"]["errorType"] == "stream_reset"
        assert (end["event"]["type"], "id" in end) == ("agent_runtime_end", False)
        await ws.send("{")
        assert (await hear(ws))["message"].startswith("the frame is not JSON")
    await push(api, operation, ended(operation))
    assert len(await messages(api, operation)) == 2


@pytest.mark.parametrize(
    ("reason", "status"),
    [("done", "completed"), ("waiting_for_human", "completed"), ("interrupted", "cancelled"),
     ("error", "failed")],
)  # fmt: skip
async def test_the_reason_ends_the_generation(api: RawClient, reason: str, status: str) -> None:
    operation, run = await begun(api)
    events = [text(operation, "a"), ended(operation, reason, reasonDetail="no luck")]
    answer = await post(api, "push-events", operationId=operation, events=events)
    assert answer.status == 200, answer
    shown = await api.ended(run)
    assert shown["status"] == status
    if status == "failed":
        assert shown["error"]["message"] == "no luck"
    late = await post(api, "push-event", operationId=operation, event=text(operation, "late"))
    assert (late.status, late.json()["error"]["status"]) == (409, status)
    told = (await api.get(f"{PREFIX}/status?operationId={operation}")).json()["status"]
    assert told == {"cancelled": "interrupted", "failed": "error"}.get(status, status)


async def test_a_status_is_told_and_a_last_one_ends(api: RawClient) -> None:
    operation, _ = await begun(api)
    await post(api, "update-status", operationId=operation, status="waiting_input")
    async with socket(api, operation) as ws:
        frames = await resume(ws)
        assert frames[-1]["status"] == "waiting_input"
        told = await api.get(f"{PREFIX}/status?operationId={operation}")
        assert told.json()["status"] == "waiting_input"
        await post(api, "update-status", operationId=operation, status="completed", summary="s")
        last = await hear(ws)
    assert last == {"type": "session_complete", "id": "2", "summary": "s"}
    assert (await api.get(f"{PREFIX}/status?operationId=unknown")).json() == {
        "clientConnected": False, "status": "unknown",
    }  # fmt: skip


async def test_a_reply_reaches_the_feeder_that_waits_at_another_node(api: RawClient) -> None:
    operation, _ = await begun(api)
    tool = {"apiName": "file.delete", "arguments": "{}", "identifier": "f", "name": "delete"}
    async with socket(api, operation, api.other_url) as ws:
        await resume(ws)
        asking = asyncio.create_task(
            post(api, "request-confirmation", operationId=operation, toolCallId="t1", tool=tool)
        )
        asked = await hear(ws)
        assert (asked["type"], asked["tool"]) == ("tool_confirmation_request", tool)
        await tell(ws, type="tool_confirmation", toolCallId="t1", approved=True)
        await tell(ws, type="tool_confirmation", toolCallId="t1", approved=False)
        assert (await asking).json() == {"approved": True}

        asking = asyncio.create_task(
            post(api, "request-input", operationId=operation, prompt="name?")
        )
        asked = await hear(ws)
        await tell(ws, type="user_input", requestId=asked["requestId"], content="alice")
        assert (await asking).json() == {"content": "alice"}

        data = {"toolCallId": "t2", "apiName": "readFile", "arguments": "{}"}
        asking = asyncio.create_task(
            post(api, "tool-execute", operationId=operation, data=data, timeout=30_000)
        )
        assert (await hear(ws))["event"]["data"] == data
        result = {"toolCallId": "t2", "content": "42", "success": True, "state": {"a": [1]}}
        await tell(ws, type="tool_result", **result)
        assert (await asking).json()["result"] == {"type": "tool_result", **result}
    # A feeder whose node has died asks again elsewhere.
    again = await post(
        api,
        "request-confirmation",
        api.other_url,
        operationId=operation,
        toolCallId="t1",
        tool=tool,
    )
    assert again.json() == {"approved": True}


async def test_a_wait_ends_with_its_time_and_with_the_operation(api: RawClient) -> None:
    operation, _ = await begun(api)
    late = await post(api, "request-input", operationId=operation, prompt="?", timeout=10)
    assert (late.status, late.json()) == (504, {"content": "", "error": "TIMEOUT"})
    async with socket(api, operation, api.other_url) as ws:
        await resume(ws)
        asking = asyncio.create_task(post(api, "request-input", operationId=operation, prompt="?"))
        await hear(ws)
        await tell(ws, type="interrupt")
        assert (await asking).json()["error"]["status"] == "cancelled"
        frames = await hear_until(ws, "session_complete")
    assert frames[-2]["event"]["data"]["reason"] == "interrupted"


async def test_one_socket_reads_many_operations_and_one_that_comes_later(api: RawClient) -> None:
    first, _ = await begun(api, meta={"topicId": "t", "unknown": "x"})
    await push(api, first, text(first, "a"), text(first, "b"))
    later = name_operation()
    async with mux(api, api.other_url) as ws:
        ready = await hear(ws)
        assert (ready["type"], ready["protocol"]) == ("ready", 2)
        await tell(ws, type="subscribe", operationId=later)
        assert await hear(ws) == {
            "type": "resume_complete", "operationId": later, "gap": False, "pending": True,
        }  # fmt: skip
        await tell(ws, type="subscribe", operationId=first, lastEventId="1")
        lifecycle, message, resumed = [await hear(ws) for _ in range(3)]
        assert lifecycle["meta"] == {"topicId": "t"}
        assert (message["operationId"], message["id"]) == (first, "2")
        assert (resumed["status"], resumed["gap"]) == ("running", False)

        assert (await post(api, "init", operationId=later, userId="u")).status == 200
        await hear_until(ws, "resume_complete")
        await push(api, later, ended(later, "interrupted"))
        frames = await hear_until(ws, "status_change")
        assert {frame["operationId"] for frame in frames} == {later}
        assert (frames[-1]["id"], frames[-1]["status"]) == ("2", "interrupted")
        await push(api, first, ended(first))
        assert (await hear_until(ws, "session_complete"))[-1]["id"] == "4"


async def test_a_tool_goes_to_the_client_that_executes(api: RawClient) -> None:
    operation, _ = await begun(api)
    async with mux(api, client="tab1") as executor, mux(api, api.other_url, "tab2") as other:
        for ws, executes in ((executor, True), (other, False)):
            await hear(ws)
            await tell(ws, type="subscribe", operationId=operation, executor=executes)
            await hear_until(ws, "resume_complete")
        await post(api, "tool-execute", operationId=operation, data={"toolCallId": "t1"})
        assert (await hear(executor))["event"]["type"] == "tool_execute"
        await tell(executor, type="unsubscribe", operationId=operation)
        await tell(executor, type="heartbeat")
        assert await hear(executor) == {"type": "heartbeat_ack"}
        await push(api, operation, text(operation, "a"))
        assert (await hear(other))["id"] == "2"  # number 1 was not for this client


BAD_BODIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("init", {"userId": "u"}),
    ("init", {"operationId": "gen_x", "userId": "u"}),
    ("init", {"operationId": "with space", "userId": "u"}),
    ("init", {"operationId": "op", "userId": 5}),
    ("init", {"operationId": "op", "userId": "u", "meta": []}),
    ("push-event", {"event": "text"}),
    ("push-event", {"event": {"data": 1}}),
    ("push-event", {}),
    ("push-events", {"events": []}),
    ("push-events", {"events": [{"type": "agent_runtime_end"}, {"type": "late"}]}),
    ("update-status", {"status": "asleep"}),
    ("tool-execute", {"data": {}}),
    ("tool-execute", {"data": {"toolCallId": "t"}, "timeout": 1e9}),
    ("request-confirmation", {"toolCallId": "t"}),
    ("request-input", {"prompt": ""}),
)


@pytest.mark.parametrize(("path", "body"), BAD_BODIES)
async def test_a_wrong_body_is_refused(api: RawClient, path: str, body: dict[str, Any]) -> None:
    if path != "init":
        operation, _ = await begun(api)
        body = {"operationId": operation, **body}
    answer = await post(api, path, **body)
    assert (answer.status, answer.error_code) == (422, "invalid_request"), answer


async def test_a_refused_timeout_writes_nothing(api: RawClient) -> None:
    operation, _ = await begun(api)
    asked: tuple[tuple[str, dict[str, Any]], ...] = (
        ("tool-execute", {"data": {"toolCallId": "t"}}),
        ("request-confirmation", {"toolCallId": "t", "tool": {}}),
        ("request-input", {"prompt": "?"}),
    )
    for path, body in asked:
        for timeout, problem in (("x", "a number"), (700_000, "600000"), (0, "above 0"), (-1, "0")):
            answer = await post(api, path, operationId=operation, timeout=timeout, **body)
            assert answer.status == 422 and problem in answer.json()["error"]["message"], answer
    await push(api, operation, ended(operation))
    kinds = [frame["event"]["type"] for frame in await messages(api, operation)]
    assert kinds == ["agent_runtime_end"]


async def test_an_operation_that_was_not_begun_is_not_found(api: RawClient) -> None:
    operation = name_operation()
    answer = await post(api, "push-event", operationId=operation, event={"type": "x"})
    assert (answer.status, answer.error_code) == (404, "not_found")


WRONG_FRAMES: tuple[dict[str, Any], ...] = (
    {"type": "tool_result", "toolCallId": "t", "content": "x"},
    {"type": "tool_result", "toolCallId": "", "content": "x", "success": True},
    {"type": "tool_confirmation", "toolCallId": "t", "approved": "yes"},
    {"type": "user_input", "requestId": ["r"], "content": "x"},
    {"type": "user_input", "requestId": "r", "content": None},
    {"type": "subscribe"},
    {"type": "subscribe", "operationId": "op", "lastEventId": "-1"},
    {"type": "doc_subscribe", "documentId": "d"},
    {"type": 7},
)


async def test_wrong_frames_get_errors_and_the_socket_stays(api: RawClient) -> None:
    operation, _ = await begun(api)
    async with mux(api) as ws:
        await hear(ws)
        await tell(ws, type="subscribe", operationId=operation)
        await hear_until(ws, "resume_complete")
        for frame in WRONG_FRAMES:
            await tell(ws, **{"operationId": operation, **frame} if len(frame) > 2 else frame)
            assert (await hear(ws))["type"] == "error", frame
        await tell(ws, type="tool_result", operationId="op_other", toolCallId="t", success=True)
        assert "subscribe" in (await hear(ws))["message"]
        await tell(ws, type="heartbeat")
        assert await hear(ws) == {"type": "heartbeat_ack"}
        await tell(ws, type="subscribe", operationId="gen_" + 26 * "0")
        assert (await hear(ws))["type"] == "subscribe_failed"
