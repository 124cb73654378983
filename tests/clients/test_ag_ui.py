"""AG-UI's official client at two nodes: runs, tools, state, cuts, kills, and its event verifier.

The client's `HttpAgent` passes every event through its schemas and through `verifyEvents`. A run
fails over an event that is not legal in its place. Versions: 1 is 1.0, and 0 is the last before
it, which CopilotKit contains.
"""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.dialects.ag_ui.fold import HEARTBEAT
from shared.redis import keys
from tests.support.node_program import NodeProgram
from tests.support.npm import built
from tests.support.processes import Deployment, Role
from tests.support.proxy import Proxy
from tests.support.raw_client import RawClient
from tests.support.recorded import AG_UI_LOGS, LOGS
from tests.support.upstream import expected_text, script_of
from tests.support.wait import until
from tests.unit.api.dialects.test_golden import DIRECTORY

PROMPT = "tell me"
ASKED = [{"id": "m1", "role": "user", "content": PROMPT}]
SCRIPT = {"tokens": 50, "delay_s": 0.02}
TEXT = expected_text(PROMPT, script_of({"messages": [], "upstream": SCRIPT}))
WEATHER = {"name": "weather", "description": "of a city", "parameters": {"type": "object"}}
VERSIONS = [1, 0]
FORMS = ["plain", "binary"]
BROKEN = b"(broken off)\n"  # what a recorded log says after its last byte


@pytest.fixture(scope="module")
async def program() -> AsyncIterator[NodeProgram]:
    built()
    async with NodeProgram("ag-ui.mjs") as program:
        yield program


@pytest.fixture
async def api(deployment: Deployment) -> AsyncIterator[RawClient]:
    async with RawClient(*deployment.urls) as raw_client:
        yield raw_client


class Agent:
    """The client's program, and a way to the first node that can be cut and led to the second."""

    def __init__(self, program: NodeProgram, deployment: Deployment, proxy: Proxy) -> None:
        self.program = program
        self.deployment = deployment
        self.proxy = proxy

    async def ask(self, op: str, **told: Any) -> Any:
        said = await self.program.ask(op, **told)
        assert "value" in said, said
        return said["value"]

    async def run(self, model: str, script: dict[str, Any] | None = None, **told: Any) -> Any:
        """Run an agent to its end, with the script of its model server."""
        params = {"upstream": {**SCRIPT, **(script or {})}}
        names = {"thread": uuid.uuid4().hex, "run": uuid.uuid4().hex, "messages": ASKED}
        props = {"forwardedProps": {"tailrace": {"params": params}}}
        url = f"http://127.0.0.1:{self.proxy.port}/ag-ui/{model}"
        return await self.ask("run", **{"url": url, **names, **props, **told})


@pytest.fixture
async def agent(deployment: Deployment, program: NodeProgram) -> AsyncIterator[Agent]:
    async with Proxy("127.0.0.1", deployment.api[0].port) as proxy:
        yield Agent(program, deployment, proxy)


def check_whole(said: dict[str, Any]) -> None:
    assert said.get("error") is None, said
    assert (said["kinds"][0], said["kinds"][-1]) == ("RUN_STARTED", "RUN_FINISHED")
    assert [message["content"] for message in said["shown"]] == [TEXT]
    assert said["outcome"] in ("success", None)
    assert said["warnings"] == []


async def in_mid_answer(api: RawClient, thread: str) -> str:
    """Return the generation of a thread, once it has written a part of its text."""

    async def begun() -> str | None:
        for row in (await api.get(f"/v1/sessions/{thread}")).json()["generations"]:
            if len((await api.get(f"/v1/generations/{row['id']}")).json()["text"]) > 30:
                return str(row["id"])
        return None

    found: str = await until(begun, 15, "an answer has begun")
    return found


async def holder(deployment: Deployment, generation_id: str) -> Role:
    async with deployment.redis() as redis:
        name = await redis.hget(keys.meta(generation_id), "worker")
    assert name is not None
    return next(role for role in deployment.workers if role.ready_name == name.decode())


# The verifier


@pytest.mark.parametrize(("version", "dialect"), [(1, "ag-ui"), (1, "ag-ui-proto"), (0, "ag-ui-0")])
async def test_the_client_accepts_every_recorded_log(
    program: NodeProgram, version: int, dialect: str
) -> None:
    names = [f"{dialect}.{log}" for log in LOGS | AG_UI_LOGS]
    paths = {name: str(DIRECTORY / f"{name}.txt") for name in names}
    for path in paths.values():
        assert BROKEN not in (DIRECTORY / path).read_bytes()
    found = (await program.ask("golden", version=version, paths=paths))["value"]

    assert [name for name in names if found[name].get("error")] == []
    texts = {
        log: "".join(each.get("content", "") for each in found[f"{dialect}.{log}"]["shown"])
        for log in ("normal", "takeover", "reset", "reset_early", "state", "rewritten")
    }
    assert texts == {
        "normal": 'Grüße "you" 👩\u200d🚀\n', "takeover": "One, two, three.",
        "reset": "Uno, due, tre.", "reset_early": "Uno.", "state": "Uno.", "rewritten": "",
    }  # fmt: skip
    assert found[f"{dialect}.state"]["state"] == {"n": 2}
    # No half of a call is left for the client to run.
    assert "toolCalls" not in str(found[f"{dialect}.cancelled_call"]["all"])


async def test_the_client_rejects_a_log_with_one_frame_less(
    program: NodeProgram, tmp_path: Path
) -> None:
    frames = (DIRECTORY / "ag-ui.tools.txt").read_bytes().removesuffix(b"\n\n").split(b"\n\n")
    paths = {}
    for number, frame in enumerate(frames[:-1]):
        if b"_ARGS" in frame or b"_CONTENT" in frame:
            continue
        path = tmp_path / str(number)
        path.write_bytes(b"\n\n".join(frames[:number] + frames[number + 1 :]) + b"\n\n")
        paths[f"{number} {frame[:60]!r}"] = str(path)
    found = (await program.ask("golden", version=1, paths=paths))["value"]

    assert len(found) > 10
    assert [name for name, said in found.items() if not said.get("error")] == []


async def test_the_heartbeat_of_the_binary_form_is_an_event(program: NodeProgram) -> None:
    coded = base64.b64encode(HEARTBEAT).decode()
    (beat,) = (await program.ask("decode", base64=coded))["value"]

    assert (beat["type"], beat["name"], beat["value"]) == ("CUSTOM", "heartbeat", None)


# Runs


@pytest.mark.parametrize(
    ("version", "fetch"),
    [(1, "plain"), (1, "binary"), (1, "resuming"), (0, "plain"), (0, "resuming")],
)
async def test_an_answer_arrives(agent: Agent, version: int, fetch: str) -> None:
    script = {"reasoning": 2, "tool_call": True, "tokens": 5, "delay_s": 0}
    said = await agent.run("continue", script, version=version, fetch=fetch, tools=[WEATHER])

    assert said.get("error") is None and said["warnings"] == [], said
    thought, text, calls = said["shown"]
    assert (thought["role"], text["role"], calls["role"]) == ("reasoning", *["assistant"] * 2)
    assert thought["content"] and text["content"] == said["text"]
    (call,) = calls["toolCalls"]
    assert call["function"]["name"] and call["function"]["arguments"].endswith("}")
    (usage,) = said["last"]["usage"]
    assert usage["totalTokens"] == usage["inputTokens"] + usage["outputTokens"] > 0


async def test_results_of_tools_go_back_and_the_model_goes_on(agent: Agent) -> None:
    first = await agent.run("continue", {"tool_call": True, "tokens": 3, "delay_s": 0})
    (call,) = first["shown"][-1]["toolCalls"]
    result = {"id": "r1", "role": "tool", "toolCallId": call["id"], "content": "rain"}
    said = await agent.run("continue", messages=[*first["all"], result])

    assert said.get("error") is None, said
    assert said["kinds"][-1] == "RUN_FINISHED"
    assert said["shown"][-1]["content"]


async def test_state_of_a_producer_reaches_the_client(
    agent: Agent, api: RawClient, tmp_path: Path
) -> None:
    """A producer writes a state, a patch, a step and data of an agent."""
    opened = await api.call(
        "POST", "/v1/generations", body={"prompt": PROMPT, "producer": True, "session": "s1"}
    )
    run, token = opened.json()["id"], opened.json()["producer_token"]
    events = [
        {"type": "progress", "stage": "search", "current": 1, "total": 1, "percentage": 100.0},
        {"type": "data", "name": "state", "value": {"found": []}},
        {"type": "data", "name": "state_delta",
         "value": [{"op": "add", "path": "/found/-", "value": "a"}]},
        {"type": "data", "name": "sources", "value": ["b"], "agent": "reader"},
        {"type": "token", "text": "Found."},
        {"type": "end", "status": "completed", "finish_reason": "stop"},
    ]  # fmt: skip
    appended = await api.call(
        "POST", f"/v1/generations/{run}/events", body={"seq": 2, "events": events},
        headers={"x-producer-token": token},
    )  # fmt: skip
    assert appended.status == 200, appended
    stream = await api.get(f"/ag-ui/any/runs/{run}/stream")
    path = tmp_path / "run"
    path.write_bytes(stream.body)
    found = (await agent.ask("golden", version=1, paths={"run": str(path)}))["run"]

    assert found.get("error") is None, found
    assert found["state"] == {"found": ["a"]}
    assert [kind for kind in found["kinds"] if kind.startswith(("STEP", "SUBAGENT"))] == [
        "STEP_STARTED", "STEP_FINISHED", "SUBAGENT_STARTED", "SUBAGENT_FINISHED",
    ]  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_failure_is_a_run_error(agent: Agent, version: int) -> None:
    script = {"fault": "eof", "fault_at": 5, "fault_requests": 0, "delay_s": 0}
    said = await agent.run("restart", script, version=version)

    assert said["kinds"][-1] == "RUN_ERROR"
    assert said["last"]["code"] == "attempts_exhausted"
    assert "TEXT_MESSAGE_END" in said["kinds"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_refusal_is_an_error_with_its_reason(agent: Agent, version: int) -> None:
    said = await agent.run("no-such-model", version=version)

    assert "404" in said["error"] and "model_not_found" in said["error"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_cancel_at_the_other_node_ends_the_run(
    agent: Agent, api: RawClient, version: int
) -> None:
    thread, run = uuid.uuid4().hex, uuid.uuid4().hex
    task = asyncio.create_task(
        agent.run("continue", {"tokens": 5_000}, version=version, thread=thread, run=run)
    )
    generation_id = await in_mid_answer(api, thread)
    path = f"/ag-ui/continue/runs/{run}/cancel?threadId={thread}"
    answer = await api.call("POST", path, node=api.other_url)
    said = await task

    assert (answer.status, answer.json()["id"]) == (202, generation_id)
    assert said.get("error") is None, said
    assert said["outcome"] == ("cancelled" if version else "success")
    assert (await api.ended(generation_id))["text"] == said["text"] != ""


async def test_an_abort_of_the_client_stops_nothing(agent: Agent, api: RawClient) -> None:
    thread = uuid.uuid4().hex
    said = await agent.run("continue", thread=thread, characters=50)
    generation_id = await in_mid_answer(api, thread)

    assert len(said["text"]) < len(TEXT)
    assert (await api.ended(generation_id))["text"] == TEXT


# Faults


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_run_does_not_notice_that_its_node_dies(
    agent: Agent, deployment: Deployment, api: RawClient, version: int
) -> None:
    thread = uuid.uuid4().hex
    task = asyncio.create_task(
        agent.run("continue", version=version, fetch="resuming", thread=thread)
    )
    await in_mid_answer(api, thread)
    agent.proxy.aim("127.0.0.1", deployment.api[1].port)
    deployment.api[0].kill()

    check_whole(await task)


async def test_a_client_without_the_resuming_fetch_is_told_of_the_cut_and_runs_again(
    agent: Agent, deployment: Deployment, api: RawClient
) -> None:
    """The same thread and run name the same answer, so nothing is generated twice."""
    names = {"thread": uuid.uuid4().hex, "run": uuid.uuid4().hex}
    task = asyncio.create_task(agent.run("continue", **names))
    generation_id = await in_mid_answer(api, names["thread"])
    agent.proxy.aim("127.0.0.1", deployment.api[1].port)
    await agent.proxy.cut()
    assert (await task)["error"]  # never taken for the whole answer

    check_whole(await agent.run("continue", **names))
    rows = (await api.get(f"/v1/sessions/{names['thread']}")).json()["generations"]
    assert [row["id"] for row in rows] == [generation_id]


@pytest.mark.parametrize("model", ["continue", "restart"])
@pytest.mark.parametrize("fetch", FORMS)
async def test_a_killed_worker_leaves_exactly_one_text(
    agent: Agent, deployment: Deployment, api: RawClient, model: str, fetch: str
) -> None:
    thread = uuid.uuid4().hex
    task = asyncio.create_task(agent.run(model, fetch=fetch, thread=thread))
    generation_id = await in_mid_answer(api, thread)
    (await holder(deployment, generation_id)).kill()
    said = await task

    check_whole(said)
    assert ("ACTIVITY_SNAPSHOT" in said["kinds"]) == (model == "restart")
