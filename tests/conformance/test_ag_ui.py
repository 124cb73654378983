"""AG-UI's routes from outside: runs in both forms, counted, resumed, cancelled, refused."""

from __future__ import annotations

import json
import struct
import uuid
from typing import Any

import pytest

from tests.support.demo import demo_body
from tests.support.raw_client import Answer, RawClient

AGENT = "/ag-ui/demo"
PROTO = "application/vnd.ag-ui.event+proto"
PING = b": ping\n"
UNKNOWN = "gen_00000000000000000000000000"
USER = {"id": "m1", "role": "user", "content": "tell me"}


def asking(tokens: int = 5, per_s: float = 0, **members: Any) -> dict[str, Any]:
    """Return a RunAgentInput of a new run, with `demo` as the controls of the demo model."""
    controls = members.pop("demo", {})
    params = demo_body(tokens, per_s, **controls)["params"]
    names = {"threadId": uuid.uuid4().hex, "runId": uuid.uuid4().hex, "protocolVersion": "1.0"}
    props = {"forwardedProps": {"tailrace": {"params": params}}}
    return {**names, "messages": [USER], **props, **members}


async def post(api: RawClient, body: Any, agent: str = AGENT, **kwargs: Any) -> Answer:
    return await api.call("POST", agent, body=body, **kwargs)


def path_of(run: str, what: str = "stream", thread: str = "") -> str:
    return f"{AGENT}/runs/{run}/{what}" + (f"?threadId={thread}" if thread else "")


def numbered(answer: Answer) -> list[tuple[int, dict[str, Any]]]:
    """Return the events with their numbers."""
    assert answer.status == 200 and not answer.is_broken, answer
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [read_frame(frame) for frame in answer.body.replace(PING, b"").split(b"\n\n")[:-1]]


def read_frame(frame: bytes) -> tuple[int, dict[str, Any]]:
    lines = [line for line in frame.split(b"\n") if not line.startswith(b"retry: ")]
    assert len(lines) == 2 and lines[0].startswith(b"id: "), frame
    return int(lines[0][4:]), json.loads(lines[1].removeprefix(b"data: "))


def events(answer: Answer) -> list[dict[str, Any]]:
    return [event for _, event in numbered(answer)]


def kinds(found: list[dict[str, Any]]) -> list[str]:
    """Return the types in order, each run of one type once."""
    types = [event["type"] for event in found]
    return [kind for at, kind in enumerate(types) if not at or kind != types[at - 1]]


def text_of(found: list[dict[str, Any]]) -> str:
    return "".join(each["delta"] for each in found if each["type"] == "TEXT_MESSAGE_CONTENT")


def messages_of(body: bytes) -> list[bytes]:
    """Return the messages of the binary form."""
    found = []
    while body:
        (length,) = struct.unpack_from(">I", body)
        found.append(body[4 : 4 + length])
        body = body[4 + length :]
    return found


async def test_a_run_has_its_names_its_text_and_an_end(api: RawClient) -> None:
    body = asking(20)
    answer = await post(api, body)

    found = events(answer)
    names = {"threadId": body["threadId"], "runId": body["runId"]}
    assert found[0] == {"type": "RUN_STARTED", **names, "protocolVersion": "1.0"}
    assert kinds(found) == [
        "RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END",
        "RUN_FINISHED",
    ]  # fmt: skip
    assert [number for number, _ in numbered(answer)] == list(range(len(found)))
    assert found[-1]["result"] == {"finishReason": "stop"}
    assert found[-1]["usage"][0]["outputTokens"] > 0
    ended = await api.ended(answer.headers["x-generation-id"])
    assert (ended["text"], ended["session"]) == (text_of(found), body["threadId"])


async def test_thoughts_and_tool_calls_are_messages_of_their_own(api: RawClient) -> None:
    controls = {"reasoning_tokens": 3, "tool_call": "weather"}
    tool = {"name": "weather", "description": "", "parameters": {"type": "object"}}
    found = events(await post(api, asking(3, demo=controls, tools=[tool])))

    assert kinds(found) == [
        "RUN_STARTED",
        "REASONING_START", "REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT",
        "REASONING_MESSAGE_END", "REASONING_END",
        "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END",
        "TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END",
        "RUN_FINISHED",
    ]  # fmt: skip
    start = next(event for event in found if event["type"] == "TOOL_CALL_START")
    assert start["toolCallName"] == "weather"
    ids = {event.get("messageId") for event in found} | {start["parentMessageId"]}
    assert len(ids - {None}) == 3


async def test_the_same_run_is_generated_once(api: RawClient) -> None:
    body = asking()
    first = await post(api, body)
    second = await post(api, body, node=api.other_url)
    other = await post(api, {**body, "messages": [{**USER, "content": "other"}]})

    assert first.headers["x-generation-id"] == second.headers["x-generation-id"]
    assert events(first) == events(second)
    assert (other.status, other.json()["code"]) == (422, "idempotency_mismatch")


async def test_a_run_resumes_after_every_event_on_every_node_in_both_forms(api: RawClient) -> None:
    body = asking(6, demo={"reasoning_tokens": 2, "tool_call": "weather"})
    answer = await post(api, body)
    whole = numbered(answer)
    binary = messages_of((await post(api, body, headers={"accept": PROTO})).body)
    assert len(binary) == len(whole)
    names = [path_of(answer.headers["x-generation-id"])]
    names.append(path_of(body["runId"], thread=body["threadId"]))
    for number in range(len(whole) - 1):
        seen = {"last-event-id": str(number)}
        for node, path in zip((api.url, api.other_url), names, strict=True):
            assert numbered(await api.get(path, headers=seen, node=node)) == whole[number + 1 :]
            rest = await api.get(path, headers={**seen, "accept": PROTO}, node=node)
            assert rest.headers["content-type"] == PROTO
            assert messages_of(rest.body) == binary[number + 1 :]
    assert numbered(await api.get(names[0])) == whole
    query = f"{names[1]}&last_event_id=3"
    assert numbered(await api.get(query)) == whole[4:]
    at_end = await api.get(names[0], headers={"last-event-id": str(len(whole) - 1)})
    assert (at_end.status, at_end.body) == (204, b"")
    beyond = await api.get(names[0], headers={"last-event-id": str(len(whole))})
    assert (beyond.status, beyond.json()["code"]) == (409, "stream_reset")


async def test_a_cut_run_goes_on_at_another_node(api: RawClient) -> None:
    seen: list[tuple[int, dict[str, Any]]] = []
    async with api.opened("POST", AGENT, body=asking(60, 40)) as response:
        run = response.headers["x-generation-id"]
        while len(seen) < 12:
            block = await response.content.readuntil(b"\n\n")
            seen.append(read_frame(block.replace(PING, b"").removesuffix(b"\n\n")))
    last = {"last-event-id": str(seen[-1][0])}
    rest = await api.get(path_of(run), headers=last, node=api.other_url)

    whole = [*seen, *numbered(rest)]
    assert [number for number, _ in whole] == list(range(len(whole)))
    assert text_of([event for _, event in whole]) == (await api.ended(run))["text"]


@pytest.mark.parametrize("version", ["1.0", None])
async def test_a_cancel_by_either_name_ends_the_run(api: RawClient, version: str | None) -> None:
    body = asking(10_000, 20, protocolVersion=version)
    async with api.opened("POST", AGENT, body=body) as response:
        run = response.headers["x-generation-id"]
        await api.running(run)
        path = path_of(body["runId"], "cancel", body["threadId"])
        said = await api.call("POST", path, node=api.other_url)
        assert said.status == 202 and said.json()["id"] == run
        raw = await response.read()
    last = read_frame(raw.replace(PING, b"").removesuffix(b"\n\n").split(b"\n\n")[-1])[1]

    cancelled = {"outcome": {"type": "cancelled"}} if version else {
        "result": {"finishReason": "cancelled"}
    }  # fmt: skip
    assert last["type"] == "RUN_FINISHED"
    assert {name: last[name] for name in last.keys() & {"outcome", "result"}} == cancelled
    assert (await api.call("POST", path_of(run, "cancel"))).status == 202  # also repeated


async def test_a_client_that_hangs_up_stops_nothing(api: RawClient) -> None:
    async with api.opened("POST", AGENT, body=asking(40, 20)) as response:
        run = response.headers["x-generation-id"]
        await response.content.readuntil(b"\n\n")
    assert (await api.ended(run))["status"] == "completed"


async def test_a_failure_is_a_run_error(api: RawClient) -> None:
    controls = {"fail_at": 2, "fail_always": True, "fail_retryable": False}
    found = events(await post(api, asking(5, demo=controls)))

    assert kinds(found)[-2:] == ["TEXT_MESSAGE_END", "RUN_ERROR"]
    assert found[-1]["code"] and found[-1]["message"]


async def test_a_generation_of_another_dialect_is_a_run(api: RawClient) -> None:
    started = await api.call("POST", "/v1/generations", body=demo_body(5, 0))
    run = started.json()["id"]
    found = events(await api.get(path_of(run)))

    assert found[0]["runId"] == found[0]["threadId"] == run
    assert text_of(found) == (await api.ended(run))["text"]


@pytest.mark.parametrize("what", ["stream", "cancel"])
@pytest.mark.parametrize("run", [UNKNOWN, "no-such-run", "%00", "%C3%BC"])
async def test_an_unknown_run_is_404(api: RawClient, run: str, what: str) -> None:
    method = "GET" if what == "stream" else "POST"
    answer = await api.call(method, path_of(run, what))

    assert answer.status == 404
    assert answer.json()["type"] == "RUN_ERROR" and answer.json()["code"] == "not_found"


@pytest.mark.parametrize("number", ["x", "-1", "1.5", "1-2", "9" * 30])
async def test_an_invalid_number_is_400(api: RawClient, number: str) -> None:
    answer = await api.get(path_of(UNKNOWN), headers={"last-event-id": number})

    assert (answer.status, answer.json()["code"]) == (400, "cursor_invalid")


@pytest.mark.parametrize(
    ("accept", "is_binary"),
    [
        ("text/html", False), ("*/*", False), (f"text/event-stream, {PROTO}", False),
        (f"text/event-stream;q=0.5, {PROTO}", True), (f"{PROTO};q=0", False),
    ],
)  # fmt: skip
async def test_the_binary_form_is_for_clients_that_prefer_it(
    api: RawClient, accept: str, is_binary: bool
) -> None:
    answer = await post(api, asking(), headers={"accept": accept})

    assert (answer.headers["content-type"] == PROTO) == is_binary


def with_message(**members: Any) -> dict[str, Any]:
    return {"messages": [{"id": "m1", "role": "user", "content": "x", **members}]}


def with_part(**part: Any) -> dict[str, Any]:
    return with_message(content=[part])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "thread missing": ({"threadId": None}, "threadId"),
    "thread number": ({"threadId": 7}, "threadId"),
    "thread long": ({"threadId": "x" * 257}, "threadId"),
    "thread control": ({"threadId": "a\nb"}, "threadId"),
    "run missing": ({"runId": None}, "runId"),
    "run empty": ({"runId": ""}, "runId"),
    "run list": ({"runId": []}, "runId"),
    "version": ({"protocolVersion": 1.0}, "protocolVersion"),
    "parent": ({"parentRunId": 1}, "parentRunId"),
    "resume": ({"resume": [{"interruptId": "i", "status": "resolved"}]}, "resume"),
    "messages missing": ({"messages": None}, "messages"),
    "messages object": ({"messages": {}}, "messages"),
    "messages empty": ({"messages": []}, "messages"),
    "messages number": ({"messages": [1]}, "messages[0]"),
    "role": (with_message(role="robot"), "messages[0].role"),
    "role list": (with_message(role=[]), "messages[0].role"),
    "id": (with_message(id=1), "messages[0].id"),
    "name": (with_message(name=1), "messages[0].name"),
    "content": (with_message(content=1), "messages[0].content"),
    "system parts": (with_message(role="system", content=[]), "messages[0].content"),
    "assistant content": (with_message(role="assistant", content=1), "messages[0].content"),
    "calls": (with_message(role="assistant", toolCalls={}), "messages[0].toolCalls"),
    "call": (with_message(role="assistant", toolCalls=[{}]), "messages[0].toolCalls[0]"),
    "tool": (with_message(role="tool"), "messages[0].toolCallId"),
    "part": (with_message(content=["x"]), "messages[0].content[0]"),
    "part type": (with_part(type="hologram"), "messages[0].content[0].type"),
    "part text": (with_part(type="text", text=1), "messages[0].content[0].text"),
    "source": (with_part(type="image"), "messages[0].content[0].source.type"),
    "source value": (
        with_part(type="image", source={"type": "url", "value": ""}), "source.value"),
    "source mime": (
        with_part(type="image", source={"type": "data", "value": "AA"}), "source.mimeType"),
    "binary": (with_part(type="binary", mimeType="image/png"), "messages[0].content[0]"),
    "tools": ({"tools": {}}, "tools"),
    "tool number": ({"tools": [1]}, "tools[0]"),
    "tool name": ({"tools": [{"name": ""}]}, "tools[0].name"),
    "tool description": ({"tools": [{"name": "a", "description": 1}]}, "tools[0].description"),
    "tool parameters": ({"tools": [{"name": "a", "parameters": []}]}, "tools[0].parameters"),
    "context": ({"context": {}}, "context"),
    "context item": ({"context": [{"value": "x"}]}, "context[0]"),
    "props": ({"forwardedProps": {"tailrace": 1}}, "forwardedProps.tailrace"),
    "params": ({"forwardedProps": {"tailrace": {"params": 1}}}, "params"),
    "priority": ({"forwardedProps": {"tailrace": {"priority": "high"}}}, "priority"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_member_is_named(api: RawClient, name: str) -> None:
    members, place = WRONG[name]
    answer = await post(api, {**asking(), **members})

    assert answer.status == 422, answer
    told = answer.json()
    assert set(told) == {"type", "message", "code"}
    assert (told["type"], told["code"]) == ("RUN_ERROR", "invalid_request")
    assert place in told["message"]


@pytest.mark.parametrize(
    ("agent", "status", "code"),
    [
        ("/ag-ui/no-such-model", 404, "model_not_found"),
        ("/ag-ui/a/b%2Fc", 404, "model_not_found"),
        ("/ag-ui", 404, "not_found"),
        ("/ag-ui/", 404, "model_not_found"),
    ],
)
async def test_an_unknown_agent_is_404(api: RawClient, agent: str, status: int, code: str) -> None:
    answer = await post(api, asking(), agent)

    assert (answer.status, answer.json()["code"]) == (status, code)
