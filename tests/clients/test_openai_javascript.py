"""OpenAI's SDK for JavaScript at two nodes: Responses in the background, cut, resumed, stopped.

Its helper keeps a stricter account of a response's items than the one for Python.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.redis import keys
from tests.support.browser import Browser, PageServer
from tests.support.node_program import NodeProgram
from tests.support.npm import bundle
from tests.support.processes import Deployment, Role
from tests.support.proxy import Proxy
from tests.support.upstream import expected_text, script_of
from tests.support.wait import until

PROMPT = "tell me"
SCRIPT = {"tokens": 60, "delay_s": 0.033}
TEXT = expected_text(PROMPT, script_of({"messages": [], "upstream": SCRIPT}))


@pytest.fixture
async def program() -> AsyncIterator[NodeProgram]:
    async with NodeProgram("openai.mjs") as program:
        yield program


def asked(model: str, *, script: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    told = {**SCRIPT, **(script or {})}
    return {"model": model, "input": PROMPT, "stream": True, "upstream": told, **members}


def value_of(said: dict[str, Any]) -> Any:
    assert "value" in said, said
    return said["value"]


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return [event["sequence_number"] for event in events]


async def holder(deployment: Deployment, response_id: str) -> Role:
    generation_id = response_id.replace("resp_", "gen_")
    async with deployment.redis() as redis:
        name: Any = await until(
            lambda: redis.hget(keys.meta(generation_id), "worker"), 10, "a holder"
        )
    return next(role for role in deployment.workers if role.ready_name == name.decode())


@pytest.mark.parametrize("model", ["continue", "restart"])
async def test_a_cut_stream_continues_on_the_other_node_after_its_worker_died(
    deployment: Deployment, program: NodeProgram, model: str
) -> None:
    here, there = deployment.urls
    body = asked(model, background=True)
    events = value_of(await program.ask("create", url=here, body=body, upto=11))
    assert numbers(events) == list(range(12))
    response_id = events[0]["response"]["id"]
    (await holder(deployment, response_id)).kill()
    query = {"stream": True, "starting_after": 11}
    events += value_of(await program.ask("retrieve", url=there, id=response_id, query=query))

    assert numbers(events) == list(range(len(events)))
    assert events[-1]["type"] == "response.completed"
    (item,) = events[-1]["response"]["output"]
    assert item["content"][0]["text"] == TEXT
    # The helper that retrieves takes the whole, and gives what follows a number.
    told = {"response_id": response_id, "starting_after": 11}
    found = value_of(await program.ask("helper", url=here, body=told))
    assert numbers(found["events"]) == numbers(events)[12:]
    assert found["final"]["output_text"] == TEXT
    whole = value_of(await program.ask("call", url=there, name="retrieve", args=[response_id]))
    assert (whole["status"], whole["output_text"]) == ("completed", TEXT)


async def test_the_create_helper_survives_a_restart_of_the_answer(
    deployment: Deployment, program: NodeProgram
) -> None:
    body = asked("restart")
    begun = await program.ask("helper", url=deployment.urls[0], body=body, upto=11)
    (await holder(deployment, begun["events"][0]["response"]["id"])).kill()
    found = value_of(await program.said())

    assert numbers(found["events"]) == list(range(len(found["events"])))
    assert found["final"]["output_text"] == TEXT
    assert len(found["final"]["output"]) == 1


async def test_a_cancel_works_from_the_other_node(
    deployment: Deployment, program: NodeProgram
) -> None:
    here, there = deployment.urls
    body = asked("restart", background=True, script={"tokens": 2_000})
    events = value_of(await program.ask("create", url=here, body=body, upto=11))
    response_id = events[0]["response"]["id"]
    cancel = {"url": there, "name": "cancel", "args": [response_id]}
    cancelled = value_of(await program.ask("call", **cancel))
    text = cancelled["output"][0]["content"][0]["text"]
    assert cancelled["status"] == "cancelled" and text
    assert value_of(await program.ask("call", **cancel)) == cancelled
    query = {"stream": True, "starting_after": 11}
    events += value_of(await program.ask("retrieve", url=here, id=response_id, query=query))
    assert numbers(events) == list(range(len(events)))
    assert events[-1]["response"]["status"] == "cancelled"
    # The helper has to take this end, too.
    found = value_of(await program.ask("helper", url=here, body={"response_id": response_id}))
    assert found["final"]["output_text"] == text


async def test_a_deleted_response_is_gone(deployment: Deployment, program: NodeProgram) -> None:
    here, there = deployment.urls
    body = asked("restart", stream=False, script={"tokens": 3})
    made = value_of(await program.ask("call", url=here, name="create", args=[body]))
    assert made["status"] == "completed"
    (item,) = value_of(await program.ask("items", url=there, id=made["id"], query={}))
    assert item["content"] == [{"type": "input_text", "text": PROMPT}]
    said = value_of(await program.ask("call", url=there, name="delete", args=[made["id"]]))
    assert said["deleted"] is True
    gone = await program.ask("call", url=here, name="retrieve", args=[made["id"]])
    assert (gone["error"]["status"], gone["error"]["code"]) == (404, "not_found")


async def test_the_client_is_told_of_a_model_server_that_always_fails(
    deployment: Deployment, program: NodeProgram
) -> None:
    script = {"tokens": 20, "fault": "eof", "fault_at": 5, "fault_requests": 0}
    body = asked("restart", script=script)
    found = await program.ask("create", url=deployment.urls[0], body=body)
    assert (found["error"]["kind"], found["error"]["code"]) == ("APIError", "attempts_exhausted")


async def test_the_streams_of_a_socket_go_on_at_the_other_node(
    deployment: Deployment, program: NodeProgram
) -> None:
    """The WebSocket mode: the SDK opens another socket, and the rest is asked for by number."""
    ports = [int(url.rpartition(":")[2]) for url in deployment.urls]
    events = [
        {"type": "response.create", **asked("continue", stream_id=name, on_disconnect="continue")}
        for name in ("a", "b")
    ]
    async with Proxy("127.0.0.1", ports[0]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        await program.ask("socket", url=url, events=events, ends=2, upto=24)
        proxy.lead_to(ports[1])
        deployment.api[0].kill()
        found = value_of(await program.said())

    assert found["cuts"] == 1
    for name in ("a", "b"):
        heard = [event for event in found["heard"] if event["stream_id"] == name]
        assert numbers(heard) == list(range(len(heard)))
        (item,) = heard[-1]["response"]["output"]
        assert item["content"][0]["text"] == TEXT


async def test_a_socket_warms_up_continues_and_tells_of_errors(
    deployment: Deployment, program: NodeProgram
) -> None:
    here, there = deployment.urls
    warm = {"type": "response.create", "model": "continue", "input": "x", "generate": False}
    found = value_of(await program.ask("socket", url=here, events=[warm], ends=1))
    warm_id = found["heard"][-1]["response"]["id"]
    body = asked("continue", script={"tokens": 5}, previous_response_id=warm_id)
    unknown = {**warm, "previous_response_id": "resp_x", "stream_id": "s"}
    events = [{"type": "response.create", **body}, unknown]
    heard = value_of(await program.ask("socket", url=there, events=events, ends=2))["heard"]

    (error,) = [event for event in heard if event["type"] == "error"]
    assert error["error"]["code"] == "previous_response_not_found"
    assert heard[-1]["response"]["previous_response_id"] == warm_id
    assert heard[-1]["response"]["output"][0]["content"][0]["text"]


async def test_a_page_of_another_origin_uses_the_sdk_directly(
    deployment: Deployment, browser: Browser, pages: PageServer
) -> None:
    """Preflights with all the headers that the SDK sends, and those of ours that it may read."""
    pages.pages["/openai"] = f"<!doctype html><script>{bundle('openai-page.mjs')}</script>"
    page = await browser.open(pages.origin + "/openai")
    messages = [{"role": "user", "content": PROMPT}]
    body = {"model": "continue", "messages": messages, "stream": True, "upstream": SCRIPT}
    said = await page.evaluate(f"ask('{deployment.urls[0]}/v1', {json.dumps(body)})")

    assert said["text"] == TEXT
    assert "continue" in said["models"]
    assert said["named"].startswith("gen_")
    assert said["gone"] == "model_not_found"
    assert await page.errors() == []
    await page.close()
