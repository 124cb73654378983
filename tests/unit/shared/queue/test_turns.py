"""Owners take turns: order, weights, and what happens when the worker on turn is gone."""

from __future__ import annotations

import msgspec
import pytest

from shared.config.credentials import ANONYMOUS
from shared.config.limits import OWNER_WEIGHT_MAX, OwnerLimits
from shared.queue import turns
from shared.queue.accept import Acceptor, NewGeneration
from shared.queue.endings import cancel, cancel_many
from shared.queue.janitor import Janitor
from shared.queue.lanes import NEVER_BEGAN_S, Queue
from shared.queue.overview import queue_depths
from shared.queue.partitions import partitions_of
from shared.queue.requeuing import requeue
from shared.queue.turns import advance, repair
from shared.redis import keys
from tests.support.generation import store_on

COUNT = 4
WEIGHTS = {"heavy": 3, "none": 0, "very heavy": 10 * OWNER_WEIGHT_MAX}


class OldEntry(msgspec.Struct):
    """The entry as a version without turns decodes it."""

    v: int
    id: str
    priority: str
    model: str
    away_since_ms: int = 0
    breaks: int = 0


class Bench:
    """A queue, and the names of prompts in place of their ids."""

    def __init__(self, redis, **settings):
        self.redis = redis
        self.store = store_on(redis, **settings)
        self.partitions = partitions_of(self.store.settings)
        self.acceptor = Acceptor(redis, self.store, self.store.settings)
        self.queue = self.worker("worker")
        self.janitor = Janitor(redis, self.store, self.store.settings)
        self.names = {}

    def worker(self, name):
        return Queue(self.redis, name, partitions=self.partitions)

    async def ask(self, owner, count=1, priority="interactive", **changes):
        """Accept prompts, which are called a1, a2, … for the owner `a`."""
        ids = []
        for _ in range(count):
            limits = OwnerLimits(weight=WEIGHTS.get(owner, 1))
            new = NewGeneration(
                owner, "demo", b'{"messages":[]}', priority=priority, limits=limits, **changes
            )
            accepted = await self.acceptor.accept(new)
            number = sum(name.startswith(owner) for name in self.names.values()) + 1
            self.names[accepted.generation_id] = f"{owner}{number}"
            ids.append(accepted.generation_id)
        return ids

    async def take(self, count=1, lane="interactive", *, free=0, queue=None):
        """Read entries, and let their owners go on."""
        deliveries = await self.read(count, lane, queue=queue)
        await advance(self.queue.scripts, deliveries, {lane: free})
        return self.names_of(deliveries)

    async def read(self, count=1, lane="interactive", *, queue=None):
        return await (queue or self.queue).read(lane, count)

    def names_of(self, deliveries):
        return [self.names[delivery.ticket.id] for delivery in deliveries]

    async def drain(self, lane="interactive"):
        """Read everything, entry by entry."""
        found = []
        while names := await self.take(1, lane):
            found += names
        return found

    async def sweep(self):
        for tag in self.partitions.tags:
            await self.redis.delete(keys.janitor(tag))
        return await self.janitor.sweep()

    async def has_keys(self):
        """Return the keys of turns that are left."""
        return [
            key
            async for key in self.redis.scan_iter("tr:{q*}:*")
            if b":turns" in key or b":line" in key
        ]


@pytest.fixture
async def bench(redis):
    bench = Bench(redis)
    await bench.queue.ensure_groups()
    return bench


# Order


async def test_a_prompt_waits_for_one_turn_of_an_owner_with_many_prompts(bench):
    await bench.ask("a", 50)
    await bench.ask("b")

    assert await bench.take() == ["a1"]
    assert await bench.take() == ["b1"]
    assert await bench.take() == ["a2"]


async def test_owners_take_turns_and_each_keeps_its_order(bench):
    for owner, count in (("a", 4), ("b", 1), ("c", 3)):
        await bench.ask(owner, count)

    assert await bench.drain() == ["a1", "b1", "c1", "a2", "c2", "a3", "c3", "a4"]
    assert await bench.has_keys() == []


async def test_lines_of_batches_take_turns_among_themselves(bench):
    await bench.ask("a", 3, priority="batch")
    await bench.ask("b", 1, priority="batch")
    await bench.ask("a", 1)

    assert await bench.drain("batch") == ["a1", "b1", "a2", "a3"]
    assert await bench.drain() == ["a4"]


async def test_lines_that_are_accepted_together_take_turns(bench):
    for owner in "ab":
        new = NewGeneration(owner, "demo", b'{"messages":[]}', priority="batch", wait_s=60.0)
        ids = [f"gen_{owner}{n:025}" for n in range(3)]
        bench.names |= {name: f"{owner}{n}" for n, name in enumerate(ids)}
        await bench.acceptor.accept_lines([(name, new) for name in ids], is_repeat=False)

    assert await bench.drain("batch") == ["a0", "b0", "a1", "b1", "a2", "b2"]


async def test_an_owner_who_comes_back_waits_behind_the_others(bench):
    await bench.ask("a", 2)
    await bench.ask("b", 2)
    assert await bench.take(2) == ["a1", "b1"]
    await bench.ask("c")

    assert await bench.drain() == ["a2", "b2", "c1"]


async def test_a_deployment_without_credentials_has_no_turns(bench):
    await bench.ask(ANONYMOUS, 3)

    assert len(await bench.read(9)) == 3
    assert await bench.has_keys() == []


async def test_owners_take_turns_in_each_partition(redis):
    bench = Bench(redis, queue_partitions=COUNT)
    await bench.queue.ensure_groups()
    await bench.ask("a", 60)
    await bench.ask("b")

    found = await bench.drain()

    assert found.index("b1") <= 2 * COUNT
    assert len(found) == 61
    assert await bench.has_keys() == []


# Weights and free slots


async def test_an_owner_has_as_many_prompts_in_a_turn_as_its_weight(bench):
    await bench.ask("heavy", 7)
    await bench.ask("b", 3)

    found = [name[0] for name in await bench.drain()]

    assert "".join(found) == "hbhhhbhhhb"


@pytest.mark.parametrize("owner, entries", [("none", 1), ("very heavy", 5)])
async def test_a_weight_is_kept_in_its_bounds(bench, monkeypatch, owner, entries):
    monkeypatch.setattr(turns, "OWNER_WEIGHT_MAX", 5)
    await bench.ask(owner, 5 + 2)
    await bench.take()

    assert len(await bench.read(999)) == entries


async def test_the_newest_prompt_decides_the_weight(bench, monkeypatch):
    await bench.ask("a", 2)
    monkeypatch.setitem(WEIGHTS, "a", 2)
    await bench.ask("a", 3)
    await bench.take()

    assert len(await bench.read(9)) == 2


async def test_free_slots_are_filled_at_once(bench):
    await bench.ask("a", 30)

    assert await bench.take(20, free=19) == ["a1"]
    assert len(await bench.take(19)) == 19


async def test_owners_share_the_free_slots(bench):
    await bench.ask("a", 30)
    await bench.ask("b", 30)

    await bench.take(20, free=18)
    found = await bench.take(18)

    assert [sum(name[0] == owner for name in found) for owner in "ab"] == [9, 9]


# Nothing is lost, nothing comes twice


async def test_a_repeated_step_to_the_next_turn_does_nothing(bench):
    await bench.ask("a", 9)
    deliveries = await bench.read()

    moved = [await advance(bench.queue.scripts, deliveries, {"interactive": 0}) for _ in range(3)]

    assert moved == [1, 0, 0]
    assert bench.names_of(await bench.read(9)) == ["a2"]


async def test_an_acceptance_that_is_repeated_adds_no_second_entry(bench):
    await bench.ask("a")
    new = NewGeneration("a", "demo", b'{"messages":[]}')
    for _ in range(3):
        await bench.acceptor._enqueue("gen_again00000", new)
    bench.names["gen_again00000"] = "again"

    assert await bench.drain() == ["a1", "again"]


async def test_the_worker_that_takes_over_an_entry_goes_on_with_the_turns(bench):
    await bench.ask("a", 2)
    await bench.read(1, queue=bench.worker("dead"))

    claimed = await bench.queue.claim("interactive", 0, 9)
    await advance(bench.queue.scripts, claimed)

    assert bench.names_of(await bench.read(9)) == ["a2"]


async def test_the_janitor_goes_on_for_workers_without_turns(bench):
    """An old worker, or one that died: its entry was delivered, and the owner waits."""
    await bench.ask("a", 4)
    await bench.ask("b", 1)
    await bench.read(9)

    await bench.sweep()
    assert bench.names_of(await bench.read(9)) == ["a2"], "a worker may be about to advance"
    await bench.sweep()
    assert bench.names_of(await bench.read(9)) == ["a3", "a4"], "no worker does"

    await bench.sweep()
    assert await bench.has_keys() == []


async def test_the_janitor_leaves_turns_alone_that_no_worker_has_taken(bench):
    await bench.ask("a", 3)

    await bench.sweep()

    assert bench.names_of(await bench.read(9)) == ["a1"]


@pytest.mark.parametrize("loss", ["entry", "lane"])
async def test_an_owner_whose_turn_was_lost_gets_another(bench, monkeypatch, loss):
    await bench.ask("a", 3)
    lane = keys.lane("interactive")
    if loss == "lane":
        await bench.redis.delete(lane)
        await bench.queue.ensure_groups()
    else:
        ((entry_id, _),) = await bench.redis.xrange(lane)
        await bench.redis.xdel(lane, entry_id)
    await bench.sweep()
    assert await bench.read(9) == [], "the worker that took the entry may just have left"
    monkeypatch.setattr(turns, "LOST_TURN_S", -1.0)

    await bench.sweep()

    assert bench.names_of(await bench.read(9)) == ["a2"]


async def test_a_line_without_a_turn_gets_one(bench):
    ids = await bench.ask("a", 3)
    await bench.redis.delete(keys.turns("interactive"))

    await requeue(bench.store, ids[2], "interactive")

    assert await bench.drain() == ["a1", "a2", "a3"]


async def test_a_prompt_that_waits_for_its_turn_is_not_taken_for_lost(bench):
    """Otherwise all prompts of an owner pass the others on the lane `resume` after a while."""
    ids = await bench.ask("a", 4)
    since_ms = await bench.store.now_ms() - round(1000 * (NEVER_BEGAN_S + 5))
    for generation_id in ids:
        await bench.redis.zadd(keys.waiting("interactive"), {generation_id: since_ms})
        await bench.redis.hset(keys.meta(generation_id), "waiting", str(since_ms))

    await bench.sweep()

    assert bench.names_of(await bench.read(9, "resume")) == ["a1"], "only that one has no line"
    assert (await queue_depths(bench.store))["interactive"] == 4


async def test_a_node_does_not_requeue_a_prompt_that_waits_for_its_turn(bench):
    ids = await bench.ask("a", 2)

    for generation_id in ids:
        await requeue(bench.store, generation_id, "interactive")

    assert bench.names_of(await bench.read(9, "resume")) == ["a1"], "it has no line"


async def test_a_version_without_turns_can_read_the_entries(bench):
    await bench.ask("a", 2)
    ((_, fields),) = await bench.redis.xrange(keys.lane("interactive"))

    entry = msgspec.json.decode(fields[b"e"], type=OldEntry)

    assert (entry.v, bench.names[entry.id], entry.priority) == (1, "a1", "interactive")


# Ends while the prompt waits


async def test_a_cancelled_prompt_costs_no_turn(bench):
    ids = await bench.ask("a", 4)
    for generation_id in ids[1:3]:
        await cancel(bench.store, generation_id)

    assert await bench.drain() == ["a1", "a4"]


async def test_the_lines_of_a_cancelled_batch_cost_no_turn(bench):
    ids = await bench.ask("a", 4, priority="batch")
    await cancel_many(bench.store, ids[:3])

    assert await bench.drain("batch") == ["a1", "a4"]


async def test_a_prompt_that_waited_too_long_costs_no_turn(bench):
    ids = await bench.ask("a", 3)
    since_ms = await bench.store.now_ms() - round(1000 * bench.store.settings.queue_wait_s) - 5_000
    await bench.redis.zadd(keys.waiting("interactive"), {ids[1]: since_ms})
    await bench.redis.hset(keys.meta(ids[1]), "waiting", str(since_ms))

    await bench.sweep()

    assert await bench.drain() == ["a1", "a3"]


async def test_a_turn_on_a_lane_that_is_gone_is_closed(redis):
    await redis.hset(keys.turns("interactive"), keys.digest_of("a"), "1-0 1")

    await repair(store_on(redis), keys.QUEUE)

    assert not await redis.exists(keys.turns("interactive"))
