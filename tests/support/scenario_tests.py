"""A client through every row of clients/scenarios.json, on every transport.

tests/clients/test_scenarios*.py import these tests, each for the programs in its `PROGRAMS`: the
rows wait more than they work, and each process of the tests takes one file at a time.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from tests.support.client import Client
from tests.support.demo import demo_body
from tests.support.processes import Deployment
from tests.support.scenario_proxy import Faults, ScenarioProxy
from tests.support.scenarios import (
    LANGUAGES,
    ClientProgram,
    Scenario,
    command_program,
    problems_of,
    program_of,
    rows,
)
from tests.support.tokens import SECRET
from tests.support.wait import until

ROWS = rows()
TOGETHER = 60  # readings at once, each behind a proxy of its own
STEP = 6  # without --every-byte only each sixth byte is cut, which takes a minute and not six
JITTER = 0.02  # the pauses of these clients are short
SHORT = demo_body(4, 0)


@pytest.fixture(scope="module")
async def shared_nodes() -> AsyncIterator[Deployment]:
    async with Deployment(api=2, workers=2, settings={"heartbeat_s": "1"}) as deployment:
        yield deployment


@pytest.fixture
async def nodes(shared_nodes: Deployment) -> AsyncIterator[Deployment]:
    await shared_nodes.heal()
    yield shared_nodes


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the programs and the rows.

    With --client, the program that it names takes the place of our own clients. Only with
    --every-byte the rows run that are marked as thorough.
    """
    is_thorough = metafunc.config.getoption("every_byte")
    chosen = {n: row for n, row in ROWS.items() if is_thorough or not row.get("is_thorough")}
    for fixture, is_guarded in (("open_row", False), ("guarded_row", True)):
        if fixture in metafunc.fixturenames:
            names = [name for name, row in chosen.items() if ("token_s" in row) is is_guarded]
            metafunc.parametrize(fixture, names)
    if "program" in metafunc.fixturenames:
        command = metafunc.config.getoption("client")
        programs = [command] if command else metafunc.module.PROGRAMS
        metafunc.parametrize("program", programs, indirect=True)


@pytest.fixture
async def program(request: pytest.FixtureRequest) -> AsyncIterator[ClientProgram]:
    is_own = request.param in LANGUAGES
    made = program_of if is_own else command_program
    async with made(request.param) as program:
        yield program


@pytest.fixture(scope="module")
async def nodes_with_tokens() -> AsyncIterator[Deployment]:
    settings = {"heartbeat_s": "1", "jwt_secret": SECRET}
    async with Deployment(api=1, workers=1, settings=settings) as deployment:
        yield deployment


async def test_each_scenario_ends_with_the_exact_answer_within_its_bounds(
    nodes: Deployment, program: ClientProgram, open_row: str
) -> None:
    assert await Scenario(ROWS[open_row], nodes, program).run() == []


async def test_a_token_that_expires_is_replaced_and_the_answer_goes_on(
    nodes_with_tokens: Deployment, program: ClientProgram, guarded_row: str
) -> None:
    assert await Scenario(ROWS[guarded_row], nodes_with_tokens, program).run() == []


@pytest.fixture
def step(request: pytest.FixtureRequest) -> int:
    """The distance between two cuts, bytes."""
    return 1 if request.config.getoption("every_byte") else STEP


def slices(positions: range) -> Iterator[range]:
    """Yield the positions in slices of `TOGETHER`."""
    for first in range(0, len(positions), TOGETHER):
        yield positions[first : first + TOGETHER]


async def cut_at(
    positions: range, nodes: Deployment, program: ClientProgram, run: dict[str, Any]
) -> list[str]:
    """Read once for each position, with the first connection cut there; return the problems."""
    ports = [role.port for role in nodes.api]
    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(ScenarioProxy(ports, Faults(cut_bytes=n, cuts=1)))
            for n in positions
        ]
        runs = [{**run, "url": proxy.url, "jitter": JITTER} for proxy in proxies]
        outcomes = await program.ask("each", runs=runs)
    return [
        f"cut at byte {n}: {problem}"
        for n, outcome in zip(positions, outcomes, strict=True)
        for problem in problems_of(outcome, SHORT)
    ]


@pytest.mark.parametrize("transport", ["websocket", "sse", "ndjson", "poll"])
async def test_a_cut_at_any_byte_of_an_answer_loses_nothing(
    nodes: Deployment, program: ClientProgram, transport: str, step: int
) -> None:
    async with Client(nodes.urls) as client:
        generation_id = (await client.start(SHORT))["id"]

        async def has_ended() -> bool:
            return bool((await client.snapshot(generation_id))["status"] == "completed")

        await until(has_ended, 10, "the end")
    run = {"transport": transport, "id": generation_id}
    async with ScenarioProxy([role.port for role in nodes.api]) as proxy:
        (outcome,) = await program.ask("each", runs=[{**run, "url": proxy.url}])
        assert problems_of(outcome, SHORT) == []
        count = proxy.down_bytes

    cuts = range(1, count + 1, step)
    problems = [p for each in slices(cuts) for p in await cut_at(each, nodes, program, run)]

    assert count > 400
    assert problems == []


async def test_a_start_whose_reply_is_cut_at_any_byte_is_one_generation(
    nodes: Deployment, program: ClientProgram, step: int
) -> None:
    """The reply of a POST has about 420 bytes, and the stream follows on the same connection."""
    cuts = range(1, 451, step)
    body = {**SHORT, "session": f"cut-{uuid.uuid4()}"}
    run = {"transport": "ndjson", "body": body}

    problems = [p for each in slices(cuts) for p in await cut_at(each, nodes, program, run)]

    assert problems == []
    assert await generations_of(nodes, body["session"]) == len(cuts)


async def generations_of(nodes: Deployment, session: str) -> int:
    """Count the generations of a session, over all pages."""
    found, before = 0, ""
    async with aiohttp.ClientSession() as http:
        while True:
            url = f"{nodes.urls[0]}/v1/sessions/{session}?before={before}".removesuffix("?before=")
            async with http.get(url) as answer:
                page = await answer.json()
            found += len(page["generations"])
            if not page["next_before"]:
                return found
            before = page["next_before"]
