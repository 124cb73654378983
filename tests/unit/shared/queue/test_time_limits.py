"""Time limits of requests: who ends a generation, when, and with which code."""

from __future__ import annotations

import msgspec
import pytest

from shared.errors import Unavailable
from shared.log.events import decode
from shared.log.producing import ProducerTerms, begin_producing
from shared.log.records import RESTORE_WITHIN_S, Begun, Ended
from shared.queue import time_limits
from shared.queue.accept import Acceptor, NewGeneration
from shared.queue.endings import cancel
from shared.queue.janitor import Janitor
from shared.queue.lanes import Queue
from shared.queue.overview import queue_depths
from shared.queue.partitions import partitions_of
from shared.queue.time_limits import (
    HOLDER_LATE_S,
    TIME_LIMIT_S_MAX,
    TimeLimits,
    deadline_passed,
    end_hopeless,
    timed_out,
)
from shared.queue.turns import advance
from shared.redis import keys
from tests.support.generation import store_on, types_of
from tests.support.wait import until

LONG_S = 1_000.0
LEASE_S = 1.0  # of a producer


class Bench:
    """A store whose generations can be made older."""

    def __init__(self, redis, **settings):
        self.redis = redis
        self.store = store_on(redis, **settings)
        self.acceptor = Acceptor(redis, self.store, self.store.settings)
        self.partitions = partitions_of(self.store.settings)

    async def ask(self, queue_wait_s=None, deadline_s=None, **changes):
        limits = TimeLimits(queue_wait_s, deadline_s)
        given = {"owner": "a", "model": "demo", "request": b'{"messages":[]}'} | changes
        return (
            await self.acceptor.accept(NewGeneration(**given, time_limits=limits))
        ).generation_id

    async def pass_s(self, generation_id, seconds):
        """Make a generation, its wait and its lease so much older."""
        meta, tag = keys.meta(generation_id), self.partitions.of(generation_id)
        for name in (b"created", b"waiting", b"lease"):
            if int(await self.redis.hget(meta, name) or 0):
                await self.redis.hincrby(meta, name, -round(seconds * 1000))
        for index in (keys.due(tag), keys.waiting("interactive", tag), keys.running(tag)):
            if await self.redis.zscore(index, generation_id):
                await self.redis.zincrby(index, -round(seconds * 1000), generation_id)

    async def sweep(self):
        for tag in self.partitions.tags:
            await self.redis.delete(keys.janitor(tag))
        return await Janitor(self.redis, self.store, self.store.settings).sweep()

    async def begin(self, generation_id, token="mine"):
        return await self.store.begin(generation_id, token, "worker")

    async def end(self, generation_id):
        meta = await self.store.meta(generation_id)
        return decode(meta.end) if meta.end else None

    async def code(self, generation_id):
        end = await self.end(generation_id)
        return end and (end.error.code if end.error else end.status)

    async def due(self):
        tags = self.partitions.tags
        return sum([await self.redis.zcard(keys.due(tag)) for tag in tags])


@pytest.fixture
def bench(redis):
    return Bench(redis)


# Off


async def test_a_prompt_without_limits_is_in_no_index_of_limits(bench):
    generation_id = await bench.ask()

    assert await bench.due() == 0
    fields = await bench.redis.hgetall(keys.meta(generation_id))
    assert not {b"deadline", b"queue_wait"} & set(fields)


# The janitor


@pytest.mark.parametrize(
    ("limits", "passed_s", "code"),
    [
        ({"queue_wait_s": 2}, 1, None),
        ({"queue_wait_s": 2}, 3, "queue_timeout"),
        ({"deadline_s": 2}, 1, None),
        ({"deadline_s": 2}, 3, "deadline_exceeded"),
        ({"queue_wait_s": 2, "deadline_s": 9}, 3, "queue_timeout"),
        ({"queue_wait_s": 9, "deadline_s": 2}, 3, "deadline_exceeded"),
        ({"queue_wait_s": 0.25}, 0.3, "queue_timeout"),
    ],
)
async def test_a_waiting_prompt_ends_when_its_time_is_over(bench, limits, passed_s, code):
    generation_id = await bench.ask(**limits)
    await bench.pass_s(generation_id, passed_s)

    await bench.sweep()

    assert await bench.code(generation_id) == code
    if code is not None:
        assert await bench.due() == 0
        assert not any((await queue_depths(bench.store)).values())
        assert await types_of(bench.store, generation_id) == ["end"]


async def test_the_ends_of_the_scripts_are_those_of_the_code(bench):
    waiting = await bench.ask(queue_wait_s=1.5)
    late = await bench.ask(deadline_s=90)
    begun_late = await bench.ask(deadline_s=0.001)
    for generation_id in (waiting, late):
        await bench.pass_s(generation_id, 100)
    await bench.pass_s(begun_late, 1)

    await bench.sweep()
    await bench.begin(begun_late)

    assert await bench.end(waiting) == timed_out(1.5)
    assert await bench.end(late) == deadline_passed(90, None)
    assert await bench.end(begun_late) == deadline_passed(0.001, None)


async def test_the_prompts_that_are_due_first_end_first(bench, monkeypatch):
    monkeypatch.setattr("shared.queue.time_limits.DUE_PER_PASS", 2)
    ids = [await bench.ask(queue_wait_s=wait_s) for wait_s in (7, 3, 5)]
    for generation_id in ids:
        await bench.pass_s(generation_id, 8)

    await bench.sweep()

    assert [await bench.code(generation_id) for generation_id in ids] == [
        None, "queue_timeout", "queue_timeout",
    ]  # fmt: skip


async def test_the_operator_bounds_the_wait_for_prompts_with_a_longer_one(redis):
    bench = Bench(redis, queue_wait_s=60.0)
    generation_id = await bench.ask(queue_wait_s=LONG_S)
    await bench.pass_s(generation_id, 61)

    await bench.sweep()

    assert await bench.code(generation_id) == "queue_timeout"


async def test_a_running_generation_may_run_longer_than_it_might_have_waited(bench):
    generation_id = await bench.ask(queue_wait_s=0.5)
    await bench.begin(generation_id)
    await bench.redis.hset(
        keys.meta(generation_id), "lease", str(await bench.store.now_ms() + 60_000)
    )
    await bench.redis.zadd(keys.due(bench.partitions.of(generation_id)), {generation_id: 1})

    await bench.sweep()

    assert await bench.code(generation_id) is None
    assert await bench.due() == 1, "the janitor looks again: it may have to wait once more"


async def test_a_holder_ends_its_generation_itself_and_the_janitor_only_if_it_does_not(bench):
    """The holder knows the counts; a worker of a version without deadlines does not know them."""
    generation_id = await bench.ask(deadline_s=10)
    await bench.begin(generation_id)
    meta = keys.meta(generation_id)

    async def sweep_after(seconds):
        now_ms = await bench.store.now_ms()
        await bench.redis.hset(meta, "created", str(now_ms - round(1000 * seconds)))
        await bench.redis.hset(meta, "lease", str(now_ms + 60_000))
        await bench.redis.zadd(keys.due(bench.partitions.of(generation_id)), {generation_id: 1})
        await bench.sweep()
        return await bench.code(generation_id)

    assert await sweep_after(10 + HOLDER_LATE_S / 2) is None
    assert await sweep_after(10 + HOLDER_LATE_S + 1) == "deadline_exceeded"


async def test_a_generation_whose_worker_is_lost_ends_at_its_deadline(bench):
    generation_id = await bench.ask(deadline_s=60)
    await bench.begin(generation_id)
    await bench.pass_s(generation_id, 61)

    await bench.sweep()

    assert await bench.code(generation_id) == "deadline_exceeded"


async def test_a_prompt_whose_entry_in_the_index_was_lost_ends_a_little_later(bench):
    generation_id = await bench.ask(deadline_s=3)
    await bench.redis.delete(keys.due(bench.partitions.of(generation_id)))
    await bench.pass_s(generation_id, RESTORE_WITHIN_S + 1)

    await bench.sweep()

    assert await bench.code(generation_id) == "deadline_exceeded"


async def test_an_absent_or_ended_generation_leaves_the_index(bench):
    gone, ended = await bench.ask(deadline_s=60), await bench.ask(deadline_s=60)
    await bench.redis.delete(keys.meta(gone))
    await cancel(bench.store, ended)
    assert await bench.due() == 1
    await end_hopeless(bench.store, [gone, ended, "gen_never_there"])

    assert await bench.due() == 0


@pytest.mark.parametrize("late_s", [2, RESTORE_WITHIN_S - 4])
async def test_a_producer_that_is_created_late_ends_without_a_lease(bench, monkeypatch, late_s):
    """The janitor looks between the note in the index and the creation."""
    monkeypatch.setattr(time_limits, "SPARE_S", 0.001)
    create = bench.store.create_charged

    async def create_late(generation_id, *args, **options):
        await bench.pass_s(generation_id, LEASE_S + late_s)
        await bench.sweep()
        return await create(generation_id, *args, **options)

    monkeypatch.setattr(bench.store, "create_charged", create_late)
    generation_id = await bench.ask(producer=ProducerTerms(LEASE_S, "token"))
    await begin_producing(bench.store, generation_id, "token", is_first=True)
    await bench.pass_s(generation_id, LEASE_S + 1)

    async def is_lost():
        await bench.sweep()
        return await bench.code(generation_id) == "producer_lost"

    await until(is_lost, 5, "two looks that find no lease")
    assert await bench.due() == 0


async def silent_producer(bench, **limits):
    """A generation whose producer writes nothing, and has a lease of ten minutes."""
    generation_id = await bench.ask(producer=ProducerTerms(600.0, "token"), **limits)
    await begin_producing(bench.store, generation_id, "token", is_first=True)
    return generation_id


async def test_the_deadline_ends_the_generation_of_a_silent_producer(bench):
    generation_id = await silent_producer(bench, deadline_s=10.0)
    await bench.pass_s(generation_id, 5)
    await bench.sweep()
    assert await bench.code(generation_id) is None

    await bench.pass_s(generation_id, 5.5)
    await bench.sweep()

    assert await bench.code(generation_id) == "deadline_exceeded"
    assert await bench.due() == 0


async def test_a_grace_ends_the_generation_of_a_silent_producer(bench):
    generation_id = await silent_producer(bench, grace_s=0.0)
    await bench.store.attach_readers(generation_id, "node")
    for _ in range(2):  # a further look follows a second after each
        await bench.pass_s(generation_id, 1.5)
        await bench.sweep()
    assert await bench.code(generation_id) is None

    await bench.store.detach_readers(generation_id, "node")
    await bench.pass_s(generation_id, 1.5)

    async def is_cancelled():
        await bench.sweep()
        return await bench.code(generation_id) == "cancelled"

    await until(is_cancelled, 5, "the end of the grace")
    assert await bench.due() == 0


async def test_a_producer_that_is_never_created_leaves_the_index(bench, monkeypatch):
    async def fail(*_, **__):
        raise Unavailable("away")

    monkeypatch.setattr(bench.store, "create_charged", fail)
    with pytest.raises(Unavailable):
        await bench.ask(producer=ProducerTerms(LEASE_S, "token"))
    assert await bench.due() == 1
    for tag in bench.partitions.tags:
        for member in await bench.redis.zrange(keys.due(tag), 0, -1):
            await bench.pass_s(member.decode(), LEASE_S + RESTORE_WITHIN_S + 1)
    await bench.sweep()

    assert await bench.due() == 0


async def test_an_ended_prompt_costs_its_owner_no_turn(bench):
    queue = Queue(bench.redis, "worker")
    await queue.ensure_groups()
    first, second, third = [await bench.ask(queue_wait_s=wait_s) for wait_s in (90, 2, 90)]
    await bench.pass_s(second, 3)

    await bench.sweep()

    found = await queue.read("interactive", 9)
    await advance(queue.scripts, found)
    found += await queue.read("interactive", 9)
    assert [delivery.ticket.id for delivery in found] == [first, third]


async def test_lines_of_a_batch_have_deadlines(bench):
    new = NewGeneration(
        "a", "demo", b'{"messages":[]}', priority="batch", wait_s=LONG_S,
        time_limits=TimeLimits(deadline_s=5),
    )  # fmt: skip
    await bench.acceptor.accept_lines([("gen_line00000000", new)], is_repeat=False)
    assert await bench.due() == 1
    await bench.pass_s("gen_line00000000", 6)

    await bench.sweep()

    assert await bench.code("gen_line00000000") == "deadline_exceeded"


# Readers


@pytest.mark.parametrize("priority", keys.PRIORITIES)
async def test_a_waiting_prompt_ends_when_its_readers_have_been_gone_for_its_grace(bench, priority):
    generation_id = await bench.ask(grace_s=2.0, priority=priority)
    await bench.store.attach_readers(generation_id, "node")
    await bench.store.detach_readers(generation_id, "node")
    await bench.redis.zincrby(keys.readers(generation_id), -3_000, "node")
    index = keys.waiting(priority, bench.partitions.of(generation_id))
    await bench.redis.zincrby(index, -1000 * (RESTORE_WITHIN_S + 1), generation_id)

    await bench.sweep()

    assert await bench.code(generation_id) == "cancelled"


async def test_a_waiting_prompt_with_a_reader_goes_on_waiting(bench):
    generation_id = await bench.ask(grace_s=0.0)
    await bench.store.attach_readers(generation_id, "node")
    index = keys.waiting("interactive", bench.partitions.of(generation_id))
    await bench.redis.zincrby(index, -1000 * (RESTORE_WITHIN_S + 1), generation_id)

    await bench.sweep()

    assert await bench.code(generation_id) is None


# Begin


@pytest.mark.parametrize(
    ("limits", "code"),
    [({"queue_wait_s": 2}, "queue_timeout"), ({"deadline_s": 2}, "deadline_exceeded")],
)
async def test_no_worker_begins_a_prompt_whose_time_is_over(bench, limits, code):
    generation_id = await bench.ask(**limits)
    await bench.pass_s(generation_id, 3)

    assert isinstance(await bench.begin(generation_id), Ended)

    assert await bench.code(generation_id) == code
    assert await types_of(bench.store, generation_id) == ["end"]


async def test_a_prompt_in_time_begins_and_may_be_taken_over(bench):
    generation_id = await bench.ask(queue_wait_s=10, deadline_s=60)
    assert isinstance(await bench.begin(generation_id), Begun)
    await bench.pass_s(generation_id, 20)

    assert isinstance(await bench.begin(generation_id, "other"), Begun)


async def test_no_worker_takes_over_after_the_deadline_and_the_text_stays(bench):
    generation_id = await bench.ask(deadline_s=60)
    await bench.begin(generation_id)
    await bench.pass_s(generation_id, 61)

    assert isinstance(await bench.begin(generation_id, "other"), Ended)

    assert await bench.code(generation_id) == "deadline_exceeded"
    assert await types_of(bench.store, generation_id) == ["start", "end"]


async def test_each_wait_has_its_own_time(bench):
    """After a drain or a failure the prompt waits again, from then on."""
    generation_id = await bench.ask(queue_wait_s=10)
    begun = await bench.begin(generation_id)
    await bench.pass_s(generation_id, 20)
    await bench.store.release(generation_id, "mine", begun.start[0].attempt, has_failed=False)

    await end_hopeless(bench.store, [generation_id])

    assert await bench.code(generation_id) is None


def test_the_longest_limit_fits_into_a_script():
    assert msgspec.json.decode(msgspec.json.encode(TIME_LIMIT_S_MAX)) * 1000 < 2**53


async def test_an_owner_whose_shard_is_away_keeps_only_its_own_generations_in_the_index(
    redis, monkeypatch
):
    """Its records are written when the shard is back; until then the index leads to it."""
    bench = Bench(redis)
    first, second = [await bench.ask(queue_wait_s=1) for _ in range(2)]
    forget = time_limits.forget

    async def forget_second(store, generation_id):
        if generation_id == first:
            raise Unavailable("Redis refuses: the shard does not answer")
        await forget(store, generation_id)

    with monkeypatch.context() as patch:
        patch.setattr(time_limits, "forget", forget_second)
        patch.setattr(time_limits, "is_partly_away", lambda _: True)
        for generation_id in (first, second):
            await bench.pass_s(generation_id, LONG_S)
        await end_hopeless(bench.store, [first, second])

    assert await redis.zrange(keys.due(), 0, -1) == [first.encode()]
    await end_hopeless(bench.store, [first])
    assert not await redis.zcard(keys.due())
