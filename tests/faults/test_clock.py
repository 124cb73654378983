"""Wall clocks that are set while answers run: leases, limits and retention do not notice.

Row 19 of the fault table. A worker, a node and the jobs role jump an hour forward, two back, and
return (tests/support/jumping_clock.py). Times that several processes share are Redis's, what one
process measures by itself is monotonic.
"""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial

import pytest

from shared.redis import keys
from tests.support.deliveries import Closed
from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun
from tests.support.processes import Deployment, Role
from tests.support.raw_client import RawClient
from tests.support.spawn import signal_group
from tests.support.wait import until

FORTH, BACK = signal.SIGUSR1, signal.SIGUSR2


@pytest.fixture
async def deployment() -> AsyncIterator[Deployment]:
    """One of two nodes, the only worker, and the jobs role have clocks that jump."""
    deployment = Deployment(
        api=2, workers=1, jobs=True, lease_s=0.8, settings={"queue_wait_s": "20"}
    )
    for role in (deployment.api[0], *deployment.workers, *deployment.jobs):
        role.module = "tests.support.jumping_clock"
    async with deployment:
        yield deployment


async def set_clocks(deployment: Deployment, numbers: list[signal.Signals], offset_s: int) -> None:
    """Send each jumping role these signals, and return once its clock is off by so much."""
    for role in (deployment.api[0], *deployment.workers, *deployment.jobs):
        for number in numbers:
            before = len(jumps_of(role))
            signal_group(role.process, number)
            await until(partial(has_jumped, role, before), 5, f"a jump of the {role.name}")
        assert jumps_of(role)[-1] == offset_s


def jumps_of(role: Role) -> list[int]:
    """By how much its clock has been off, jump by jump."""
    return [int(n) for n in re.findall(r"clock off by (-?\d+) s", role.output.read_text())]


def has_jumped(role: Role, before: int) -> bool:
    return len(jumps_of(role)) > before


async def test_a_clock_set_forward_and_back_by_an_hour_changes_no_answer(deployment: Deployment):
    async with (
        FaultRun(deployment) as fault_run,
        RawClient(deployment.urls[0], deployment.urls[1]) as raw_client,
    ):
        answer = await fault_run.start(
            demo_body(5_000, 60), transports=("sse",), hop_after=0, is_cut_short=True
        )
        for numbers, offset_s in (([FORTH], 3_600), ([BACK, BACK], -3_600), ([FORTH], 0)):
            await fault_run.read_on(answer, 20)
            await set_clocks(deployment, numbers, offset_s)
            # Everything else goes on as well: readiness, a whole new answer, an old one.
            assert (await raw_client.get("/readyz")).status == 200
            finished = await raw_client.finished(demo_body(3, 0))
            for node in deployment.urls:
                assert (await raw_client.events(finished, node=node)).events[-1].type == "end"
        await fault_run.read_on(answer, 20)
        await fault_run.cancel(answer)
        await fault_run.finish(bound_s=30)

        assert [entry.type for entry in answer.record.log].count("start") == 1
        for reading in answer.readings:
            hows = [step.how for step in reading.steps if isinstance(step, Closed)]
            assert hows == ["clean"], "nobody was broken off"
        async with aclosing(deployment.redis()) as redis:
            assert await redis.hget(keys.meta(answer.id), "failures") == b"0"
