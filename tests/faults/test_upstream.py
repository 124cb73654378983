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
from tests.support.slow_answer import SCRIPT, models_by_takeover
from tests.support.upstream import Upstream, expected_text, script_of
from tests.support.wait import until

LEASE_S = 0.8
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
        "upstream_outage_s": "4",
    }
    deployment = Deployment(api=2, workers=2, lease_s=LEASE_S, models=models, settings=settings)
    async with deployment:
        yield deployment


@pytest.fixture
async def fault_run(shared: Deployment) -> AsyncIterator[FaultRun]:
    await shared.heal()
    async with FaultRun(shared) as fault_run:
        yield fault_run


async def begin(fault_run: FaultRun, model: str, prompt: str, **script) -> WatchedGeneration:
    """Start an answer of 60 tokens at 30 a second."""
    told = {**SCRIPT, **script}
    body = {"model": model, "prompt": prompt, "params": {"upstream": told}}
    text = expected_text(prompt, script_of({"messages": [], "upstream": told}))
    return await fault_run.start(body, text=text)


async def test_continue_sends_the_partial_answer_back_and_readers_see_no_seam(
    fault_run: FaultRun, upstream: Upstream
):
    answer = await begin(fault_run, "continue", "go on where it stopped")
    await fault_run.read_to(answer, 15)

    (await fault_run.holder(answer)).kill()

    await fault_run.finish(bound_s=20)
    assert answer.record.snapshot["status"] == "completed"
    last = upstream.calls[-1].body["messages"][-1]
    assert last["role"] == "assistant"
    assert answer.record.snapshot["text"].startswith(last["content"]) and last["content"]


async def test_restart_resets_and_the_text_is_whole(fault_run: FaultRun):
    answer = await begin(fault_run, "restart", "begin again")
    await fault_run.read_to(answer, 15)

    (await fault_run.holder(answer)).kill()

    await fault_run.finish(bound_s=20, is_lossless=False)
    assert answer.record.snapshot["status"] == "completed"
    assert [entry.type for entry in answer.record.log].count("reset") == 1
    assert all(reading.resets == 1 for reading in answer.readings)


async def test_fail_ends_with_worker_lost(fault_run: FaultRun):
    body = {
        "model": "fail",
        "prompt": "do not go on",
        "params": {"upstream": {"tokens": 60, "delay_s": 0.033}},
    }
    answer = await fault_run.start(body, has_text=False)
    await fault_run.read_to(answer, 15)

    (await fault_run.holder(answer)).kill()

    await fault_run.finish(bound_s=20)
    error = answer.record.log[-1].fields["error"]
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
        answers[prompt] = await begin(fault_run, "continue", prompt, **fault, fault_requests=1)

    await fault_run.finish(bound_s=25)
    for prompt, answer in answers.items():
        assert answer.record.snapshot["status"] == "completed", prompt
        assert [entry.type for entry in answer.record.log].count("start") == 2, prompt


@pytest.mark.parametrize(
    ("model", "told", "code"),
    [
        ("restart", {"tokens": 20, "fault": "eof", "fault_at": 5}, "attempts_exhausted"),
        ("nowhere", {}, "attempts_exhausted"),
        ("continue", {"fault": "huge_line", "fault_at": 5}, "upstream_error"),
    ],
    ids=["always breaks off", "refuses the connection", "sends an endless line"],
)
async def test_an_upstream_that_always_fails_ends_the_answer(
    fault_run: FaultRun, model, told, code
):
    params = {"upstream": told | {"fault_requests": 0}} if told else {}
    body = {"model": model, "prompt": "never ends well", "params": params}
    answer = await fault_run.start(body, has_text=False)

    await fault_run.finish(bound_s=28, is_lossless=False)
    error = answer.record.log[-1].fields["error"]
    assert answer.record.snapshot["status"] == "failed"
    assert error["code"] == code


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
