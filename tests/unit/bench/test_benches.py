"""Every bench runs, with real processes and small sizes, and its readers get their exact text.

What it measures is not looked at: no test is timed. A text that is not exact raises in the bench.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator

import pytest

from bench.__main__ import BENCHES
from bench.support.answer import new_answers
from bench.support.bare import LAST_CHUNK, frames_of
from bench.support.load import Inexact, get
from bench.support.stage import Stage, open_stage


@pytest.fixture(scope="module")
async def stage(anyio_backend: str) -> AsyncIterator[Stage]:
    """One for all: starting it takes longer than most of the benches."""
    async with open_stage(is_quick=True) as stage:
        yield stage


@pytest.mark.parametrize("name", BENCHES)
async def test_it_runs_and_the_texts_are_exact(stage: Stage, name: str) -> None:
    rows = await importlib.import_module(f"bench.{name}").run(stage)

    assert any(row.who.startswith("Tailrace") for row in rows) or name in NAMELESS
    assert all(row.values for row in rows)


# These have one figure for each percentile or resource, and nobody beside Tailrace.
NAMELESS = ("first_token", "append_to_socket", "redis_cost", "transports")


async def test_a_reader_that_loses_a_token_spoils_the_run(stage: Stage) -> None:
    (answer,) = new_answers(1, tokens=20)
    frames = frames_of("sse", answer.pieces())
    body = b"".join(frames[:7] + frames[8:]) + LAST_CHUNK
    await stage.load.open(stage.bare.address, [get("/0")], end=LAST_CHUNK)
    await stage.bare.call("serve", body, 1)
    await stage.load.over()

    with pytest.raises(Inexact, match="1 of 1 texts are not exact"):
        await stage.load.report("sse", [answer.pieces()], [0])
    await stage.load.close()
    await stage.bare.call("close")
