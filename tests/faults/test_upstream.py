"""An OpenAI-compatible upstream, and a worker that dies while it streams from it.

What happens then is the model's `on_takeover`: continue sends the partial answer back as a prefix,
restart resets, fail ends. Rows 1, 13 and 14 of the fault table.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.fault_run import FaultRun, WatchedGeneration
from tests.support.processes import Deployment
from tests.support.redis_server import free_port
from tests.support.shared_fault import death_of_worker
from tests.support.slow_answer import SCRIPT, models_by_takeover
from tests.support.upstream import Upstream, expected_text, script_of
from tests.support.wait import until

LEASE_S = 0.8
RESETS = {"continue": 0, "restart": 1, "fail": 0}
NOWHERE = """
[models.nowhere]
backend = "openai"
base_url = "http://127.0.0.1:{port}/v1"
on_takeover = "restart"
"""


@pytest.fixture(scope="module")
async def shared(upstream: Upstream) -> AsyncIterator[Deployment]:
    models = models_by_takeover(upstream.base_url, "continue", "restart", "fail")
    models += NOWHERE.format(port=free_port())
    settings = {
        "upstream_idle_s": "1",
        "upstream_line_bytes_max": "1048576",
        "upstream_outage_s": "2",
        "backend_cooldown_s": "1",
    }
    deployment = Deployment(api=2, workers=2, lease_s=LEASE_S, models=models, settings=settings)
    async with deployment:
        yield deployment


@pytest.fixture
async def fault_run(shared: Deployment) -> AsyncIterator[FaultRun]:
    await shared.heal()
    async with FaultRun(shared) as fault_run:
        yield fault_run


async def begin(
    fault_run: FaultRun, model: str, prompt: str, *, readers: int = 2, has_text: bool = True,
    **script,
) -> WatchedGeneration:  # fmt: skip
    """Start an answer of 40 tokens at 25 a second."""
    told = {**SCRIPT, **script}
    body = {"model": model, "prompt": prompt, "params": {"upstream": told}}
    text = expected_text(prompt, script_of({"messages": [], "upstream": told}))
    known = {"text": text} if has_text else {"has_text": False}
    return await fault_run.start(body, readers=readers, **known)


async def test_a_killed_workers_answers_go_on_as_their_models_say(
    fault_run: FaultRun, upstream: Upstream
):
    """Continue sends the partial answer back, restart resets, and fail ends."""
    fault = death_of_worker(fault_run.deployment)
    answers = {
        model: await begin(fault_run, model, f"{model} it", has_text=model != "fail")
        for model in ("continue", "restart", "fail")
    }
    for answer in answers.values():
        await fault_run.read_to(answer, 15)

    await fault.struck()

    await fault_run.finish(bound_s=20, is_lossless=False)
    logs = {model: [entry.type for entry in answer.record.log] for model, answer in answers.items()}
    assert {model: log.count("reset") for model, log in logs.items()} == RESETS
    for model, answer in answers.items():
        assert all(reading.resets == RESETS[model] for reading in answer.readings), model
        status = "failed" if model == "fail" else "completed"
        assert answer.record.snapshot["status"] == status
    last = next(
        call.body["messages"][-1]
        for call in reversed(upstream.calls)
        if call.body["messages"][0]["content"] == "continue it"
    )
    assert last["role"] == "assistant"
    text = answers["continue"].record.snapshot["text"]
    assert text.startswith(last["content"]) and last["content"]
    error = answers["fail"].record.log[-1].fields["error"]
    assert (error["code"], error["retryable"]) == ("worker_lost", True)


FAULTS: dict[str, dict[str, Any]] = {
    "hangs up in mid-line": {"fault": "cut", "fault_at": 20},
    "sends an error and [DONE]": {"fault": "error", "fault_at": 20},
    "sends an error as a field": {"fault": "error_field", "fault_at": 20},
    "ends without a finish": {"fault": "eof", "fault_at": 20},
    "falls silent": {"fault": "stall", "fault_at": 20},
    "sends what is no UTF-8": {"fault": "garbage", "fault_at": 20},
    "answers 500": {"fault": "status"},
    "answers 429, come back in a second": {"fault": "status", "status": 429, "retry_after": "1"},
    "hangs up before the first token": {"fault": "cut"},
}


async def test_failing_upstreams_are_retried_and_the_texts_are_exact(fault_run: FaultRun):
    """All of them at once, one worker's other answers among them."""
    answers = {}
    for prompt, fault in FAULTS.items():
        told = {**fault, "fault_requests": 1}
        answers[prompt] = await begin(fault_run, "continue", prompt, readers=1, **told)

    await fault_run.finish(bound_s=25)
    for prompt, answer in answers.items():
        assert answer.record.snapshot["status"] == "completed", prompt
        assert [entry.type for entry in answer.record.log].count("start") == 2, prompt


ALWAYS: dict[str, tuple[str, dict[str, Any], str]] = {
    "breaks off": ("restart", {"tokens": 20, "fault": "eof", "fault_at": 5}, "attempts_exhausted"),
    "refuses the connection": ("nowhere", {}, "attempts_exhausted"),
    "sends an endless line": ("continue", {"fault": "huge_line", "fault_at": 5}, "upstream_error"),
}


async def test_an_upstream_that_always_fails_ends_the_answer(fault_run: FaultRun):
    """Together: they ask different models."""
    answers = {}
    for prompt, (model, told, _) in ALWAYS.items():
        params = {"upstream": told | {"fault_requests": 0}} if told else {}
        body = {"model": model, "prompt": prompt, "params": params}
        answers[prompt] = await fault_run.start(body, has_text=False)

    await fault_run.finish(bound_s=28, is_lossless=False)
    for prompt, answer in answers.items():
        assert answer.record.snapshot["status"] == "failed", prompt
        error = answer.record.log[-1].fields["error"]
        assert error["code"] == ALWAYS[prompt][2], prompt


async def test_cancel_closes_the_connection_to_the_upstream(
    fault_run: FaultRun, upstream: Upstream
):
    told = {"tokens": 1_000, "delay_s": 0.033}
    body = {"model": "continue", "prompt": "stop me", "params": {"upstream": told}}
    answer = await fault_run.start(body, has_text=False)
    await fault_run.read_to(answer, 5)
    call = upstream.calls[-1]

    await fault_run.cancel(answer, node=fault_run.deployment.urls[1])

    await until(call.left.is_set, 5, "the upstream's client has left")
    await fault_run.finish(bound_s=10)
    assert answer.record.snapshot["status"] == "cancelled"


async def test_a_drained_worker_closes_its_upstream_call_and_the_next_worker_continues(
    fault_run: FaultRun, upstream: Upstream
):
    answer = await begin(fault_run, "continue", "drain me")
    await fault_run.read_to(answer, 10)
    worker, call = await fault_run.holder(answer), upstream.calls[-1]

    worker.terminate()

    assert await worker.ended(10) == 0
    await until(call.left.is_set, 5, "the first call is closed")
    await fault_run.finish(bound_s=20)
    assert answer.record.snapshot["status"] == "completed"
