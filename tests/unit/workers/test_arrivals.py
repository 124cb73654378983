"""The open reads of a worker: what they may return, who is next, and an outage."""

from __future__ import annotations

import asyncio

import pytest

from shared.errors import Unavailable
from shared.queue.lanes import Delivery
from shared.queue.partitions import Partitions
from shared.redis import keys
from shared.redis.shards import serves
from tests.support.known_shards import MASTERS, known_shards
from workers.arrivals import CONNECTIONS_MAX, Arrivals, own_partitions

LANES = ["interactive", "resume", "batch"]


class FakeQueue:
    """Reads that return when the test says so."""

    def __init__(self, count: int) -> None:
        self.partitions = Partitions(count)
        self.redis = None
        self.replies: dict[str, asyncio.Future[list[Delivery]]] = {}
        self.now_s = 100.0

    async def wait(self, lanes, wait_ms, *, tag):
        self.replies[tag] = asyncio.get_running_loop().create_future()
        return await self.replies[tag]


@pytest.fixture
async def opened():
    """Return a queue of two partitions, and arrivals that wait on both."""
    queue = FakeQueue(2)
    async with asyncio.TaskGroup() as tasks:
        arrivals = Arrivals(queue, queue.partitions.tags, tasks.create_task, lambda: queue.now_s)
        arrivals.open({"q0": LANES, "q1": LANES}, 1_000)
        await asyncio.sleep(0)
        yield queue, arrivals
        for reply in queue.replies.values():
            reply.cancel()


def entry(tag):
    return Delivery("interactive", b"1-1", None, tag=tag)


async def test_open_reads_reserve_one_entry_of_each_lane(opened):
    queue, arrivals = opened
    assert (arrivals.reserved, arrivals.covers_all) == ((6, 2), True)
    queue.replies["q1"].set_result([entry("q1")])

    found, _ = await arrivals.next()

    assert found == [entry("q1")]
    assert (arrivals.reserved, arrivals.covers_all) == ((3, 1), False)
    assert arrivals.unread() == ["q1"]


async def test_reads_of_other_partitions_stay_open(opened):
    queue, arrivals = opened
    queue.replies["q0"].set_result([])
    await arrivals.next()
    queue.replies["q1"].set_result([entry("q1")])

    assert (await arrivals.next())[0] == [entry("q1")]


async def test_a_read_that_returned_at_once_did_not_wait(opened):
    queue, arrivals = opened
    queue.replies["q0"].set_result([entry("q0")])
    queue.now_s += 0.001
    assert await arrivals.next() == ([entry("q0")], False)

    queue.replies["q1"].set_result([entry("q1")])
    queue.now_s += 0.1
    assert await arrivals.next() == ([entry("q1")], True)


async def test_one_outage_is_reported_once(opened):
    """Otherwise a worker would pause once for each partition after the server is back."""
    queue, arrivals = opened
    queue.replies["q0"].set_exception(Unavailable("away"))
    with pytest.raises(Unavailable):
        await arrivals.next()
    queue.replies["q1"].set_exception(Unavailable("away"))
    assert (await arrivals.next())[0] == []

    queue.now_s += 0.5
    arrivals.open({"q0": LANES}, 1_000)
    await asyncio.sleep(0)
    queue.replies["q0"].set_exception(Unavailable("away again"))
    with pytest.raises(Unavailable, match="again"):
        await arrivals.next()


async def test_entries_are_not_lost_beside_a_failed_read(opened):
    queue, arrivals = opened
    queue.replies["q0"].set_exception(Unavailable("away"))
    queue.replies["q1"].set_result([entry("q1")])
    await asyncio.sleep(0)

    assert (await arrivals.next())[0] == [entry("q1")]


async def test_a_close_returns_what_open_reads_still_find(opened):
    queue, arrivals = opened
    queue.replies["q0"].set_exception(Unavailable("away"))
    queue.replies["q1"].set_result([entry("q1")])

    assert await arrivals.close() == [entry("q1")]
    assert arrivals.reserved == (0, 0)


def test_workers_share_out_more_partitions_than_one_can_wait_on():
    tags = Partitions(64).tags
    own = [own_partitions(tags, f"worker-{n}") for n in range(32)]

    assert all(len(set(some)) == CONNECTIONS_MAX for some in own)
    assert {tag for some in own for tag in some} == set(tags)
    assert own_partitions(tags, "worker-1") == own[1]
    assert own_partitions(tags[:16], "worker-1") == list(tags[:16])


async def test_of_a_cluster_with_a_shard_away_only_the_other_partitions_are_waited_on():
    queue = FakeQueue(2)
    queue.partitions = Partitions(8, is_even=True)
    queue.redis = known_shards(MASTERS[1])
    async with asyncio.TaskGroup() as tasks:
        arrivals = Arrivals(queue, queue.partitions.tags, tasks.create_task, lambda: queue.now_s)
        served = {tag for tag in queue.partitions.tags if serves(queue.redis, keys.running(tag))}

        assert set(arrivals.unread()) == served and 0 < len(served) < 8


async def test_of_a_cluster_the_outage_of_one_partition_is_not_reported():
    queue = FakeQueue(2)
    queue.redis = known_shards(MASTERS[1])
    async with asyncio.TaskGroup() as tasks:
        arrivals = Arrivals(queue, queue.partitions.tags, tasks.create_task, lambda: queue.now_s)
        arrivals.open({"q0": LANES, "q1": LANES}, 1_000)
        await asyncio.sleep(0)
        queue.replies["q1"].set_exception(Unavailable("away"))

        assert await arrivals.next() == ([], True)
        queue.replies["q0"].set_result([])
        await arrivals.close()
