"""API nodes that die or are told to stop; readers resume at the other one."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from tests.support.deliveries import Closed, Opened
from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun
from tests.support.processes import Deployment
from tests.support.reader import TRANSPORTS


@pytest.fixture(scope="module")
async def shared_deployment() -> AsyncIterator[Deployment]:
    """The answer of the drain has to last longer than a drain."""
    async with Deployment(api=2, workers=2, settings={"drain_s": "1.5"}) as deployment:
        yield deployment


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_readers_of_a_killed_node_resume_at_the_other_node(fault_run: FaultRun, transport):
    answer = await fault_run.start(demo_body(60, 60), transports=(transport,), hop_after=0)
    await fault_run.read_to(answer, 10)

    fault_run.deployment.api[0].kill()

    await fault_run.finish(bound_s=20)
    nodes = {s.node for r in answer.readings for s in r.steps if isinstance(s, Opened)}
    assert nodes == set(fault_run.deployment.urls)


async def test_a_node_killed_again_and_again_loses_nothing(fault_run: FaultRun):
    answer = await fault_run.start(demo_body(200, 60))
    for round_number in range(3):
        await fault_run.read_on(answer, 20)
        fault_run.deployment.api[round_number % 2].kill()
        await fault_run.deployment.heal()

    await fault_run.finish(bound_s=30)


async def test_a_frozen_node_costs_only_its_own_readers(fault_run: FaultRun):
    """SIGSTOP, then SIGCONT: what it missed meanwhile it repairs by itself."""
    answer = await fault_run.start(demo_body(100, 60), transports=("sse",), hop_after=0)
    await fault_run.read_to(answer, 10)
    frozen = fault_run.deployment.api[0]

    frozen.freeze()
    begun, other = time.monotonic(), answer.readings[1]
    await fault_run.read_to_one(other, len(other.deliveries) + 40)
    assert time.monotonic() - begun < 5
    frozen.thaw()

    await fault_run.finish(bound_s=20)


async def test_a_drained_node_breaks_off_and_exits_0(fault_run: FaultRun):
    answer = await fault_run.start(demo_body(140, 60), hop_after=0)
    await fault_run.read_to(answer, 10)
    node = fault_run.deployment.api[0]

    node.terminate()
    code = await node.ended(8)

    await fault_run.finish(bound_s=25)
    assert code == 0
    hows = {s.how for r in answer.readings for s in r.steps if isinstance(s, Closed)}
    assert hows & {"broken", "code 1012"}


async def test_cancel_at_the_other_node_reaches_readers_and_worker(fault_run: FaultRun):
    answer = await fault_run.start(demo_body(10_000, 30), has_text=False)
    await fault_run.read_to(answer, 10)

    await fault_run.cancel(answer, node=fault_run.deployment.urls[1])

    await fault_run.finish(bound_s=10)
    assert answer.record.snapshot["status"] == "cancelled"
    assert answer.record.log[-1].fields["status"] == "cancelled"
