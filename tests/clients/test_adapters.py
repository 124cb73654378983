"""The adapters of the package `tailrace`, with OpenAI's SDK and the AI SDK, on broken networks."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.client import Client
from tests.support.demo import demo_body, expected_text
from tests.support.node_program import NodeProgram
from tests.support.npm import built
from tests.support.processes import Deployment
from tests.support.scenario_proxy import Faults, ScenarioProxy
from tests.support.wait import until

PROMPT = "tell me"
CUTS = Faults(cut_bytes=3_000, cuts=4)
OUTAGE = Faults(answers=[502, 503])
STALL = Faults(stall_bytes=4_000, stalls=1)
FAULTS = {"cuts": CUTS, "a proxy that refuses": OUTAGE, "a stall": STALL}


@pytest.fixture(scope="module")
async def shared_nodes() -> AsyncIterator[Deployment]:
    async with Deployment(api=2, workers=2, jobs=1, settings={"heartbeat_s": "1"}) as deployment:
        yield deployment


@pytest.fixture
async def nodes(shared_nodes: Deployment) -> AsyncIterator[Deployment]:
    await shared_nodes.heal()
    yield shared_nodes


@pytest.fixture
async def program() -> AsyncIterator[NodeProgram]:
    built()
    async with NodeProgram("tailrace-adapters.mjs") as program:
        yield program


async def told(program: NodeProgram, nodes: Deployment, faults: Faults, **asked: Any) -> Any:
    async with ScenarioProxy([role.port for role in nodes.api], faults) as proxy:
        said = await program.ask(asked.pop("op"), url=proxy.url, **asked)
    assert "value" in said, said
    return said["value"]


def demo_params(tokens: int, per_s: float) -> dict[str, Any]:
    demo: dict[str, Any] = demo_body(tokens, per_s)["params"]
    return demo


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
async def test_a_chat_completion_of_the_openai_sdk_does_not_notice_the_network(
    nodes: Deployment, program: NodeProgram, faults: Faults
) -> None:
    messages = [{"role": "user", "content": PROMPT}]
    body = {"model": "demo", "messages": messages, **demo_params(120, 60)}
    said = await told(program, nodes, faults, op="openai", body=body)

    whole = {"messages": messages, "params": demo_params(120, 60)}
    assert said["text"] == expected_text(whole, said["id"])
    assert said["finishes"] == ["stop"]


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
async def test_use_chat_does_not_notice_the_network(
    nodes: Deployment, program: NodeProgram, faults: Faults
) -> None:
    body = {"model": "demo", "params": demo_params(120, 60)}
    said = await told(
        program, nodes, faults, op="useChat", id=f"chat-{uuid.uuid4()}", body=body, prompt=PROMPT
    )

    assert said["status"] == "ready", said
    assert said["text"] == expected_text(demo_body(120, 60), said["id"])


async def test_the_stop_of_use_chat_stops_the_answer(
    nodes: Deployment, program: NodeProgram
) -> None:
    body = {"model": "demo", "params": demo_params(5_000, 50)}
    # Without the proxy: it would end before the stop, which nobody waits for, has arrived.
    asked = {"id": f"chat-{uuid.uuid4()}", "body": body, "prompt": PROMPT, "stopAt": 20}
    said = (await program.ask("useChat", url=nodes.urls[0], **asked))["value"]

    assert said["status"] == "ready", said
    async with Client(nodes.urls) as client:

        async def is_cancelled() -> bool:
            return bool((await client.snapshot(said["id"]))["status"] == "cancelled")

        await until(is_cancelled, 10, "the cancelled answer")


async def test_another_page_resumes_the_running_answer_over_a_cut(
    nodes: Deployment, program: NodeProgram
) -> None:
    body = {"model": "demo", "params": demo_params(120, 40)}
    said = await told(
        program, nodes, CUTS, op="resume", id=f"chat-{uuid.uuid4()}", body=body, prompt=PROMPT
    )

    assert said["status"] == "ready", said
    assert said["first"] == said["second"] != ""


async def test_deep_chat_gets_the_whole_answer_over_cuts(
    nodes: Deployment, program: NodeProgram
) -> None:
    options = {"model": "demo", "params": demo_params(120, 60)}
    said = await told(program, nodes, CUTS, op="deepChat", options=options, text=PROMPT)

    assert (said[0], said[-1]) == ("open", "close")
    text = "".join(response["text"] for response in said[1:-1])
    assert len(text.split()) > 60
    assert all(response.keys() == {"text"} for response in said[1:-1])


async def test_the_stop_button_of_deep_chat_ends_the_answer(
    nodes: Deployment, program: NodeProgram
) -> None:
    options = {"model": "demo", "params": demo_params(5_000, 50), "session": "deep-chat-stop"}
    said = await told(
        program, nodes, Faults(), op="deepChat", options=options, text=PROMPT, stopAt=5
    )

    assert said[-1] == "close"
    assert len(said) < 1_000


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
async def test_a_batch_and_its_results_do_not_notice_the_network(
    nodes: Deployment, program: NodeProgram, faults: Faults
) -> None:
    params = demo_params(40, 0)
    said = await told(program, nodes, faults, op="batch", count=12, params=params)

    names = {f"c{n}" for n in range(12)}
    done = [e["value"]["custom_id"] for e in said["events"] if e["type"] == "data"]
    assert (len(done), set(done)) == (12, names), "each line is told once"
    assert said["events"][-1]["type"] == "end"
    assert (said["state"]["status"], len(said["lines"])) == ("completed", 12)
    assert {line["customId"] for line in said["lines"]} == names, "each line is read once"
    for line in said["lines"]:
        body = {"prompt": f"line {line['customId'][1:]}", "params": params}
        assert line["body"]["text"] == expected_text(body, line["body"]["id"])


async def test_a_cancelled_batch_is_a_result(nodes: Deployment, program: NodeProgram) -> None:
    params = demo_params(500, 1)
    said = await told(program, nodes, Faults(), op="batch", count=3, params=params, cancels=True)
    assert (said["state"]["status"], said["lines"]) == ("cancelled", [])


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
async def test_an_answer_that_a_program_writes_does_not_notice_the_network(
    nodes: Deployment, program: NodeProgram, faults: Faults
) -> None:
    pieces = [f"piece {n}, " for n in range(12)]
    said = await told(program, nodes, faults, op="produce", pieces=pieces)
    async with Client(nodes.urls) as client:
        snapshot = await client.snapshot(said["id"])

    assert (said["status"], snapshot["status"]) == ("completed", "completed")
    assert snapshot["text"] == "".join(pieces)
