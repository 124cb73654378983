"""Every benchmark runs with real processes and small sizes, and its readers get exact texts.

The measured values are not checked. A text that is not exact raises in the benchmark.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from bench.__main__ import KNOWN
from bench.figures import RunResults
from bench.sizing import CONSTANTS
from bench.support.answer import new_answers
from bench.support.bare import LAST_CHUNK, frames_of
from bench.support.load import ENDS, InexactText, get, get_events
from bench.support.setup import Setup, address, open_setup
from bench.support.writer import Writer


@pytest.fixture(scope="module")
async def setup(anyio_backend: str) -> AsyncIterator[Setup]:
    """One stage for all tests: its start takes longer than most benchmarks."""
    async with open_setup(is_quick=True) as setup:
        yield setup


@pytest.mark.parametrize("name", KNOWN)
async def test_each_benchmark_runs_with_exact_texts(setup: Setup, name: str) -> None:
    rows = await importlib.import_module(f"bench.{name}").run(setup)

    assert any(row.who.startswith("Tailrace") for row in rows) or name in NAMELESS
    assert all(row.values for row in rows)
    found = RunResults([replace(row, bench=name).record() for row in rows])
    for one in CONSTANTS:  # the cost model needs these rows; quick idle readers use only SSE
        is_expected = one.bench == name and one.name != "socket"
        assert bool(found.values(one.bench, one.work, one.who)) is is_expected, one


# These measure only Tailrace, with one row for each percentile or resource.
NAMELESS = (
    "first_token",
    "append_to_socket",
    "redis_cost",
    "transports",
    "batch",
    "partitions",
    "cluster",
    "turns",
    "credentials",
    "limits",
    "routing",
    "stages",
    "console",
    "timeline",
    "grpc_forms",
    "ws_deflate",
    "compression",
)


async def test_a_lost_token_fails_the_run(setup: Setup) -> None:
    (answer,) = new_answers(1, tokens=20)
    frames = frames_of("sse", answer.pieces())
    body = b"".join(frames[:7] + frames[8:]) + LAST_CHUNK
    await setup.load.open(setup.bare.address, [get("/0")], end=LAST_CHUNK)
    await setup.bare.call("serve", body, 1)
    await setup.load.over()

    with pytest.raises(InexactText, match="1 of 1 texts are not exact"):
        await setup.load.report("sse", [answer.pieces()], [0])
    await setup.load.close()
    await setup.bare.call("close")


@pytest.mark.parametrize("kind", ["sse", "ndjson", "ws"])
async def test_the_bare_loop_sends_the_same_frames_as_a_node(setup: Setup, kind: str) -> None:
    pieces = [" alpha", ' "δ"']  # too few to be joined
    async with setup.node() as node, Writer(setup.system.server.url) as writer:
        holder = await writer.begin()
        await writer.say(holder, pieces)
        await writer.end(holder, tokens_before=len(pieces))
        request = get_events(kind, holder.generation_id)
        await setup.load.open(address(node), [request], end=ENDS[kind])
        await setup.load.over()
        for frame in frames_of(kind, pieces, holder.generation_id):
            # One write of the node is one chunk, so the chunk headers can differ.
            data = frame if kind == "ws" else frame.partition(b"\r\n")[2][:-2]

            assert await setup.load.count(data) == 1
        await setup.load.close()
