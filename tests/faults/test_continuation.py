"""The seam after a takeover, with servers that continue, echo, begin anew, refuse, or restart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import pytest

from shared.backends.overview import backend_views
from shared.config.models import Model
from shared.queue.continuations import Verdict, store_verdict
from tests.support.fault_run import FaultRun, WatchedGeneration
from tests.support.processes import Deployment
from tests.support.shared_fault import death_of_worker
from tests.support.slow_answer import SCRIPT
from tests.support.upstream import Script, Upstream, expected_text, script_of
from tests.support.wait import until

TABLE = """
[models.{name}]
backend = "openai"
base_url = "{url}"
on_takeover = "{on_takeover}"
"""


@pytest.fixture(scope="module")
async def shared(upstream: Upstream) -> AsyncIterator[Deployment]:
    models = "".join(
        TABLE.format(name=name, url=upstream.base_url, on_takeover=on_takeover)
        for name, on_takeover in (
            ("continue", "continue"),
            ("restart", "restart"),
            ("tried", "auto"),
            ("untried", "auto"),
        )
    )
    async with Deployment(
        api=2,
        workers=2,
        models=models,
        settings={"attempts_max": "2", "backend_cooldown_s": "1"},
    ) as deployment:
        yield deployment


@pytest.fixture
async def fault_run(shared: Deployment) -> AsyncIterator[FaultRun]:
    await shared.heal()
    async with FaultRun(shared) as fault_run:
        yield fault_run


async def begin(fault_run: FaultRun, model: str, prompt: str, **script: Any) -> WatchedGeneration:
    """Start an answer of 40 tokens at 25 a second."""
    told = {**SCRIPT, **script}
    body = {"model": model, "prompt": prompt, "params": {"upstream": told}}
    return await fault_run.start(
        body, text=expected_text(prompt, script_of({"messages": [], "upstream": told}))
    )


def events(answer: WatchedGeneration, kind: str) -> int:
    assert answer.record.log is not None
    return [entry.type for entry in answer.record.log].count(kind)


async def check_resets(
    fault_run: FaultRun, answers: Mapping[str, WatchedGeneration], resets: Mapping[str, int]
) -> None:
    """Each answer completes, with so many resets in its log and for each of its readers."""
    await fault_run.finish(bound_s=20, is_lossless=False)
    for name, answer in answers.items():
        assert answer.record.snapshot["status"] == "completed"
        seen = {reading.resets for reading in answer.readings}
        assert (events(answer, "reset"), seen) == (resets[name], {resets[name]}), name


async def test_a_killed_workers_answer_is_whole_however_its_server_continues(fault_run: FaultRun):
    fault = death_of_worker(fault_run.deployment)
    resets = {"goes on": 0, "echoes": 0, "begins anew": 1, "refuses": 1}
    answers = {}
    for name in resets:
        told = {"tokens": 45, "delay_s": 0.05, "continuation": name}
        answers[name] = await begin(fault_run, "continue", f"it {name}", **told)
    # Longer than what a new answer of this pace repeats while the guard may hold it back for 1 s: a
    # repetition that is whole by then is dropped, and needs no reset.
    for answer in answers.values():
        await fault_run.read_to(answer, 28)

    await fault.struck()

    await check_resets(fault_run, answers, resets)


async def test_usage_and_max_tokens_are_of_the_whole_answer_after_a_kill(fault_run: FaultRun):
    told = {"tokens": 60, "delay_s": 0.033}
    body = {"model": "continue", "prompt": "p", "params": {"upstream": told, "max_tokens": 40}}
    answer = await fault_run.start(body, has_text=False)
    await fault_run.read_to(answer, 20)

    (await fault_run.holder(answer)).kill()

    await fault_run.finish(bound_s=20)
    end = answer.record.log[-1].fields
    assert end["finish_reason"] == "length"
    text = answer.record.snapshot["text"]
    said = next(n for n in range(61) if expected_text("p", Script(tokens=n)) == text)
    usage = end["usage"]
    # What the dead worker had said is counted from the text. Here a token has up to 9 characters,
    # more than tokens of real models have, so the count may be too high by a few.
    assert 33 <= said <= 44
    assert usage["completion_tokens"] == pytest.approx(40)
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
    assert usage["extra"] == {"estimated": True}


async def test_auto_continues_where_the_form_was_seen_to_hold(
    fault_run: FaultRun, upstream: Upstream
):
    redis = fault_run.deployment.redis()
    table = Model(name="tried", base_url=upstream.base_url)
    verdict = Verdict(model="tried", forms={"trailing": "continues"}, at_ms=1)
    await store_verdict(redis, table, verdict)
    await redis.aclose()
    # Workers read verdicts at their start: the one that takes over starts with the fault.
    fault = death_of_worker(fault_run.deployment)
    resets = {"tried": 0, "untried": 1}
    answers = {model: await begin(fault_run, model, f"{model} by the doctor") for model in resets}
    for answer in answers.values():
        await fault_run.read_to(answer, 15)

    await fault.struck()

    await check_resets(fault_run, answers, resets)
    asked = [call.body for call in upstream.calls if "by the doctor" in str(call.body)]
    continued = [body for body in asked if body["messages"][-1]["role"] == "assistant"]
    assert len(continued) == 1, "only the tried form is continued"
    assert "continue_final_message" not in continued[0], "the form is `trailing`"


async def test_answers_survive_a_restart_of_their_server(fault_run: FaultRun, upstream: Upstream):
    """Those that were under way continue or begin again, and new ones wait."""
    answers = [await begin(fault_run, name, f"{name} over it") for name in ("continue", "restart")]
    for answer in answers:
        await fault_run.read_to(answer, 15)

    async with aclosing(fault_run.deployment.redis()) as redis:
        await upstream.go_down()
        try:
            new = await begin(fault_run, "continue", "asked while it was away")

            # No answer is sure of a try while the breaker is open: any of them may be the trial,
            # and after a failed probe there is none for a while.
            async def is_open() -> bool:
                return any(view.state == "open" for view in await backend_views(redis))

            await until(is_open, 20, "an open breaker")
        finally:
            await upstream.go_up()

    await fault_run.finish(bound_s=28, is_lossless=False)
    for answer in (*answers, new):
        assert answer.record.snapshot["status"] == "completed"
    assert [events(answer, "reset") for answer in (*answers, new)] == [0, 1, 0]


async def test_a_server_that_loads_its_model_is_waited_for(fault_run: FaultRun):
    told = {"fault": "status", "status": 503, "fault_requests": 3}
    answer = await begin(fault_run, "continue", "still loading", **told)

    await fault_run.finish(bound_s=25)
    assert answer.record.snapshot["status"] == "completed"
    assert events(answer, "start") == 4


async def test_a_server_that_breaks_each_answer_off_ends_it_after_a_few_attempts(
    fault_run: FaultRun,
):
    told = {"tokens": 20, "fault": "cut", "fault_at": 5, "fault_requests": 0}
    body = {"model": "continue", "prompt": "my server dies", "params": {"upstream": told}}
    answer = await fault_run.start(body, has_text=False)

    await fault_run.finish(bound_s=25)
    assert answer.record.log[-1].fields["error"]["code"] == "attempts_exhausted"
    assert events(answer, "start") == 4  # two that do not count, and `attempts_max`
