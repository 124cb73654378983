"""Sentinel moves the master under nodes, workers and jobs: it is killed, frozen, or told to go.

Three real sentinels, a master and a replica. Prompts keep coming, and readers read, all the time.
A promoted replica may lack the last writes, which the living workers write again. So no reader sees
a `reset`, and no prompt is lost that was answered 202 after the switch. tests/soak/sentinel.py does
this many times.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.demo import demo_body
from tests.support.jobs import call, fired, plan
from tests.support.processes import Deployment
from tests.support.sentinel_setup import SentinelSetup, standing
from tests.support.wait import until

LONG = demo_body(5_000, 25)
FIRST = "first 202 after +switch-master"


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[SentinelSetup]:
    async with standing(jobs=1) as setup:
        yield setup


@pytest.fixture
async def setup(shared: SentinelSetup) -> SentinelSetup:
    """The setup after the switch of the test before: its old master is the replica now."""
    if shared.switched_at:
        await shared.change_places()
    return shared


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_readers_see_one_text_when_the_master_is_lost_and_comes_back(
    setup: SentinelSetup, fault, figure
):
    answers = [await setup.fault_run.start(LONG, is_cut_short=True) for _ in range(3)]
    for answer in answers:
        await setup.fault_run.read_to(answer, 8)

    await setup.lose_master(fault)
    await setup.goes_on()
    figure(FIRST, f"{setup.first_s:.2f} s")
    setup.bring_back(fault)
    await setup.demoted()

    await asyncio.gather(*(setup.fault_run.read_on(answer, 8) for answer in answers))
    for answer in answers:
        await setup.fault_run.cancel(answer)
    await setup.check_prompts()
    await setup.fault_run.finish(bound_s=40)


async def test_a_planned_failover_loses_no_prompt_that_was_accepted_after_it(
    setup: SentinelSetup, figure
):
    """The old master lives, and takes writes as a master for some seconds more."""
    answer = await setup.fault_run.start(LONG, is_cut_short=True)
    await setup.fault_run.read_to(answer, 8)
    await asyncio.to_thread(setup.new.wait_replicated)

    await setup.lose_master("told to go")
    await setup.goes_on()
    figure(FIRST, f"{setup.first_s:.2f} s")
    await setup.demoted()

    numbers = {"sentinels": 3, "heard": 3, "replicas": 1}
    await until(lambda: says(setup.deployment, numbers), 20, "/readyz with the old master again")
    await fired(setup.deployment, await plan(setup.deployment, "after the switch", run_at=1))
    await setup.fault_run.read_on(answer, 8)
    await setup.fault_run.cancel(answer)
    await setup.check_prompts()
    await setup.fault_run.finish(bound_s=40)


async def says(deployment: Deployment, numbers: dict[str, int]) -> bool:
    status, found = await call(deployment, "GET", "/readyz")
    return status == 200 and bool(found["sentinel"] == numbers)
