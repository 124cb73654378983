"""The lanes: order, claims, lost groups, and the indexes beside the lanes."""

from __future__ import annotations

import msgspec
import pytest
from redis.exceptions import ResponseError

from shared.log.owner_bytes import SCRIPT, GenerationBytes, ended
from shared.queue.lanes import Delivery, LaneEntry, Queue, decode_entry, encode_entry, put_back
from shared.queue.leaving import forget
from shared.queue.overview import owner_ids, queue_depths, session_ids
from shared.queue.presence import Presence, announce, withdraw, workers_seen
from shared.redis import keys
from tests.support.generation import store_on

TICKET = LaneEntry(1, "gen_0123456789", "interactive", "demo")


@pytest.fixture
async def queue(redis):
    queue = Queue(redis, "worker-1")
    await queue.ensure_groups()
    return queue


def other(queue, name="worker-2"):
    return Queue(queue.redis, name)


async def add(queue, lane, *ids, priority="interactive"):
    for generation_id in ids:
        entry = encode_entry(generation_id, priority, "demo")
        await queue.redis.xadd(keys.lane(lane), {"e": entry})


def ids_of(deliveries):
    return [delivery.ticket.id for delivery in deliveries]


# Entries


def test_an_entry_is_read_back():
    assert decode_entry(encode_entry("gen_x", "batch", "m")) == LaneEntry(1, "gen_x", "batch", "m")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"\xff",
        b"not json",
        b'{"v":2,"id":"gen_x","priority":"batch","model":"m"}',
        b'{"v":1,"id":7,"priority":"batch","model":"m"}',
        b'{"v":1,"id":"gen_x"}',
        b'["v"]',
    ],
)
def test_another_version_or_form_is_not_decoded(raw):
    assert decode_entry(raw) is None


def test_a_newer_field_is_ignored():
    raw = b'{"v":1,"id":"gen_x","priority":"batch","model":"m","hint":"new"}'

    assert decode_entry(raw) == LaneEntry(1, "gen_x", "batch", "m")


# Groups


async def test_groups_are_made_once(queue):
    await queue.ensure_groups()
    await add(queue, "batch", "a")

    await queue.ensure_groups()

    assert ids_of(await queue.read("batch", 9)) == ["a"]


async def test_entries_added_before_the_group_are_delivered(redis):
    queue = Queue(redis, "worker-1")
    await add(queue, "interactive", "a")

    await queue.ensure_groups()

    assert ids_of(await queue.read("interactive", 9)) == ["a"]


@pytest.mark.parametrize("call", ["read", "claim"])
async def test_groups_come_back_after_redis_came_back_empty(queue, call):
    await queue.redis.flushall()
    await add(queue, "interactive", "a")

    found = queue.read("interactive", 1) if call == "read" else queue.claim("interactive", 0, 1)

    assert await found == []
    assert ids_of(await queue.read("interactive", 1)) == ["a"]


async def test_groups_come_back_under_a_blocked_read(real_redis):
    """The fake has another text for this error."""
    queue = Queue(real_redis, "worker-1")

    assert await queue.wait(keys.LANES, 10) == []

    await add(queue, "interactive", "a")
    assert ids_of(await queue.wait(keys.LANES, 10)) == ["a"]


# Reading


async def test_a_lane_is_read_in_order_and_up_to_count(queue):
    await add(queue, "interactive", "a", "b", "c")

    assert ids_of(await queue.read("interactive", 2)) == ["a", "b"]
    assert ids_of(await queue.read("interactive", 2)) == ["c"]
    assert await queue.read("interactive", 2) == []


async def test_a_read_is_of_one_lane_only(queue):
    await add(queue, "interactive", "a", "b")
    await add(queue, "batch", "c")

    (found,) = await queue.read("batch", 9)

    assert (found.lane, found.ticket.id, found.is_claimed) == ("batch", "c", False)


async def test_an_entry_is_delivered_to_one_consumer(queue):
    await add(queue, "interactive", "a", "b")

    assert ids_of(await queue.read("interactive", 1)) == ["a"]
    assert ids_of(await other(queue).read("interactive", 9)) == ["b"]


async def test_a_wait_gives_at_most_one_of_each_lane(queue):
    for lane in keys.LANES:
        await add(queue, lane, f"{lane}-1", f"{lane}-2")

    found = await queue.wait(keys.LANES, 10)

    assert sorted(ids_of(found)) == ["batch-1", "interactive-1", "resume-1"]
    assert {delivery.lane: delivery.ticket.id for delivery in found} == {
        lane: f"{lane}-1" for lane in keys.LANES
    }


async def test_a_wait_times_out(queue):
    assert await queue.wait(keys.LANES, 5) == []


async def test_an_unknown_version_is_delivered_without_a_ticket(queue):
    await queue.redis.xadd(keys.lane("batch"), {"e": b'{"v":2}'})
    await queue.redis.xadd(keys.lane("batch"), {"other": b"field"})

    assert [delivery.ticket for delivery in await queue.read("batch", 9)] == [None, None]


# Keeping and taking over


async def test_an_acknowledged_entry_is_deleted(queue):
    await add(queue, "interactive", "a")
    (delivery,) = await queue.read("interactive", 1)

    await queue.acknowledge(delivery)
    await queue.acknowledge(delivery)

    assert await queue.redis.xlen(keys.lane("interactive")) == 0
    assert await other(queue).claim("interactive", 0, 9) == []


async def test_a_silent_consumers_entries_are_claimed(queue):
    await add(queue, "interactive", "a", "b")
    await queue.read("interactive", 9)

    found = await other(queue).claim("interactive", 0, 9)

    assert ids_of(found) == ["a", "b"]
    assert all(delivery.is_claimed for delivery in found)


async def test_no_entry_is_claimed_before_its_idle_time(queue):
    await add(queue, "interactive", "a")
    await queue.read("interactive", 9)

    assert await other(queue).claim("interactive", 60_000, 9) == []


async def make_idle(queue, lane, entry_ids, idle_ms):
    """Set the idle time of worker-1's entries."""
    for at in range(0, len(entry_ids), 1_000):
        await queue.redis.xclaim(
            keys.lane(lane),
            keys.GROUP,
            "worker-1",
            0,
            entry_ids[at : at + 1_000],
            idle=idle_ms,
            justid=True,
        )


async def test_a_claim_walks_to_the_end_of_a_long_list(queue):
    """XAUTOCLAIM looks at ten times COUNT entries: one dead entry behind many living ones."""
    await add(queue, "interactive", *(f"gen{n}" for n in range(300)))
    deliveries = await queue.read("interactive", 300)
    await make_idle(queue, "interactive", [deliveries[-1].entry_id], 60_000)

    found = await other(queue).claim("interactive", 30_000, 1)

    assert ids_of(found) == ["gen299"]


async def test_a_claim_never_takes_more_than_asked_for(queue):
    """Several steps of the walk together must not return more."""
    await add(queue, "interactive", *(f"gen{n}" for n in range(200)))
    deliveries = await queue.read("interactive", 200)
    # Two in the first step's reach, the rest behind it.
    dead = [d.entry_id for n, d in enumerate(deliveries) if n in (3, 7) or n > 100]
    await make_idle(queue, "interactive", dead, 60_000)

    found = await other(queue).claim("interactive", 30_000, 5)

    assert ids_of(found) == ["gen3", "gen7", "gen101", "gen102", "gen103"]


async def test_entries_that_were_deleted_are_not_claimed(queue):
    await add(queue, "interactive", "a", "b")
    first, _ = await queue.read("interactive", 9)
    await queue.redis.xdel(keys.lane("interactive"), first.entry_id)

    assert ids_of(await other(queue).claim("interactive", 0, 9)) == ["b"]


async def test_renewal_keeps_entries_from_being_claimed(queue):
    await add(queue, "interactive", "a", "b")
    mine, lost = await queue.read("interactive", 9)
    await make_idle(queue, "interactive", [mine.entry_id, lost.entry_id], 60_000)

    await queue.renew({keys.lane("interactive"): [mine.entry_id], keys.lane("batch"): []})

    assert ids_of(await other(queue).claim("interactive", 30_000, 9)) == ["b"]


async def test_renewal_counts_no_delivery(queue):
    await add(queue, "interactive", "a")
    (mine,) = await queue.read("interactive", 9)

    await queue.renew({mine.stream: [mine.entry_id]})

    (pending,) = await queue.redis.xpending_range(keys.lane("interactive"), keys.GROUP, "-", "+", 9)
    assert pending["times_delivered"] == 1


async def test_renewal_does_not_restore_entries(queue):
    """Acknowledged or lost entries stay deleted."""
    await add(queue, "interactive", "a")
    (mine,) = await queue.read("interactive", 9)
    await queue.acknowledge(mine)

    await queue.renew({mine.stream: [mine.entry_id]})
    await queue.redis.flushall()
    await queue.renew({mine.stream: [mine.entry_id]})

    assert await queue.redis.dbsize() == 0


# Beside the lanes


async def test_a_begun_generation_does_not_wait(queue):
    await queue.redis.zadd(keys.waiting("interactive"), {TICKET.id: 5})

    await queue.note_begun(TICKET, 7)

    assert await queue_depths(store_on(queue.redis)) == {
        "interactive": 0,
        "batch": 0,
        "running": 1,
        "later": 0,
    }
    assert await queue.redis.zscore(keys.running(), TICKET.id) == 7


async def test_running_generations_are_recorded_again(queue):
    await queue.note_running([], 5)
    assert await queue.redis.zcard(keys.running()) == 0

    await queue.note_running(["a", "b"], 5)

    assert await queue.redis.zrange(keys.running(), 0, -1) == [b"a", b"b"]


async def test_a_postponed_entry_waits_in_later_until_it_is_due(queue):
    store = store_on(queue.redis)
    lanes = [keys.later(), keys.lane("resume")]
    await queue.note_begun(TICKET, 7)
    await queue.try_later(TICKET, await store.now_ms() + 60_000)

    assert await store.scripts.run("later", lanes, [10]) == 0
    assert await queue.read("resume", 9) == []
    assert await queue_depths(store_on(queue.redis)) == {
        "interactive": 1,
        "batch": 0,
        "running": 0,
        "later": 1,
    }

    await queue.try_later(TICKET, await store.now_ms() - 1)
    assert await store.scripts.run("later", lanes, [10]) == 1

    assert [delivery.ticket for delivery in await queue.read("resume", 9)] == [TICKET]
    assert (await queue_depths(store_on(queue.redis)))["later"] == 0


async def test_the_earliest_due_entries_are_moved_up_to_a_limit(queue):
    store = store_on(queue.redis)
    for n in range(5):
        await queue.try_later(LaneEntry(1, f"gen{n}", "batch", "demo"), 1_000 - n)

    assert await store.scripts.run("later", [keys.later(), keys.lane("resume")], [3]) == 3

    assert ids_of(await queue.read("resume", 9)) == ["gen4", "gen3", "gen2"]


async def test_a_requeued_generation_is_on_resume_and_waits(queue):
    await put_back(store_on(queue.redis), "gen_x", "batch", "demo")

    (found,) = await queue.read("resume", 9)
    assert found.ticket == LaneEntry(1, "gen_x", "batch", "demo")
    assert (await queue_depths(store_on(queue.redis)))["batch"] == 1


async def test_a_generation_requeued_twice_keeps_its_first_waiting_time(queue):
    await queue.redis.zadd(keys.waiting("batch"), {"gen_x": 5})

    await put_back(store_on(queue.redis), "gen_x", "batch", "demo")

    assert await queue.redis.zscore(keys.waiting("batch"), "gen_x") == 5


async def test_workers_are_seen_until_they_withdraw(queue):
    mine = Presence("worker-1", 5, 100, 3, False, {"generations": 7.0})
    yours = msgspec.structs.replace(mine, worker="worker-2", draining=True)
    await announce(queue.redis, msgspec.structs.replace(mine, at_ms=4))
    await announce(queue.redis, mine)
    await announce(queue.redis, yours)

    assert sorted(await workers_seen(queue.redis), key=lambda p: p.worker) == [mine, yours]

    await withdraw(queue.redis, mine.worker)

    assert await workers_seen(queue.redis) == [yours]


async def test_generations_are_listed_newest_first(redis):
    await redis.zadd(keys.session("alice", "chat"), {"a": 1, "b": 3, "c": 2})
    await redis.zadd(keys.owner("alice"), {"a": 1, "d": 9})

    assert await session_ids(redis, "alice", "chat", 9) == ["b", "c", "a"]
    assert await session_ids(redis, "alice", "chat", 2) == ["b", "c"]
    assert await session_ids(redis, "alice", "chat", 9, before_ms=3) == ["c", "a"]
    assert await session_ids(redis, "bob", "chat", 9) == []
    assert await owner_ids(redis, "alice", 9) == ["d", "a"]


async def test_forgetting_shortens_the_idempotency_key(redis):
    await redis.set("tr:idem:x", "1", px=10_000_000)
    await redis.hset(keys.meta(TICKET.id), "idem", "tr:idem:x")
    for index in (keys.running(), keys.waiting("interactive"), keys.waiting("batch")):
        await redis.zadd(index, {TICKET.id: 1, "gen_other": 1})

    await forget(store_on(redis, retention_s=60.0), TICKET.id)

    assert 100_000 < await redis.pttl("tr:idem:x") <= 119_000, "never longer than its meta"
    for index in (keys.running(), keys.waiting("interactive"), keys.waiting("batch")):
        assert await redis.zrange(index, 0, -1) == [b"gen_other"]


def test_clients_names_are_not_in_keys():
    """No braces, no odd bytes, no names of other owners."""
    for key in (
        keys.session("a{b}", "\ud800\n"),
        keys.owner("x" * 1000),
        keys.idempotency("a", "b c"),
    ):
        assert key.isascii() and key.isprintable() and "{" not in key and len(key) < 60


async def test_a_record_that_a_moving_slot_refuses_is_written_in_a_further_round_trip(
    queue, monkeypatch
):
    run, refusals = queue.pipeline.run, [ResponseError("TRYAGAIN Multiple keys request")]
    size = GenerationBytes("alice", TICKET.id, 5, 7)
    call = SCRIPT, ended(size, 10_000)
    refused = await queue.scripts.command(*call)

    async def refuse_once(commands):
        if not refusals or refused not in commands:
            return await run(commands)
        place = commands.index(refused)
        replies = await run([*commands[:place], *commands[place + 1 :]])
        return [*replies[:place], refusals.pop(), *replies[place:]]

    monkeypatch.setattr(queue.pipeline, "run", refuse_once)
    delivery = Delivery("interactive", b"1-1", TICKET)

    await queue.leave(delivery, TICKET.id, 10_000, [call], fields={})

    assert not refusals
    assert await queue.redis.hexists(keys.owner_bytes("alice"), TICKET.id)
