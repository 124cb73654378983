"""A replica that lacks the last writes is promoted under nodes and workers that are at work.

Row 10 of the fault table, with real roles behind an address that follows the master; the write
protocol's own cases are in test_failover.py. A worker that still has the missing entries writes
them again. If no worker has them, the answer goes on under event ids that were never used, and
readers that had read the missing events get a `reset`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun, WatchedGeneration
from tests.support.processes import Deployment, Role
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer
from tests.support.wait import until

LEASE_S = 0.8
LONG = demo_body(5_000, 50)


@pytest.fixture
async def servers() -> AsyncIterator[tuple[RedisServer, RedisServer, Proxy]]:
    """A master, a replica of it, and the link between them."""
    with RedisServer(tcp=True) as master, RedisServer(tcp=True) as replica:
        async with Proxy("127.0.0.1", master.port) as link:
            with replica.client() as client:
                client.execute_command("REPLICAOF", "127.0.0.1", str(link.port))
            replica.replica_of = master
            yield master, replica, link


async def test_entries_missing_on_a_promoted_replica_are_restored_or_reset(servers):
    master, replica, link = servers
    async with Proxy("127.0.0.1", master.port) as front:
        url = f"redis://127.0.0.1:{front.port}/0"
        deployment = Deployment(api=2, workers=2, lease_s=LEASE_S, server=master, redis_url=url)
        async with deployment, FaultRun(deployment) as fault_run:
            answers: list[WatchedGeneration] = []
            holders: dict[str, Role] = {}
            while len(answers) < 4 or len(set(holders.values())) < 2:
                answers.append(await fault_run.start(LONG, is_cut_short=True))
                holders[answers[-1].id] = await fault_run.holder(answers[-1])
            for answer in answers:
                await fault_run.read_to(answer, 8)
            await asyncio.to_thread(replica.wait_replicated)
            link.stall()  # from here on the replica hears nothing
            late = await fault_run.start(LONG, is_cut_short=True)
            for answer in [*answers, late]:
                await fault_run.read_on(answer, 10)
            holders[late.id] = await fault_run.holder(late)
            (victim,) = (role for role in deployment.workers if role is not holders[late.id])

            victim.kill()
            master.kill()
            replica.promote()
            deployment.server = replica
            front.lead_to(replica.port)

            orphans = [answer for answer in answers if holders[answer.id] is victim]
            told = [reading for answer in orphans for reading in answer.readings]
            await until(lambda: all(r.resets for r in told), 30, "those who had seen more are told")
            for answer in [*answers, late]:
                await fault_run.read_on(answer, 10)
                await fault_run.cancel(answer)
            await fault_run.finish(bound_s=40, is_lossless=False)

    assert orphans
    for answer in [*answers, late]:
        numbers = attempts_of(answer)
        if answer in orphans:
            assert numbers[0] == 1 and numbers[-1] > 10**12
        else:
            assert numbers == [1], "its worker wrote again what the replica lacked"
            assert not any(reading.resets for reading in answer.readings)


def attempts_of(answer: WatchedGeneration) -> list[int]:
    return [entry.fields["attempt"] for entry in answer.record.log if entry.type == "start"]
