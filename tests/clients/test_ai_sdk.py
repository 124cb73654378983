"""Vercel's AI SDK at two nodes: chats as useChat holds them, with each of its three transports.

Cut and resumed on the other node, stopped, an upstream that fails, a worker that is killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest

from shared.redis import keys
from tests.support.node_program import NodeProgram
from tests.support.processes import Deployment, Role
from tests.support.proxy import Proxy
from tests.support.raw_client import RawClient
from tests.support.upstream import expected_text, script_of
from tests.support.wait import until

PROMPT = "tell me"
SCRIPT = {"tokens": 50, "delay_s": 0.02}
TEXT = expected_text(PROMPT, script_of({"messages": [], "upstream": SCRIPT}))
CHAT = "a chat/ü?%"  # names need not be tame
KINDS = ["default", "default6", "workflow", "websocket"]  # default6: of `ai` 6
KNOW_RESET_STEP = [kind for kind in KINDS if kind != "default6"]
REPLAYING = ["default", "default6", "websocket"]  # they know nothing of what they have: read all
ENDLESS = {"tokens": 5_000}


class Sdk:
    """One program with its chats, and a way to its node that can be cut and led elsewhere."""

    def __init__(self, program: NodeProgram, proxy: Proxy, deployment: Deployment) -> None:
        self.program = program
        self.proxy = proxy
        self.deployment = deployment
        self.url = f"http://127.0.0.1:{proxy.port}"

    async def ask(self, op: str, **told: Any) -> Any:
        said = await self.program.ask(op, **told)
        assert "value" in said, said
        return said["value"]

    async def open(self, kind: str, *, name: str = "one", chat: str = CHAT, **told: Any) -> None:
        await self.ask("open", name=name, kind=kind, id=chat, **{"url": self.url, **told})

    async def send(
        self, model: str, script: dict[str, Any] | None = None, characters: int | None = None,
        **body: Any,
    ) -> Any:  # fmt: skip
        upstream = {**SCRIPT, **(script or {})}
        told = {"model": model, "params": {"upstream": upstream}, **body}
        return await self.ask("send", name="one", text=PROMPT, body=told, characters=characters)

    async def cut(self) -> None:
        """Break the connections, and lead the next ones to the other node."""
        self.proxy.aim("127.0.0.1", self.deployment.api[1].port)
        await self.proxy.cut()

    async def over(self, name: str = "one") -> Any:
        return await self.ask("over", name=name)


@pytest.fixture(scope="module")
async def program() -> AsyncIterator[NodeProgram]:
    async with NodeProgram("ai-sdk.mjs") as program:
        yield program


@pytest.fixture
async def sdk(deployment: Deployment, program: NodeProgram) -> AsyncIterator[Sdk]:
    async with Proxy("127.0.0.1", deployment.api[0].port) as proxy:
        yield Sdk(program, proxy, deployment)


@pytest.fixture
async def api(deployment: Deployment) -> AsyncIterator[RawClient]:
    async with RawClient(*deployment.urls) as raw_client:
        yield raw_client


def answer_of(said: dict[str, Any]) -> dict[str, Any]:
    """The one answer of a chat that has asked once."""
    user, answer = said["messages"]
    assert (user["role"], answer["role"]) == ("user", "assistant")
    found: dict[str, Any] = answer
    return found


def check_whole(said: dict[str, Any]) -> None:
    assert (said["status"], said.get("error")) == ("ready", None), said
    assert answer_of(said)["text"] == TEXT
    assert all(part.get("state", "done") == "done" for part in answer_of(said)["parts"])
    assert said["finishes"][-1]["finishReason"] == "stop"


async def holder(deployment: Deployment, generation_id: str) -> Role:
    async with deployment.redis() as redis:
        name: Any = await until(
            lambda: redis.hget(keys.meta(generation_id), "worker"), 10, "a holder"
        )
    return next(role for role in deployment.workers if role.ready_name == name.decode())


def path_of(chat: str, what: str) -> str:
    return f"/ai-sdk/chat/{quote(chat, safe='')}/{what}"


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_arrives(sdk: Sdk, kind: str) -> None:
    await sdk.open(kind)
    said = await sdk.send("continue", {"reasoning": 2, "tool_call": True, "tokens": 5})

    assert said["status"] == "ready", said
    kinds = [part["type"] for part in answer_of(said)["parts"]]
    assert kinds[:3] == ["step-start", "reasoning", "text"]
    assert any(kind.startswith("tool-") for kind in kinds)


@pytest.mark.parametrize("kind", REPLAYING)
async def test_a_cut_answer_resumes_on_the_other_node(sdk: Sdk, kind: str) -> None:
    await sdk.open(kind)
    said = await sdk.send("continue", characters=50)
    assert said["status"] == "streaming"
    await sdk.cut()
    said = await sdk.over()
    assert said["status"] == "error"  # never taken for the whole answer
    assert TEXT.startswith(answer_of(said)["text"])

    check_whole(await sdk.ask("resume", name="one"))


@pytest.mark.parametrize("kind", REPLAYING)
async def test_another_tab_finds_the_running_answer(sdk: Sdk, kind: str) -> None:
    await sdk.open(kind)
    said = await sdk.send("continue", characters=50)
    history = [{key: m[key] for key in ("id", "role", "parts")} for m in said["messages"]]
    # One that has kept what was there, and one that has kept the question only.
    for name, kept in (("two", history), ("three", history[:1])):
        await sdk.open(kind, name=name, url=sdk.deployment.urls[1], messages=kept)
        await sdk.ask("resume", name=name, characters=1)
    for name in ("one", "two", "three"):
        check_whole(await sdk.over(name))

    await sdk.open(kind, name="late", messages=history[:1])
    said = await sdk.ask("resume", name="late")
    assert (said["status"], len(said["messages"])) == ("ready", 1)  # nothing runs any more


async def test_the_workflow_transport_resumes_by_itself_at_the_next_chunk(sdk: Sdk) -> None:
    await sdk.open("workflow")
    await sdk.send("continue", characters=50)
    await sdk.cut()
    said = await sdk.over()

    check_whole(said)
    (post, get) = said["requests"]
    assert post[0] == "POST" and get[2] == 200
    assert int(get[1].partition("startIndex=")[2]) > 5


async def test_workflow_reads_a_run_from_any_chunk(sdk: Sdk) -> None:
    await sdk.open("default", chat="counted")
    said = await sdk.send("continue", {"tokens": 10})
    run = answer_of(said)["id"]
    here, there = sdk.deployment.urls
    whole = await sdk.ask("chunks", url=here, id=run, startIndex=0)
    assert whole[0] == {"type": "start", "messageId": run}
    assert whole[-1] == {"type": "finish", "finishReason": "stop"}
    for number in (1, 3, 7, len(whole) - 1, len(whole), len(whole) + 9):
        found = await sdk.ask("chunks", url=there, id=run, startIndex=number)
        # It opens a part again whose start it was not given.
        found = found[1:] if 2 < number < len(whole) - 3 else found
        # Past the end it is the one finish, or it would ask for ever.
        assert found == (whole[number:] or whole[-1:])
    assert await sdk.ask("chunks", url=there, id=run, startIndex=-2) == whole[-2:]
    # Not told the run, it asks for the chat.
    assert await sdk.ask("chunks", url=there, id="counted", startIndex=0) == whole


@pytest.mark.parametrize("kind", KINDS)
async def test_the_model_continues_after_its_worker_is_killed(sdk: Sdk, kind: str) -> None:
    await sdk.open(kind)
    said = await sdk.send("continue", characters=50)
    (await holder(sdk.deployment, answer_of(said)["id"])).kill()

    check_whole(await sdk.over())


@pytest.mark.parametrize("kind", KNOW_RESET_STEP)
async def test_the_answer_begins_anew_after_its_worker_is_killed(sdk: Sdk, kind: str) -> None:
    await sdk.open(kind)
    said = await sdk.send("restart", characters=50, resetStep=True)
    (await holder(sdk.deployment, answer_of(said)["id"])).kill()

    check_whole(await sdk.over())


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_cannot_begin_anew_is_told(sdk: Sdk, kind: str) -> None:
    await sdk.open(kind)
    said = await sdk.send("restart", characters=50)
    (await holder(sdk.deployment, answer_of(said)["id"])).kill()
    said = await sdk.over()

    assert said["status"] == "error"
    assert "begun anew" in said["error"]
    assert len(said["requests"]) <= 1  # it is over: nobody asks again


@pytest.mark.parametrize("kind", KINDS)
async def test_an_upstream_that_always_fails_is_an_error(sdk: Sdk, kind: str) -> None:
    await sdk.open(kind)
    script = {"fault": "eof", "fault_at": 5, "fault_requests": 0}
    said = await sdk.send("restart", script, resetStep=True)

    assert said["status"] == "error"
    assert said["finishes"][-1]["isError"]
    assert len(said["requests"]) <= 1


@pytest.mark.parametrize("kind", REPLAYING)
async def test_a_stop_from_the_other_node(sdk: Sdk, api: RawClient, kind: str) -> None:
    await sdk.open(kind)
    run = answer_of(await sdk.send("continue", ENDLESS, characters=50))["id"]
    for _ in range(2):
        answer = await api.call("POST", path_of(CHAT, "stop"), node=api.other_url)
        assert answer.status == 204
    said = await sdk.over()
    assert said["status"] == "ready"
    assert answer_of(said)["text"]  # what was generated stays
    assert (await api.get(path_of(CHAT, "stream"))).status == 204
    assert (await api.ended(run))["status"] == "cancelled"
    said = await sdk.ask("resume", name="one")
    assert (said["status"], len(said["messages"])) == ("ready", 2)


@pytest.mark.parametrize("kind", ["default", "workflow"])
async def test_a_client_that_hangs_up_over_http_does_not_stop_the_answer(
    sdk: Sdk, api: RawClient, kind: str
) -> None:
    await sdk.open(kind)
    run = answer_of(await sdk.send("continue", characters=50))["id"]
    await sdk.ask("stop", name="one")

    assert (await api.ended(run))["status"] == "completed"


@pytest.mark.parametrize("is_resumed", [False, True])
async def test_a_stop_over_the_websocket_stops_the_answer(
    sdk: Sdk, api: RawClient, is_resumed: bool
) -> None:
    await sdk.open("websocket")
    run = answer_of(await sdk.send("continue", ENDLESS, characters=50))["id"]
    name = "one"
    if is_resumed:
        name = "two"
        await sdk.open("websocket", name=name, url=sdk.deployment.urls[1])
        await sdk.ask("resume", name=name, characters=50)
    await sdk.ask("stop", name=name)

    assert (await api.ended(run))["status"] == "cancelled"


async def test_no_resume_undoes_a_stop(sdk: Sdk, api: RawClient) -> None:
    """Tabs that resume while another one stops: each sees the end, and none brings it back."""
    for round_ in range(5):
        chat = f"race-{round_}"
        await sdk.open("default", chat=chat)
        await sdk.send("continue", ENDLESS, characters=1)
        stop = api.call("POST", path_of(chat, "stop"), node=api.other_url)
        resumes = [api.get(path_of(chat, "stream"), node=node) for node in sdk.deployment.urls * 3]
        stopped, *resumed = await asyncio.gather(stop, *resumes)
        assert stopped.status == 204
        for answer in resumed:
            finish = b'data: {"type":"finish","finishReason":"other"}\n\ndata: [DONE]\n\n'
            assert answer.status == 204 or answer.body.endswith(finish)
        for node in sdk.deployment.urls:
            assert (await api.get(path_of(chat, "stream"), node=node)).status == 204
        assert (await sdk.over())["status"] == "ready"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refusal_is_shown_as_a_sentence(sdk: Sdk, kind: str) -> None:
    await sdk.open(kind)
    said = await sdk.send("no-such-model")

    assert said["status"] == "error"
    assert "no model 'no-such-model'" in said["error"]
    assert "{" not in said["error"]
