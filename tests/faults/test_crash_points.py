"""Workers that die at a named point of an answer, and a prompt that kills whoever runs it.

The points are exact: tests/support/faulty_worker.py kills itself between two calls. They are row 1
of the fault table; the prompt that kills is row 12.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from shared.redis import keys
from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun, WatchedGeneration
from tests.support.faulty_worker import CRASH_AT, DEATHS
from tests.support.processes import Deployment, Role
from tests.support.wait import until

LEASE_S = 0.8
TOKENS = 40


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[Deployment]:
    deployment = Deployment(api=2, workers=2, lease_s=LEASE_S)
    for worker in deployment.workers:
        worker.module = "tests.support.faulty_worker"
    async with deployment:
        yield deployment


@pytest.fixture
async def fault_run(shared: Deployment) -> AsyncIterator[FaultRun]:
    await shared.heal()
    async with FaultRun(shared) as fault_run:
        yield fault_run


async def the_dead(fault_run: FaultRun) -> Role:
    """The worker that has killed itself, as soon as it has."""
    return await until(
        lambda: next((role for role in fault_run.deployment.workers if not role.is_running), None),
        10,
        f"a worker dies\n{fault_run.deployment.report()}",
    )


async def nothing_is_left(deployment: Deployment) -> None:
    """Neither entries nor pending ones, nobody waits and nothing runs."""
    redis = deployment.redis()

    async def is_empty() -> bool:
        for tag in deployment.partitions.tags:
            for lane in keys.LANES:
                pending = await redis.xpending(keys.lane(lane, tag), keys.GROUP)
                if pending["pending"] or await redis.xlen(keys.lane(lane, tag)):
                    return False
            waiting = [await redis.zcard(keys.waiting(p, tag)) for p in keys.PRIORITIES]
            if any(waiting) or await redis.zcard(keys.running(tag)):
                return False
        return True

    try:
        await until(is_empty, 10, "empty queues")
    finally:
        await redis.aclose()


def types_of(answer: WatchedGeneration) -> list[str]:
    return [entry.type for entry in answer.record.log or []]


def first_of_the_second_attempt(answer: WatchedGeneration) -> float:
    later = [d.at for d in answer.readings[0].deliveries if not d.event_id.startswith("1-")]
    return later[0]


@pytest.mark.parametrize("death", DEATHS)
async def test_a_worker_that_dies_at_this_point_leaves_the_exact_text(
    fault_run: FaultRun, figure, death
):
    answer = await fault_run.start(demo_body(TOKENS, 100, prompt=death))
    await the_dead(fault_run)
    died_at = time.monotonic()

    await fault_run.finish(bound_s=20)
    await nothing_is_left(fault_run.deployment)

    assert answer.record.snapshot["status"] == "completed"
    types = types_of(answer)
    assert types.count("end") == 1
    # Before begin nobody had it, after the end nobody needs it: else it is taken over once.
    assert types.count("start") == (1 if death in (DEATHS[0], DEATHS[-1]) else 2)
    if death == "die at token 17":
        assert types.index("start", 1) == CRASH_AT + 1, "right after the seventeenth token"
    if death == "die before the end":
        assert "token" not in types[types.index("start", 1) :], "there was nothing left to say"
    if death != "die after the end":
        took_s = (
            answer.readings[0].deliveries[0].at
            if death == "die before begin"
            else first_of_the_second_attempt(answer)
        ) - died_at
        figure(f"{death}: to the next event", f"{took_s:.2f} s, lease {LEASE_S} s")
        assert took_s < LEASE_S * 4 / 3 + 4, "far too late, even for a busy machine"


async def test_a_prompt_that_kills_workers_is_ended_and_other_workers_survive(fault_run: FaultRun):
    """It kills each worker that runs it, three times; then it is over, and others are served."""
    poison = await fault_run.start(demo_body(60, 60, prompt="poison"), has_text=False)
    for _ in range(3):
        await the_dead(fault_run)
        await fault_run.deployment.heal()
    after = [await fault_run.start(demo_body(10, 0), readers=1) for _ in range(4)]

    await fault_run.finish(bound_s=30)
    await nothing_is_left(fault_run.deployment)

    error = poison.record.log[-1].fields["error"]
    assert (error["code"], error["retryable"]) == ("attempts_exhausted", False)
    assert types_of(poison).count("start") == 3
    assert {answer.record.snapshot["status"] for answer in after} == {"completed"}
