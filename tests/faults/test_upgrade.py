"""Two versions side by side, as in every rolling upgrade, and the way back.

Row 20 of the fault table. tests/support/newer_version.py writes queue entries and events that
today's version does not know. Today's workers leave these entries to the newer workers, and today's
nodes pass the events on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import pytest

from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun, WatchedGeneration
from tests.support.processes import Deployment
from tests.support.wait import until

LEASE_S = 0.6
NEWER = "tests.support.newer_version"
CITING = "cite your sources"


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[Deployment]:
    """Node and worker 0 are today's, 1 are newer."""
    deployment = Deployment(api=2, workers=2, lease_s=LEASE_S)
    deployment.api[1].module = deployment.workers[1].module = NEWER
    async with deployment:
        yield deployment


@pytest.fixture
async def fault_run(shared: Deployment) -> AsyncIterator[FaultRun]:
    await shared.heal()
    async with FaultRun(shared, deadline_s=40) as fault_run:
        yield fault_run


def types_of(answer: WatchedGeneration) -> list[str]:
    return [entry.type for entry in answer.record.log or []]


async def test_old_and_new_share_a_queue_and_each_others_logs(fault_run: FaultRun):
    old, new = fault_run.deployment.urls
    bodies = [demo_body(30, 60, prompt=prompt) for prompt in ("plain", CITING)]
    by_old = [await fault_run.start(body, node=old) for body in bodies * 2]
    by_new = [await fault_run.start(body, node=new) for body in bodies]

    await fault_run.finish(
        bound_s=40
    )  # who cannot read an entry may claim it several times in a row

    for answer in [*by_old, *by_new]:
        assert answer.record.snapshot["status"] == "completed"
        assert types_of(answer).count("start") == 1
    citations = [e.fields for e in by_new[1].record.log if e.type == "citation"]
    assert citations, "only the newer worker could read that entry"
    for reading in by_new[1].readings:
        assert [d.fields for d in reading.deliveries if d.type == "citation"] == citations


async def test_after_a_rollback_the_old_version_finishes_generations_of_the_new_version(
    fault_run: FaultRun,
):
    """Their entries are of the new version: the janitor adds some that the old one can read."""
    old, new = fault_run.deployment.workers
    old.freeze()
    bodies = [demo_body(5_000, 60, prompt=prompt) for prompt in ("plain", CITING)]
    newer_node = fault_run.deployment.urls[1]
    answers = [await fault_run.start(b, node=newer_node, is_cut_short=True) for b in bodies]
    for answer in answers:
        await fault_run.read_to(answer, 12)
        assert await fault_run.holder(answer) is new

    new.kill()
    fault_run.deployment.api[1].kill()
    old.thaw()
    plain, citing = answers
    for answer in answers:
        await until(partial(has_second_attempt, answer), 30, "the old version goes on")
        await fault_run.read_on(answer, 10)
        await fault_run.cancel(answer)

    await fault_run.finish(bound_s=40, is_lossless=False)
    for answer in answers:
        assert types_of(answer).count("start") == 2
    assert "reset" not in types_of(plain)
    # What that event means the old version cannot know: it does not go on from there.
    assert types_of(citing).count("reset") == 1


def has_second_attempt(answer: WatchedGeneration) -> bool:
    return all(
        any(delivery.event_id.startswith("2-") for delivery in reading.deliveries)
        for reading in answer.readings
    )
