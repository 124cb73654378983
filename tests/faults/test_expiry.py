"""Deadlines and retention with real processes: nobody waits for ever, and nothing comes back.

Row 18 of the fault table: a prompt that no worker takes in time, and a worker that wakes up after
the answer it was writing has been ended, kept for its time, and forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from shared.redis import keys
from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun, WatchedGeneration
from tests.support.processes import Deployment
from tests.support.wait import until

LEASE_S = 0.8
SETTINGS = {"queue_wait_s": "1", "retention_s": "1"}


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[Deployment]:
    async with Deployment(api=2, workers=1, lease_s=LEASE_S, settings=SETTINGS) as deployment:
        yield deployment


@pytest.fixture
async def fault_run(shared: Deployment) -> AsyncIterator[FaultRun]:
    await shared.heal()
    async with FaultRun(shared) as fault_run:
        yield fault_run


async def read_to_the_end(fault_run: FaultRun, answer: WatchedGeneration) -> None:
    """Audit what the readers saw: the log itself is kept too shortly here to look at it."""
    await asyncio.gather(*answer.tasks)
    problems = fault_run.history.check(bound_s=15)
    assert not problems, "\n".join([*problems, fault_run.deployment.report()])


async def test_a_prompt_that_no_worker_takes_in_time_ends(fault_run: FaultRun):
    worker = fault_run.deployment.workers[0]
    worker.freeze()

    answer = await fault_run.start(demo_body(5, 0), has_text=False)
    await read_to_the_end(fault_run, answer)

    for reading in answer.readings:
        error = reading.end.fields["error"]
        assert (error["code"], error["retryable"]) == ("queue_timeout", True)
        assert [d.type for d in reading.deliveries] == ["end"]
    worker.thaw()
    next_one = await fault_run.start(demo_body(5, 0))
    await read_to_the_end(fault_run, next_one)
    assert next_one.readings[0].end.fields["status"] == "completed"
    await until(lambda: next_one.id in worker.stderr(), 10, "the worker logs its attempt")
    assert answer.id not in worker.stderr(), "what has timed out is run by nobody"


async def test_a_worker_that_wakes_after_the_log_expired_restores_nothing(fault_run: FaultRun):
    """It is well within the time in which it may restore what Redis has lost: this is not lost."""
    await fault_run.deployment.add_worker().ready()
    answer = await fault_run.start(demo_body(60, 60))
    await fault_run.read_to(answer, 10)
    zombie = await fault_run.holder(answer)

    zombie.freeze()
    await read_to_the_end(fault_run, answer)
    async with aclosing(fault_run.deployment.redis()) as redis:

        async def is_forgotten() -> bool:
            return not await redis.exists(keys.meta(answer.id), keys.log(answer.id))

        await until(is_forgotten, 8, "past its retention, twice")
        zombie.thaw()
        await until(lambda: answer.id in zombie.stderr(), 10, "the worker leaves it")

        assert await is_forgotten(), await redis.hgetall(keys.meta(answer.id))
    assert answer.readings[0].end.fields["status"] == "completed"
