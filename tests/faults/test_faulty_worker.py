"""Faults that only a part of a worker has, and a Redis that cuts a node which does not read."""

from __future__ import annotations

import asyncio

from shared.redis import keys
from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun
from tests.support.wait import until, until_sync


async def test_a_worker_whose_loop_stands_still_beyond_its_lease_is_fenced(fault_run: FaultRun):
    """Its sockets answer, its kernel acknowledges, and it renews nothing: another one goes on."""
    deployment = fault_run.deployment
    faulty = deployment.add_worker(module="tests.support.faulty_worker")
    try:
        await faulty.ready()
        for worker in deployment.workers[:2]:
            worker.freeze()  # so that the faulty worker gets it
        prompt = demo_body(5_000, 50, prompt="block the loop")
        answer = await fault_run.start(prompt, is_cut_short=True)
        await fault_run.read_to(answer, 5)
        assert await fault_run.holder(answer) is faulty
        for worker in deployment.workers[:2]:
            worker.thaw()
        await until(lambda: "lease lost" in faulty.stderr(), 20, "it wakes up and is fenced")
        await fault_run.read_on(answer, 10)
        await fault_run.cancel(answer)

        await fault_run.finish(bound_s=30)

        starts = [entry.event_id for entry in answer.record.log if entry.type == "start"]
        assert len(starts) == 2, "taken over once, and the blocked one wrote nothing more"
        assert faulty.is_running
    finally:
        faulty.kill()
        deployment.workers.remove(faulty)


async def test_redis_cuts_a_node_that_does_not_read_and_the_node_repairs_itself(
    fault_run: FaultRun,
):
    """The pub/sub output buffer runs over while the node is frozen; nothing may be missing."""
    answer = await fault_run.start(demo_body(150, 60))
    await fault_run.read_to(answer, 10)
    node = fault_run.deployment.api[0]

    with fault_run.deployment.server.client() as client:
        client.config_set("client-output-buffer-limit", "pubsub 256kb 128kb 1")
        node.freeze()
        try:
            await asyncio.to_thread(overrun, client, keys.live(answer.id))
        finally:
            client.config_set("client-output-buffer-limit", "pubsub 32mb 8mb 60")
            node.thaw()

    await fault_run.finish(bound_s=40)


def overrun(client, channel: str) -> None:
    """Publish rubbish, which no node believes, until a subscriber that does not read is cut."""
    before = client.publish(channel, b"x")
    assert before
    until_sync(lambda: client.publish(channel, b"x" * 500_000) < before, 20, "a subscriber cut off")
