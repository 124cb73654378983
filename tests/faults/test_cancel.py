"""Cancel with real processes, in each state of an answer and racing its end.

Row 15 of the fault table; the thousand interleavings are in tests/stateful/test_cancel_races.py.
Whatever it meets, every reader is told one end, and it is the log's.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from shared.redis import keys
from tests.support.demo import demo_body
from tests.support.scene import Playing, Scene
from tests.support.wait import until

RACES = 40


def types_of(answer: Playing) -> list[str]:
    return [entry.type for entry in answer.record.log or []]


async def test_a_queued_answer_is_cancelled_and_no_worker_begins_it(scene: Scene):
    for worker in scene.cluster.workers:
        worker.freeze()
    answer = await scene.start(demo_body(50, 40), has_text=False)

    await scene.cancel(answer, node=scene.cluster.urls[1])
    await asyncio.gather(*answer.tasks)
    for worker in scene.cluster.workers:
        worker.thaw()
    after = await scene.start(demo_body(5, 0))

    await scene.finish(bound_s=15)
    assert types_of(answer) == ["end"]
    assert answer.record.snapshot["status"] == "cancelled"
    assert after.record.snapshot["status"] == "completed"


async def test_an_answer_whose_worker_has_died_is_cancelled_and_not_taken_over(scene: Scene):
    answer = await scene.start(demo_body(1_000, 40), has_text=False)
    await scene.read_to(answer, 10)
    holder = await scene.holder(answer)
    (other,) = (worker for worker in scene.cluster.workers if worker is not holder)

    other.freeze()
    holder.kill()
    await scene.cancel(answer)
    other.thaw()
    after = await scene.start(demo_body(5, 0))

    await scene.finish(bound_s=15)
    assert types_of(answer).count("start") == 1
    assert answer.record.snapshot["status"] == "cancelled"
    assert after.record.snapshot["status"] == "completed"


async def test_an_answer_that_waits_for_its_next_attempt_is_cancelled(scene: Scene):
    answer = await scene.start(demo_body(50, 40, fail_at=3, fail_always=True), has_text=False)
    async with aclosing(scene.cluster.redis()) as redis:

        async def is_waiting() -> bool:
            return await redis.zcard(keys.later())

        await until(is_waiting, 10, "the pause after a failed attempt")
        for worker in scene.cluster.workers:
            worker.freeze()
    await scene.cancel(answer)
    for worker in scene.cluster.workers:
        worker.thaw()
    after = await scene.start(demo_body(5, 0))

    await scene.finish(bound_s=15)
    assert types_of(answer).count("start") == 1
    assert answer.record.snapshot["status"] == "cancelled"
    assert after.record.snapshot["status"] == "completed"


async def test_a_cancel_that_races_the_end_gives_every_reader_the_same_end(scene: Scene):
    """Short answers, each cancelled at both nodes while it runs or has just ended."""
    answers: list[Playing] = []
    async with asyncio.TaskGroup() as cancels:
        for n in range(RACES):
            answers.append(await scene.start(demo_body(1 + n % 8, 400), readers=1, has_text=False))
            for node in scene.cluster.urls[: 1 + n % 2]:
                cancels.create_task(scene.cancel(answers[-1], node=node))

    await scene.finish(bound_s=20)
    ends = {answer.record.snapshot["status"] for answer in answers}
    assert ends <= {"completed", "cancelled"}
    before = [answer.record.snapshot for answer in answers]
    for answer in answers[:4]:
        await scene.cancel(answer)  # of an ended one: harmless
    await scene.finish(bound_s=20)
    assert [answer.record.snapshot for answer in answers] == before
