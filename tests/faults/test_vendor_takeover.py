"""Answers of the vendors' own interfaces when their worker is killed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest

from tests.support.fault_run import FaultRun, WatchedGeneration
from tests.support.kinds import TRIED
from tests.support.processes import Deployment
from tests.support.upstream import Upstream, expected_text

VENDORS = ("anthropic", "gemini")
TABLE = """
[models.{name}]
backend = "{name}"
base_url = "{url}"
on_takeover = "continue"
"""


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[Deployment]:
    async with AsyncExitStack() as stack:
        tables = ""
        for name in VENDORS:
            server = await stack.enter_async_context(TRIED[name].serve())
            assert isinstance(server, Upstream)
            tables += TABLE.format(name=name, url=server.base_url)
        yield await stack.enter_async_context(Deployment(api=2, workers=2, models=tables))


@pytest.fixture
async def fault_run(shared: Deployment) -> AsyncIterator[FaultRun]:
    await shared.heal()
    async with FaultRun(shared) as fault_run:
        yield fault_run


async def killed(fault_run: FaultRun, model: str, **script: Any) -> WatchedGeneration:
    """Kill the worker of an answer of 40 tokens at 30 a second, after 8 events."""
    told = {"tokens": 40, "delay_s": 0.033, **script}
    prompt = msgspec.json.encode(told).decode()
    answer = await fault_run.start({"model": model, "prompt": prompt}, text=expected_text(prompt))
    await fault_run.read_to(answer, 8)
    (await fault_run.holder(answer)).kill()
    return answer


def resets(answer: WatchedGeneration) -> int:
    assert answer.record.log is not None
    return [entry.type for entry in answer.record.log].count("reset")


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_killed_workers_text_is_continued(fault_run: FaultRun, vendor: str) -> None:
    answer = await killed(fault_run, vendor)

    await fault_run.finish(bound_s=20)
    assert answer.record.snapshot["status"] == "completed"


@pytest.mark.parametrize("vendor", VENDORS)
async def test_an_answer_with_thoughts_begins_again(fault_run: FaultRun, vendor: str) -> None:
    """A vendor accepts no beginning of a turn that has lost its thoughts."""
    answer = await killed(fault_run, vendor, reasoning=4)

    await fault_run.finish(bound_s=20, is_lossless=False)
    assert answer.record.snapshot["status"] == "completed"
    assert resets(answer) == 1
