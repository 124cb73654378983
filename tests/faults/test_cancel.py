"""Cancel with real processes, in each state of an answer and racing its end.

Row 15 of the fault table; hundreds of interleavings are in tests/stateful/test_cancel_races.py.
In each case every reader gets one `end`, which is the `end` of the log.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from shared.redis import keys
from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun, WatchedGeneration
from tests.support.wait import until

RACES = 40


def types_of(answer: WatchedGeneration) -> list[str]:
    return [entry.type for entry in answer.record.log or []]


async def test_a_queued_answer_is_cancelled_and_no_worker_begins_it(fault_run: FaultRun):
    for worker in fault_run.deployment.workers:
        worker.freeze()
    answer = await fault_run.start(demo_body(50, 40), has_text=False)

    await fault_run.cancel(answer, node=fault_run.deployment.urls[1])
    await asyncio.gather(*answer.tasks)
    for worker in fault_run.deployment.workers:
        worker.thaw()
    after = await fault_run.start(demo_body(5, 0))

    await fault_run.finish(bound_s=15)
    assert types_of(answer) == ["end"]
    assert answer.record.snapshot["status"] == "cancelled"
    assert after.record.snapshot["status"] == "completed"


async def test_an_answer_whose_worker_has_died_is_cancelled_and_not_taken_over(fault_run: FaultRun):
    answer = await fault_run.start(demo_body(1_000, 40), has_text=False)
    await fault_run.read_to(answer, 10)
    holder = await fault_run.holder(answer)
    (other,) = (worker for worker in fault_run.deployment.workers if worker is not holder)

    other.freeze()
    holder.kill()
    await fault_run.cancel(answer)
    other.thaw()
    after = await fault_run.start(demo_body(5, 0))

    await fault_run.finish(bound_s=15)
    assert types_of(answer).count("start") == 1
    assert answer.record.snapshot["status"] == "cancelled"
    assert after.record.snapshot["status"] == "completed"


async def test_an_answer_that_waits_for_its_next_attempt_is_cancelled(fault_run: FaultRun):
    answer = await fault_run.start(demo_body(50, 40, fail_at=3, fail_always=True), has_text=False)
    async with aclosing(fault_run.deployment.redis()) as redis:

        async def is_waiting() -> bool:
            tags = fault_run.deployment.partitions.tags
            return sum([await redis.zcard(keys.later(tag)) for tag in tags])

        await until(is_waiting, 10, "the pause after a failed attempt")
        for worker in fault_run.deployment.workers:
            worker.freeze()
    await fault_run.cancel(answer)
    for worker in fault_run.deployment.workers:
        worker.thaw()
    after = await fault_run.start(demo_body(5, 0))

    await fault_run.finish(bound_s=15)
    assert types_of(answer).count("start") == 1
    assert answer.record.snapshot["status"] == "cancelled"
    assert after.record.snapshot["status"] == "completed"


async def test_a_cancel_that_races_the_end_gives_every_reader_the_same_end(fault_run: FaultRun):
    """Short answers, each cancelled at both nodes while it runs or has just ended."""
    answers: list[WatchedGeneration] = []
    async with asyncio.TaskGroup() as cancels:
        for n in range(RACES):
            answers.append(
                await fault_run.start(demo_body(1 + n % 8, 400), readers=1, has_text=False)
            )
            for node in fault_run.deployment.urls[: 1 + n % 2]:
                cancels.create_task(fault_run.cancel(answers[-1], node=node))

    await fault_run.finish(bound_s=20)
    ends = {answer.record.snapshot["status"] for answer in answers}
    assert ends <= {"completed", "cancelled"}
    before = [answer.record.snapshot for answer in answers]
    for answer in answers[:4]:
        await fault_run.cancel(answer)  # of an ended one: harmless
    await fault_run.finish(bound_s=20)
    assert [answer.record.snapshot for answer in answers] == before
