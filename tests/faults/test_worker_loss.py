"""Workers that die, freeze or are told to stop, in the middle of an answer.

Rows 1, 2 and 4 of the fault table. The demo model is continued by prefix, so readers see no reset
and the text is exact, whoever generated which part of it.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest

from shared.redis import keys
from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun
from tests.support.wait import until

LEASE_S = 0.8
TOKENS, TOKENS_PER_S = 60, 50


@pytest.mark.parametrize("events", [1, 25, TOKENS - 2], ids=["start", "middle", "near the end"])
async def test_a_killed_worker_is_replaced_and_the_text_is_exact(
    fault_run: FaultRun, figure, events
):
    answer = await fault_run.start(demo_body(TOKENS, TOKENS_PER_S))
    await fault_run.read_to(answer, min(events, 3))
    await until(lambda: len(answer.readings[0].deliveries) >= events, 20, f"{events} events")
    worker = await fault_run.holder(answer)

    worker.kill()
    killed_at = time.monotonic()

    await fault_run.finish(bound_s=20)
    if answer.record.log[-1].event_id.startswith("1-"):
        assert events > 25, "the worker died in the middle and nobody took over"
        return
    gap = gap_after_takeover(answer.readings[0], killed_at)
    figure("kill to next event", f"{gap:.2f} s, lease {LEASE_S} s")
    assert gap < LEASE_S * 1.3 + 1.5


def gap_after_takeover(reading, moment: float) -> float:
    """Seconds from `moment` to the first event of a later attempt."""
    first = next(d.at for d in reading.deliveries if not d.event_id.startswith("1-"))
    return first - moment


async def test_a_worker_killed_before_it_begins_costs_no_attempt(fault_run: FaultRun):
    """Frozen before the prompt comes, killed after: whoever is left begins it."""
    frozen = fault_run.deployment.workers[0]
    frozen.freeze()
    answers = [await fault_run.start(demo_body(10, 40)) for _ in range(4)]
    frozen.kill()

    await fault_run.finish(bound_s=20)

    assert {a.record.log[-1].event_id.split("-")[0] for a in answers} == {"1"}


async def test_all_answers_of_a_killed_worker_are_continued(fault_run: FaultRun):
    answers = [await fault_run.start(demo_body(45, 30), readers=1) for _ in range(8)]
    for answer in answers:
        await fault_run.read_to(answer, 5)
    worker = await fault_run.holder(answers[0])

    worker.kill()

    await fault_run.finish(bound_s=25)
    taken_over = [a for a in answers if not a.record.log[-1].event_id.startswith("1-")]
    assert taken_over


async def test_a_worker_frozen_beyond_its_lease_is_fenced_when_it_wakes(fault_run: FaultRun):
    answer = await fault_run.start(demo_body(TOKENS, TOKENS_PER_S))
    await fault_run.read_to(answer, 10)
    zombie = await fault_run.holder(answer)

    zombie.freeze()
    await until(lambda: has_later_attempt(answer.readings[0]), 15, "takeover")
    other = await fault_run.holder(answer)
    zombie.thaw()

    await fault_run.finish(bound_s=25)
    assert other is not zombie
    log = answer.record.log
    assert [entry.type for entry in log].count("start") == 2
    assert zombie.is_running, "a fenced worker stops its backend, not itself"


def has_later_attempt(reading) -> bool:
    return any(not d.event_id.startswith("1-") for d in reading.deliveries)


async def test_a_fenced_worker_that_woke_up_serves_new_prompts(fault_run: FaultRun):
    """Both workers: one frozen and woken, then left alone with the work."""
    first, second = fault_run.deployment.workers
    first.freeze()
    answer = await fault_run.start(demo_body(10, 40))
    await fault_run.read_to(answer, 5)
    first.thaw()
    second.kill()

    answers = [await fault_run.start(demo_body(10, 40)) for _ in range(2)]

    await fault_run.finish(bound_s=25)
    assert all(a.record.snapshot["status"] == "completed" for a in answers)


async def test_a_drained_worker_hands_over_without_a_gap(fault_run: FaultRun, figure):
    answer = await fault_run.start(demo_body(60, 40))
    await fault_run.read_to(answer, 15)
    worker = await fault_run.holder(answer)

    worker.terminate()
    told_at = time.monotonic()
    code = await worker.ended(10)

    await fault_run.finish(bound_s=20)
    assert code == 0
    gap = answer.readings[0].longest_gap_s(after=told_at - 0.2)
    figure("longest gap of a drain", f"{gap * 1000:.0f} ms")
    assert gap < 1.0
    assert [entry.type for entry in answer.record.log].count("start") == 2


async def test_a_prompt_whose_worker_always_dies_ends_as_failed(fault_run: FaultRun):
    """It must not go round for ever: three failures end it, and what was said stays."""
    answer = await fault_run.start(demo_body(10_000, 20), has_text=False)
    for attempt in range(1, 4):
        await until(partial(is_said_in, answer.readings[0], attempt), 20, f"attempt {attempt}")
        (await fault_run.holder(answer)).kill()
        await fault_run.deployment.heal()

    await fault_run.finish(bound_s=40)
    end = answer.record.log[-1]
    assert (end.fields["status"], end.fields["error"]["code"]) == ("failed", "attempts_exhausted")


def is_said_in(reading, attempt: int) -> bool:
    """A token of that attempt has been read."""
    return any(
        d.type == "token" and d.event_id.startswith(f"{attempt}-") for d in reading.deliveries
    )


async def test_no_entry_stays_pending_after_the_last_answer(fault_run: FaultRun):
    """After kills and drains the queues, the waiting sets and the pending lists are empty."""
    answers = [await fault_run.start(demo_body(20, 40), readers=1) for _ in range(4)]
    await fault_run.read_to(answers[0], 5)
    (await fault_run.holder(answers[0])).kill()
    await fault_run.finish(bound_s=25)
    redis = fault_run.deployment.redis()

    async def is_empty() -> bool:
        for tag in fault_run.deployment.partitions.tags:
            for lane in keys.LANES:
                if await redis.xlen(keys.lane(lane, tag)):
                    return False
            waiting = [await redis.zcard(keys.waiting(p, tag)) for p in keys.PRIORITIES]
            if any(waiting) or await redis.zcard(keys.running(tag)):
                return False
        return True

    try:
        await until(is_empty, 15, "empty queues")
    finally:
        await redis.aclose()


async def test_readers_come_and_go_while_workers_do(fault_run: FaultRun):
    """Kills in a row under load, all transports, hopping readers."""
    answers = [await fault_run.start(demo_body(100, 50)) for _ in range(3)]
    for _ in range(2):
        for answer in answers:
            await fault_run.read_on(answer, 10)
        (await fault_run.holder(answers[0])).kill()
        await fault_run.deployment.heal()

    await asyncio.wait_for(fault_run.finish(bound_s=40), 60)
