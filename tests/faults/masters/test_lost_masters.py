"""A cluster of three masters under nodes, workers and jobs: masters are lost, and slots move.

Real servers, one replica for each master. Answers run on every master, and careful readers follow
them. The reader of a lost shard waits for the promotion; the readers of the others see no gap.
"""

from __future__ import annotations

import asyncio

import pytest

from shared.redis import keys
from shared.redis.cluster.slots import key_slot
from tests.support.shard_faults import NODE_TIMEOUT_S, longest_gap, now, shard_faults
from tests.support.wait import until

SPARED_S = 2.0  # the longest wait of a reader whose shard is well
MOVED_S = 3.0  # of a reader whose slot moves
PROMOTED_S = NODE_TIMEOUT_S + 3.0  # of a reader whose master is replaced


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_only_the_readers_of_a_lost_master_wait_for_its_replica(fault, figure):
    async with shard_faults() as faults:
        await faults.start()
        port, lost = next(iter(faults.answers.items()))
        spared = [
            answer for other, found in faults.answers.items() if other != port for answer in found
        ]
        victim, since = faults.owner(lost[0]), now()

        victim.kill() if fault == "killed" else victim.freeze()
        await until(lambda: faults.owner(lost[0]) is not victim, 30, "a promoted replica")
        await faults.read_on()
        if fault == "frozen":
            victim.thaw()  # an old master that does not know that it was replaced
            await faults.read_on()

        waited_s = longest_gap(lost, since)
        times = f"{waited_s:.2f} s, {waited_s / NODE_TIMEOUT_S:.1f} node timeouts"
        figure(f"master {fault}: longest gap of its readers", times)
        figure("of the other readers", f"{longest_gap(spared, since):.2f} s")
        assert waited_s < PROMOTED_S
        assert longest_gap(spared, since) < SPARED_S
        await faults.finish()


@pytest.mark.parametrize("how", ["key by key", "by the server"])
async def test_readers_follow_their_slots_from_master_to_master(how, figure):
    async with shard_faults() as faults:
        await faults.start()
        answers = [answer for found in faults.answers.values() for answer in found]
        since = now()

        for answer in answers:
            source = faults.owner(answer)
            others = [s for s in faults.redis.servers[:3] if s is not source]
            for target in (*others, source):
                if how == "key by key":
                    await asyncio.to_thread(faults.redis.move, keys.meta(answer.id), target)
                elif not await asyncio.to_thread(
                    faults.redis.move_atomically, keys.meta(answer.id), target
                ):
                    pytest.skip("this server moves slots key by key only")
                await faults.fault_run.read_on(answer, 4)

        figure(
            f"slots moved {how}: longest gap of a reader", f"{longest_gap(answers, since):.2f} s"
        )
        assert longest_gap(answers, since) < MOVED_S
        await faults.finish()


async def test_readers_get_events_that_are_published_while_only_the_keys_of_the_slot_have_moved(
    figure,
):
    """No server shows a subscriber that it misses messages then: the tail recheck finds them."""
    async with shard_faults() as faults:
        await faults.start()
        answer = next(iter(faults.answers.values()))[0]
        source = faults.owner(answer)
        target = next(server for server in faults.redis.servers[:3] if server is not source)
        slot, since = key_slot(keys.meta(answer.id).encode()), now()

        faults.redis.begin_move(slot, source, target)
        faults.redis.move_all_keys(slot, source, target)
        await faults.fault_run.read_on(answer, 40)
        faults.redis.end_move(slot, target)
        await faults.fault_run.read_on(answer, 40)

        figure("keys moved, slot not: longest gap", f"{longest_gap([answer], since):.2f} s")
        assert longest_gap([answer], since) < MOVED_S
        await faults.finish()
