"""Model servers of a route die, freeze, refuse or are cut: every reader gets the exact text."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.processes import Deployment
from tests.support.route_faults import FAULTS, IDLE_S, ModelServer, Scene, models_file, play

ANSWERS = 3


@pytest.fixture(scope="module")
async def scene() -> AsyncIterator[Scene]:
    directory = Path(tempfile.mkdtemp(prefix="trm-"))
    a, b = ModelServer(directory, "a"), ModelServer(directory, "b")
    settings = {"upstream_idle_s": str(IDLE_S)}
    async with Deployment(workers=2, models=models_file(a, b), settings=settings) as deployment:
        await a.start()
        await b.start()
        try:
            yield Scene(deployment, a, b)
        finally:
            a.kill()
            b.kill()


@pytest.mark.parametrize("name", FAULTS)
async def test_every_reader_gets_the_exact_text(scene: Scene, name: str):
    fault = FAULTS[name]

    played = await play(scene, fault, ANSWERS)

    most_a, most_b = (calls * ANSWERS for calls in fault.calls)
    assert played.calls_a <= most_a and played.calls_b <= most_b
    assert played.calls_a + played.calls_b == 2 * ANSWERS or not fault.cuts_each
    assert played.resets == 0
    assert played.failures == 0 or fault.loses_worker
