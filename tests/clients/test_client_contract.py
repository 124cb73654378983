"""What our own clients promise, in each language: names, cursors, cancel, errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.redis import keys
from tests.support.client import Client
from tests.support.demo import demo_body, expected_text
from tests.support.processes import Deployment
from tests.support.scenario_proxy import ScenarioProxy
from tests.support.scenarios import LANGUAGES, ClientProgram, problems_of, program_of
from tests.support.upstream import expected_text as upstream_text
from tests.support.upstream import script_of
from tests.support.wait import until

TRANSPORTS = ["websocket", "sse", "ndjson", "poll", "auto"]
KEY = "k-contract-0123456789abcdef"
BODY = demo_body(30, 100)


@pytest.fixture(scope="module")
async def nodes() -> AsyncIterator[Deployment]:
    settings = {"heartbeat_s": "1", "api_keys": f"{KEY}:ann"}
    async with Deployment(api=1, workers=1, settings=settings) as deployment:
        yield deployment


@pytest.fixture(params=LANGUAGES)
async def program(request: pytest.FixtureRequest) -> AsyncIterator[ClientProgram]:
    async with program_of(request.param, KEY) as program:
        yield program


async def each(
    program: ClientProgram, nodes: Deployment, transports: list[str] = TRANSPORTS, **run: Any
) -> dict[str, dict[str, Any]]:
    """Do one reading on each transport, and return the outcomes by transport."""
    runs = [{"url": nodes.urls[0], "transport": name, **run} for name in transports]
    return dict(zip(transports, await program.ask("each", runs=runs), strict=True))


async def test_an_attach_at_a_cursor_gets_the_rest_and_the_whole_result(
    nodes: Deployment, program: ClientProgram
) -> None:
    (first,) = (await each(program, nodes, ["sse"], body=BODY)).values()
    at = first["events"][9]["id"]
    outcomes = await each(program, nodes, id=first["id"], cursor=at)

    for name, outcome in outcomes.items():
        said = "".join(e.get("text", "") for e in first["events"][:10] + outcome["events"])
        assert said == first["result"]["text"], name
        assert outcome["result"]["text"] == first["result"]["text"], name
        assert outcome["cursor"] == first["cursor"], name


async def test_an_attach_at_the_end_has_no_events_and_the_whole_result(
    nodes: Deployment, program: ClientProgram
) -> None:
    (first,) = (await each(program, nodes, ["sse"], body=BODY)).values()
    outcomes = await each(program, nodes, id=first["id"], cursor=first["cursor"])

    for name, outcome in outcomes.items():
        assert outcome.get("events") == [], (name, outcome)
        assert outcome["result"]["text"] == first["result"]["text"], name
        assert outcome["result"]["status"] == "completed", name


async def test_a_cancel_keeps_the_text_and_raises_nothing(
    nodes: Deployment, program: ClientProgram
) -> None:
    body = demo_body(5_000, 50)
    outcomes = await each(program, nodes, body=body, cancelAt=5)

    for name, outcome in outcomes.items():
        assert outcome["result"]["status"] == "cancelled", (name, outcome)
        assert outcome["result"]["text"], name
        assert expected_text(body, outcome["id"]).startswith(outcome["result"]["text"]), name
        assert outcome["events"][-1]["type"] == "end", name


async def test_to_stop_iterating_does_not_cancel(nodes: Deployment, program: ClientProgram) -> None:
    outcomes = await each(program, nodes, body=BODY, upto=5)

    for name, outcome in outcomes.items():
        assert outcome["left"] == outcome["events"][-1]["id"], (name, outcome)
        assert outcome["result"]["status"] == "completed", name
        assert outcome["result"]["text"] == expected_text(BODY, outcome["id"]), name


@pytest.mark.parametrize(
    "run, code",
    [
        ({"body": {"prompt": "Hi", "model": "nobody"}}, "model_not_found"),
        ({"body": {"prompt": ""}}, "invalid_request"),
        ({"id": "gen_00000000000000000000"}, "not_found"),
        ({"id": "gen_00000000000000000000", "cursor": "five"}, "cursor_invalid"),
    ],
    ids=["unknown model", "bad body", "unknown generation", "bad cursor"],
)
async def test_a_refusal_is_an_error_that_is_not_retryable(
    nodes: Deployment, program: ClientProgram, run: dict[str, Any], code: str
) -> None:
    for name, outcome in (await each(program, nodes, **run)).items():
        assert outcome["error"]["code"] == code, (name, outcome)
        assert outcome["error"]["retryable"] is False, name


async def test_bad_credentials_are_final_on_every_transport(nodes: Deployment) -> None:
    for language in LANGUAGES:
        async with program_of(language, "wrong") as program:
            outcomes = await each(program, nodes, id="gen_00000000000000000000")
            for name, outcome in outcomes.items():
                assert outcome["error"]["code"] == "unauthorized", (language, name, outcome)
                assert outcome["error"]["retryable"] is False, (language, name)


async def test_a_failed_generation_is_a_result_with_its_error(
    nodes: Deployment, program: ClientProgram
) -> None:
    body = demo_body(30, 0, fail_at=5, fail_code="broken", fail_retryable=False)
    for name, outcome in (await each(program, nodes, body=body)).items():
        assert outcome["result"]["status"] == "failed", (name, outcome)
        assert outcome["result"]["error"]["code"] == "broken", name


@pytest.mark.parametrize("language", ["javascript", "python"])
async def test_many_answers_share_one_socket(nodes: Deployment, language: str) -> None:
    async with (
        program_of(language, KEY) as program,
        ScenarioProxy([nodes.api[0].port]) as proxy,
    ):
        client = {"url": proxy.url, "transport": "websocket"}
        outcomes = await program.ask("shared", client=client, runs=[{"body": BODY}] * 20)

    assert [p for outcome in outcomes for p in problems_of(outcome, BODY)] == []
    assert proxy.upgrades == 1


async def test_auto_without_a_websocket_goes_on_with_the_stream(nodes: Deployment) -> None:
    async with program_of("javascript", KEY) as program:
        (outcome,) = (await each(program, nodes, ["auto"], body=BODY, hasWebSocket=False)).values()

    assert problems_of(outcome, BODY) == []


@pytest.mark.parametrize("transport", ["websocket", "poll", "auto"])
async def test_a_fetch_without_streams_is_enough(nodes: Deployment, transport: str) -> None:
    """As in React Native: an answer has no `body`, and is there when it is whole."""
    has_socket = transport == "websocket"
    run = {"body": BODY, "hasWebSocket": has_socket, "hasStreams": False}
    async with program_of("javascript", KEY) as program:
        (outcome,) = (await each(program, nodes, [transport], **run)).values()

    assert problems_of(outcome, BODY) == []


@pytest.mark.parametrize("language", LANGUAGES)
async def test_an_answer_that_begins_anew_shows_a_reset_and_has_the_right_text(
    deployment: Deployment, language: str
) -> None:
    """Its worker is killed, and the model cannot continue the text."""
    script = {"tokens": 60, "delay_s": 0.033}
    body = {"model": "restart", "prompt": "tell me", "params": {"upstream": script}}
    text = upstream_text("tell me", script_of({"messages": [], "upstream": script}))
    async with program_of(language) as program, Client(deployment.urls) as client:
        generation_id = (await client.start(body))["id"]

        async def has_text() -> bool:
            return len((await client.snapshot(generation_id))["text"]) > 20

        async def break_off() -> None:
            await until(has_text, 10, "a part of the text")
            async with deployment.redis() as redis:
                name = (await redis.hget(keys.meta(generation_id), "worker")).decode()
            next(role for role in deployment.workers if role.ready_name == name).kill()

        async with asyncio.TaskGroup() as group:
            outcomes = group.create_task(each(program, deployment, id=generation_id))
            group.create_task(break_off())

    for name, outcome in outcomes.result().items():
        types = [event["type"] for event in outcome.get("events", [])]
        assert types.count("reset") == 1, (name, outcome)
        rest = outcome["events"][types.index("reset") :]
        assert "".join(event.get("text", "") for event in rest) == text, name
        assert outcome["result"]["text"] == text, name
