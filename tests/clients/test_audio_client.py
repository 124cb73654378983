"""`tailrace/audio` against two nodes: whatever cuts its connections, the audio arrives once.

The transcript of the stand-in is a function of the audio, so a lost, repeated or misplaced byte
changes the text.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from shared.audio.media import parse_media_type
from tests.support.processes import Deployment
from tests.support.scenario_proxy import Faults, ScenarioProxy
from tests.support.scenarios import ClientProgram, program_of
from tests.support.wait import until
from workers.backends.demo_transcriber.transcript import transcript_of

MODELS = '[models.demo]\nbackend = "demo"\n[models.scribe]\nbackend = "demo_transcriber"\n'
PCM = parse_media_type("audio/pcm;rate=16000;channels=1")
PIECE_BYTES = 700
SHORT_BYTES = 30_000  # four words
LONG_BYTES = 1_600_000  # more than a window
TRANSPORTS = ["websocket", "http"]


def sound(seed: int, length: int) -> bytes:
    """The same bytes as `soundOf` in tailrace-ops.mjs."""
    return bytes((at * 7 + (at >> 8) * 13 + seed) & 255 for at in range(length))


@pytest.fixture(scope="module")
async def shared_nodes() -> AsyncIterator[Deployment]:
    async with Deployment(api=2, workers=2, lease_s=0.8, models=MODELS) as deployment:
        yield deployment


@pytest.fixture
async def nodes(shared_nodes: Deployment) -> AsyncIterator[Deployment]:
    await shared_nodes.heal()
    yield shared_nodes


@pytest.fixture(scope="module")
async def program() -> AsyncIterator[ClientProgram]:
    async with program_of("javascript") as program:
        yield program


def problems_of(run: dict[str, Any], outcome: dict[str, Any]) -> list[str]:
    if "error" in outcome:
        return [str(outcome["error"])]
    wanted = transcript_of(PCM, sound(run["seed"], run["bytes"]))
    found = (outcome["status"], outcome["text"] == wanted, outcome["buffered"])
    return [] if found == ("completed", True, 0) else [str(found)]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_cut_at_any_place_of_the_upload_loses_and_repeats_nothing(
    nodes: Deployment, program: ClientProgram, transport: str
) -> None:
    """In the head of a frame, in its bytes, at its border, one byte beside it: 31 places."""
    ports = [role.port for role in nodes.api]
    places = range(500, 6_600, 200)
    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(
                ScenarioProxy(ports, Faults(cut_up_bytes=place + n % 3, cuts=2))
            )
            for n, place in enumerate(places)
        ]
        runs = [
            {"url": proxy.url, "transport": transport, "seed": seed, "bytes": SHORT_BYTES,
             "pieceBytes": PIECE_BYTES, "model": "scribe"}
            for seed, proxy in enumerate(proxies)
        ]  # fmt: skip
        outcomes = await program.ask("record", runs=runs)
        cuts = [proxy.connections for proxy in proxies]

    found = {
        place: problems
        for place, run, outcome in zip(places, runs, outcomes, strict=True)
        if (problems := problems_of(run, outcome))
    }
    assert found == {}
    assert min(cuts) > 2, "connections were cut"


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("victim", ["node", "worker"])
async def test_a_killed_process_takes_nothing_of_an_upload_larger_than_the_window(
    nodes: Deployment, program: ClientProgram, transport: str, victim: str
) -> None:
    async with ScenarioProxy([role.port for role in nodes.api]) as proxy:
        runs = [
            {"url": proxy.url, "transport": transport, "seed": seed, "bytes": LONG_BYTES,
             "pieceBytes": 40_000, "model": "scribe"}
            for seed in range(2)
        ]  # fmt: skip

        async def kill() -> None:
            await until(lambda: proxy.up_bytes > LONG_BYTES, 60, "a part of the audio")
            (nodes.api if victim == "node" else nodes.workers)[0].kill()

        async with asyncio.TaskGroup() as group:
            recording = group.create_task(program.ask("record", runs=runs))
            group.create_task(kill())

    pairs = zip(runs, recording.result(), strict=True)
    assert [problem for run, outcome in pairs for problem in problems_of(run, outcome)] == []
