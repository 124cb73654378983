"""Stages of third parties in real workers: an error in a stage ends only the stage's own answer."""

from __future__ import annotations

import pytest

from shared.errors import ConfigurationError
from shared.log.events import Token
from tests.support.backend_scripts import fails, says
from tests.support.stage_examples import Waits
from tests.support.worker_harness import WorkerHarness
from workers.stages.plugin import thread

HERE = "tests.support.stage_examples"


async def test_a_stage_changes_events_and_goes_on_after_a_takeover(url):
    stages = [{"stage": f"{HERE}:Shout", "sign": "#"}]
    async with WorkerHarness(url, fails("a", "b"), says("c"), stages=stages) as harness:
        await harness.start()
        generation_id = await harness.ask()
        await harness.ended(generation_id)

        assert await harness.text(generation_id) == "#1A#2B#3C!alice"


async def test_a_stage_may_end_the_answer(url):
    async with WorkerHarness(url, says("a", "b"), stages=[{"stage": f"{HERE}:Stops"}]) as harness:
        await harness.start()
        generation_id = await harness.ask()
        await harness.ended(generation_id)
        events = await harness.events(generation_id)

        assert [event.text for event in events if isinstance(event, Token)] == ["one"]
        assert (events[-1].status, events[-1].finish_reason) == ("completed", "content_filter")
        assert harness.backend.open == 0


@pytest.mark.parametrize(
    ("name", "why"),
    [("Raises", "raised KeyError"), ("Rubbish", "returned an object of the type int")],
)
async def test_a_mistake_of_a_stage_ends_its_answer_with_a_code(url, caplog, name, why):
    stages = [{"stage": f"{HERE}:{name}"}]
    async with WorkerHarness(url, says("a"), stages=stages) as harness:
        await harness.start()
        generation_id = await harness.ask()
        await harness.ended(generation_id)
        end = (await harness.events(generation_id))[-1]

        assert (end.status, end.error.code) == ("failed", "stage_failed")
        assert why in end.error.message
        assert "secret" not in caplog.text + end.error.message
        assert len(harness.backend.prefixes) == 1


async def test_a_stage_that_fails_at_a_takeover_ends_the_answer(url):
    stages = [{"stage": f"{HERE}:RaisesInSeen"}]
    async with WorkerHarness(url, fails("a"), says("b"), stages=stages) as harness:
        await harness.start()
        generation_id = await harness.ask()
        meta = await harness.ended(generation_id)

        assert b"stage_failed" in meta.end


@pytest.mark.parametrize("name", ["Endless", "Waits"])
async def test_a_stage_that_takes_too_long_ends_its_answer_and_delays_no_other(
    url, monkeypatch, name
):
    monkeypatch.setattr(thread, "CALL_S", 0.2)
    Waits.gate.clear()
    stages = [{"stage": f"{HERE}:{name}"}]
    async with WorkerHarness(url, says("a"), stages=stages) as harness:
        await harness.start()
        generation_id = await harness.ask()
        meta = await harness.ended(generation_id)
        Waits.gate.set()

        assert b"stage_failed" in meta.end
        assert b"took longer than 0.2 s" in meta.end


@pytest.mark.parametrize("name", ["tests.support.absent:No", f"{HERE}:HERE", f"{HERE}:threading"])
async def test_a_name_that_is_no_stage_stops_the_worker_at_its_start(url, name):
    async with WorkerHarness(url, says("a"), stages=[{"stage": name}]) as harness:
        with pytest.raises(ConfigurationError, match=r"models\.m\.stages\[0\]\.stage: "):
            harness.worker("one")


async def test_a_stage_cannot_drop_the_reset_of_an_answer_that_begins_again(url):
    stages = [{"stage": f"{HERE}:OnlyText"}]
    scripts = fails("a"), says("b")
    async with WorkerHarness(url, *scripts, stages=stages, on_takeover="restart") as harness:
        await harness.start()
        generation_id = await harness.ask()
        await harness.ended(generation_id)

        assert await harness.said(generation_id) == ["start", "a", "start", "reset", "b", "end"]
