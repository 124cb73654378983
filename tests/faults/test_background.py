"""Answers that a model server makes in the background, while their workers die under them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from shared.redis import keys
from tests.support.background_server import BackgroundServer
from tests.support.fault_run import FaultRun, WatchedGeneration
from tests.support.processes import Deployment
from tests.support.upstream import expected_text
from tests.support.wait import until

DEADLINE_S = 20.0
TABLE = """
[models.gpt]
backend = "responses"
base_url = "{url}"
"""


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[BackgroundServer]:
    async with BackgroundServer().serve() as server:
        yield server


@pytest.fixture(scope="module")
async def shared(upstream: BackgroundServer) -> AsyncIterator[Deployment]:
    async with Deployment(
        api=2, workers=2, models=TABLE.format(url=upstream.base_url)
    ) as deployment:
        yield deployment


@pytest.fixture
async def fault_run(shared: Deployment, upstream: BackgroundServer) -> AsyncIterator[FaultRun]:
    await shared.heal()
    upstream.made.clear()
    upstream.reads.clear()
    upstream.cancels.clear()
    upstream.is_forgetful = False
    async with FaultRun(shared) as fault_run:
        yield fault_run


async def begin(fault_run: FaultRun, **changes: Any) -> WatchedGeneration:
    """Start an answer of 45 tokens at 30 a second, and read 12 events."""
    script = {"tokens": 45, "reasoning": 5, "delay_s": 0.033}
    prompt = msgspec.json.encode(script).decode()
    answer = await fault_run.start(
        {"model": "gpt", "prompt": prompt}, text=expected_text(prompt), **changes
    )
    await fault_run.read_to(answer, 12)
    return answer


def usage_of(answer: WatchedGeneration) -> dict[str, Any]:
    assert answer.record.log is not None
    found: dict[str, Any] = answer.record.log[-1].fields["usage"]
    return found


async def test_an_answer_is_paid_for_once_when_its_worker_is_killed(
    fault_run: FaultRun, upstream: BackgroundServer
) -> None:
    answer = await begin(fault_run)

    (await fault_run.holder(answer)).kill()

    await fault_run.finish(bound_s=DEADLINE_S)
    assert answer.record.snapshot["status"] == "completed"
    assert len(upstream.made) == 1
    assert upstream.reads == [(upstream.made[0].id, -1)]
    assert usage_of(answer)["completion_tokens"] == 50
    assert "extra" not in usage_of(answer) or "estimated" not in usage_of(answer)["extra"]
    assert upstream.cancels == []


async def test_an_answer_is_paid_for_once_when_its_worker_drains(
    fault_run: FaultRun, upstream: BackgroundServer
) -> None:
    answer = await begin(fault_run)

    (await fault_run.holder(answer)).terminate()

    await fault_run.finish(bound_s=DEADLINE_S)
    assert answer.record.snapshot["status"] == "completed"
    assert (len(upstream.made), upstream.cancels) == (1, [])


async def test_an_answer_is_paid_for_once_when_redis_and_its_worker_are_lost(
    fault_run: FaultRun, upstream: BackgroundServer
) -> None:
    """The worker writes the name of the answer again, as every other event."""
    answer = await begin(fault_run)
    holder = await fault_run.holder(answer)
    redis = fault_run.deployment.redis()
    await redis.flushall()
    await until(lambda: redis.exists(keys.log(answer.id)), DEADLINE_S, "the log is written again")
    await redis.aclose()

    holder.kill()

    await fault_run.finish(bound_s=DEADLINE_S, is_lossless=False)
    assert answer.record.snapshot["status"] == "completed"
    assert (len(upstream.made), len(upstream.reads)) == (1, 1)


async def test_an_answer_that_the_server_has_lost_begins_again(
    fault_run: FaultRun, upstream: BackgroundServer
) -> None:
    answer = await begin(fault_run)
    upstream.is_forgetful = True

    (await fault_run.holder(answer)).kill()

    await fault_run.finish(bound_s=DEADLINE_S, is_lossless=False)
    assert answer.record.snapshot["status"] == "completed"
    assert len(upstream.made) == 2


async def test_a_cancel_reaches_the_model_server(
    fault_run: FaultRun, upstream: BackgroundServer
) -> None:
    answer = await begin(fault_run, is_cut_short=True)

    await fault_run.cancel(answer)

    await until(lambda: bool(upstream.cancels), DEADLINE_S, "the cancel at the server")
    await fault_run.finish(bound_s=DEADLINE_S)
    assert upstream.cancels == [upstream.made[0].id]
    assert upstream.made[0].status == "cancelled"


async def test_a_deadline_stops_the_server(fault_run: FaultRun, upstream: BackgroundServer) -> None:
    prompt = msgspec.json.encode({"tokens": 9_000, "delay_s": 0.033}).decode()
    body = {"model": "gpt", "prompt": prompt, "deadline_s": 2}
    answer = await fault_run.start(body, has_text=False)

    await until(lambda: bool(upstream.cancels), DEADLINE_S, "the cancel at the server")

    await fault_run.finish(bound_s=DEADLINE_S)
    assert answer.record.snapshot["error"]["code"] == "deadline_exceeded"
    assert upstream.cancels == [upstream.made[0].id]


async def test_a_cancel_without_a_worker_reaches_the_model_server_later(
    fault_run: FaultRun, upstream: BackgroundServer
) -> None:
    answer = await begin(fault_run, is_cut_short=True)
    for worker in fault_run.deployment.workers:
        worker.kill()

    await fault_run.cancel(answer)
    await fault_run.deployment.heal()

    await until(lambda: bool(upstream.cancels), DEADLINE_S, "the cancel at the server")
    await fault_run.finish(bound_s=DEADLINE_S)
    assert upstream.cancels == [upstream.made[0].id]
