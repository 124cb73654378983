"""Acceptance: once per key; a repeat completes the steps after any crash."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from shared.config.settings import Settings
from shared.errors import RequestError, Unavailable
from shared.log.ids import is_generation_id
from shared.log.store import Store
from shared.queue import accept
from shared.queue.accept import Acceptor, NewGeneration
from shared.queue.endings import CANCELLED, cancel
from shared.queue.lanes import LaneEntry, Queue
from shared.queue.overview import owner_ids, queue_depths, session_ids
from shared.queue.turns import advance
from shared.redis import keys
from shared.redis.connections import connect
from tests.support.generation import Holder, store_on

NEW = NewGeneration(
    owner="alice",
    model="demo",
    request=b'{"messages":[]}',
    session="chat",
    metadata=b'{"a":1}',
    idempotency_key="key-1",
    body_digest="digest-1",
)
WITHOUT_KEY = dataclasses.replace(NEW, idempotency_key="", body_digest="")


def acceptor_on(redis, **settings):
    store = store_on(redis, **settings)
    return Acceptor(redis, store, store.settings)


@pytest.fixture(autouse=True)
def first_requests_take_no_time(monkeypatch):
    monkeypatch.setattr(accept, "FIRST_REQUEST_S", 0.05)


@pytest.fixture
def acceptor(redis):
    return acceptor_on(redis)


async def tickets(redis, lane="interactive"):
    """Read all entries of a lane, also those that wait in the lines of their owners."""
    queue, found = Queue(redis, "worker"), []
    await queue.ensure_groups()
    while deliveries := await queue.read(lane, 99):
        found += [delivery.ticket for delivery in deliveries]
        await advance(queue.scripts, deliveries)
    return found


async def test_acceptance_in_one_round_trip_gives_the_same_generation(acceptor, redis):
    """From the second prompt on: the first reply shows that the queue is far from full."""
    first = await acceptor.accept(WITHOUT_KEY)
    second = await acceptor.accept(dataclasses.replace(WITHOUT_KEY, grace_s=2.5))

    assert (first.meta, second.is_new, second.status) == (None, True, "queued")
    assert second.meta == await acceptor.store.meta(second.generation_id)
    assert [ticket.id for ticket in await tickets(redis)] == [
        first.generation_id,
        second.generation_id,
    ]
    # Both may have been created in one millisecond: then the ids decide their order.
    assert set(await owner_ids(redis, "alice", 9)) == {first.generation_id, second.generation_id}


async def test_no_prompt_is_lost_if_the_queue_fills_between_two_checks(redis):
    acceptor = acceptor_on(redis, queue_max=150)
    await acceptor.accept(WITHOUT_KEY)
    await redis.zadd(keys.waiting("interactive"), {f"gen_{n:026}": 1 for n in range(150)})

    accepted = await acceptor.accept(WITHOUT_KEY)

    assert accepted.generation_id in [ticket.id for ticket in await tickets(redis)]
    with pytest.raises(RequestError, match="150 prompts wait"):
        await acceptor.accept(WITHOUT_KEY)


async def test_an_accepted_prompt_has_an_entry_and_meta(acceptor):
    accepted = await acceptor.accept(WITHOUT_KEY)

    assert is_generation_id(accepted.generation_id)
    assert (accepted.is_new, accepted.status) == (True, "queued")
    meta = await acceptor.store.with_request(await acceptor.store.meta(accepted.generation_id))
    assert meta.created_at_ms == accepted.created_at_ms
    assert (meta.owner, meta.session, meta.model) == ("alice", "chat", "demo")
    assert (meta.request, meta.metadata, meta.priority) == (
        NEW.request,
        NEW.metadata,
        "interactive",
    )
    assert meta.grace_s is None
    assert await tickets(acceptor.redis) == [
        LaneEntry(1, accepted.generation_id, "interactive", "demo", owner=keys.digest_of("alice"))
    ]
    assert (await queue_depths(acceptor.store))["interactive"] == 1


@pytest.mark.parametrize("grace_s", [0, 0.5, 5.0])
async def test_the_grace_is_stored(acceptor, grace_s):
    accepted = await acceptor.accept(dataclasses.replace(WITHOUT_KEY, grace_s=grace_s))

    assert (await acceptor.store.meta(accepted.generation_id)).grace_s == grace_s


async def test_batch_has_its_own_lane_and_index(acceptor):
    accepted = await acceptor.accept(dataclasses.replace(WITHOUT_KEY, priority="batch"))

    assert await tickets(acceptor.redis, "interactive") == []
    assert [ticket.id for ticket in await tickets(acceptor.redis, "batch")] == [
        accepted.generation_id
    ]
    depths = await queue_depths(acceptor.store)
    assert (depths["interactive"], depths["batch"]) == (0, 1)


async def test_without_a_key_every_prompt_is_new(acceptor):
    first = await acceptor.accept(WITHOUT_KEY)
    second = await acceptor.accept(WITHOUT_KEY)

    assert first.generation_id != second.generation_id
    assert first.is_new and second.is_new


async def test_the_same_key_and_body_are_the_same_generation(acceptor):
    first = await acceptor.accept(NEW)

    again = await acceptor.accept(NEW)

    assert again == dataclasses.replace(first, is_new=False)
    assert len(await tickets(acceptor.redis)) == 1, "no second entry"


async def test_a_repeat_returns_the_present_status(acceptor):
    first = await acceptor.accept(NEW)
    await Holder.begin(acceptor.store, "t", first.generation_id)
    assert (await acceptor.accept(NEW)).status == "running"

    await acceptor.store.close(first.generation_id, CANCELLED)

    assert (await acceptor.accept(NEW)).status == "cancelled"


async def test_the_same_key_with_another_body_is_refused(acceptor):
    await acceptor.accept(NEW)

    with pytest.raises(RequestError) as refused:
        await acceptor.accept(dataclasses.replace(NEW, body_digest="digest-2"))

    assert (refused.value.status, refused.value.code) == (422, "idempotency_mismatch")
    assert len(await owner_ids(acceptor.redis, "alice", 99)) == 1


async def test_keys_are_per_owner(acceptor):
    first = await acceptor.accept(NEW)
    second = await acceptor.accept(dataclasses.replace(NEW, owner="bob"))

    assert first.generation_id != second.generation_id


async def test_the_key_is_kept_as_long_as_its_generation(acceptor):
    accepted = await acceptor.accept(NEW)
    key = keys.idempotency("alice", "key-1")
    settings = acceptor.settings
    longest_ms = 1000 * (settings.generation_s_max + settings.retention_s)
    assert longest_ms - 60_000 < await acceptor.redis.pttl(key) <= longest_ms

    await cancel(acceptor.store, accepted.generation_id)

    meta_ms = await acceptor.redis.pttl(keys.meta(accepted.generation_id))
    assert meta_ms - 60_000 < await acceptor.redis.pttl(key) < meta_ms


async def test_a_repeat_waits_for_the_first_request_of_its_key(acceptor, monkeypatch):
    """As if the same request had come to two nodes at once."""
    reserving, going_on = asyncio.Event(), asyncio.Event()
    other = Acceptor(acceptor.redis, acceptor.store, acceptor.settings)
    enqueue = acceptor._enqueue

    async def wait(*args):
        reserving.set()
        await going_on.wait()
        await enqueue(*args)

    async def look(_):
        going_on.set()
        await first

    monkeypatch.setattr(acceptor, "_enqueue", wait)
    first = asyncio.ensure_future(acceptor.accept(NEW))
    await reserving.wait()
    monkeypatch.setattr("shared.queue.accept.asyncio.sleep", look)

    second = await other.accept(NEW)

    assert second.generation_id == (await first).generation_id
    assert ((await first).is_new, second.is_new) == (True, False)
    assert len(await tickets(acceptor.redis)) == 1


# Crashes between the steps


def break_step(acceptor, monkeypatch, step):
    """Make the next call of this step fail before it has an effect."""
    owner, name = {
        "enqueue": (acceptor, "_enqueue"),
        "create": (acceptor.store, "create_charged"),
        "index": (acceptor, "_index"),
    }[step]

    async def crash(*args, **kwargs):
        monkeypatch.undo()
        raise Unavailable("the connection broke")

    monkeypatch.setattr(owner, name, crash)


@pytest.mark.parametrize("step", ["enqueue", "create", "index"])
async def test_a_repeat_completes_the_steps_after_a_crash(acceptor, monkeypatch, step):
    break_step(acceptor, monkeypatch, step)
    with pytest.raises(Unavailable):
        await acceptor.accept(NEW)
    assert await owner_ids(acceptor.redis, "alice", 9) == []

    healed = await acceptor.accept(NEW)

    assert (healed.is_new, healed.status) == (step != "index", "queued")
    meta = await acceptor.store.meta(healed.generation_id)
    assert (await acceptor.store.with_request(meta)).request == NEW.request
    found = await tickets(acceptor.redis)
    assert {ticket.id for ticket in found} == {healed.generation_id}
    assert await owner_ids(acceptor.redis, "alice", 9) == [healed.generation_id]
    assert await session_ids(acceptor.redis, "alice", "chat", 9) == [healed.generation_id]
    assert (await acceptor.accept(NEW)).generation_id == healed.generation_id
    assert (await queue_depths(acceptor.store))["interactive"] == 1, "it waits once"


async def end_history(acceptor):
    """As if the key had been reserved before Redis lost data."""
    key = keys.idempotency("alice", "key-1")
    request, _, _ = (await acceptor.redis.get(key)).partition(b"\n")
    await acceptor.redis.set(key, request + b"\nearlier", keepttl=True)


@pytest.mark.parametrize("step", ["enqueue", "create"])
async def test_a_repeat_after_a_loss_marks_its_create_as_possibly_lost(acceptor, monkeypatch, step):
    break_step(acceptor, monkeypatch, step)
    with pytest.raises(Unavailable):
        await acceptor.accept(NEW)
    await end_history(acceptor)

    healed = await acceptor.accept(NEW)

    assert await acceptor.redis.hget(keys.meta(healed.generation_id), "hist") == b"lost"


@pytest.mark.parametrize("step", ["enqueue", "create"])
async def test_a_repeat_in_the_same_history_begins_with_attempt_1(real_redis, monkeypatch, step):
    """Nothing can have been lost: the first request was refused, or its node died."""
    acceptor = acceptor_on(real_redis)
    break_step(acceptor, monkeypatch, step)
    with pytest.raises(Unavailable):
        await acceptor.accept(NEW)

    healed = await acceptor.accept(NEW)

    assert (await Holder.begin(acceptor.store, "t", healed.generation_id)).attempt == 1


async def test_a_repeat_after_the_retention_may_follow_a_forgotten_generation(real_redis):
    acceptor = acceptor_on(real_redis, retention_s=60.0)
    first = await acceptor.accept(NEW)
    await real_redis.delete(keys.meta(first.generation_id))
    key = keys.idempotency("alice", "key-1")
    await real_redis.pexpire(key, await real_redis.pttl(key) - 61_000)

    again = await acceptor.accept(NEW)

    assert await real_redis.hget(keys.meta(again.generation_id), "hist") == b"lost"


async def test_a_lost_generation_is_created_again_under_its_id(acceptor):
    first = await acceptor.accept(NEW)
    await acceptor.redis.delete(keys.meta(first.generation_id))
    await end_history(acceptor)

    again = await acceptor.accept(NEW)

    assert again.generation_id == first.generation_id
    before_ms = await acceptor.store.now_ms()
    holder = await Holder.begin(acceptor.store, "t", first.generation_id)
    assert holder.attempt >= before_ms, "numbers that may have been given out are not given again"


async def test_a_key_of_a_sealed_generation_creates_nothing(acceptor):
    first = await acceptor.accept(NEW)
    await acceptor.redis.delete(keys.meta(first.generation_id))
    await acceptor.store.seal(first.generation_id)

    again = await acceptor.accept(NEW)

    assert (again.generation_id, again.is_new, again.status) == (
        first.generation_id,
        False,
        "sealed",
    )


async def test_without_a_key_a_crash_before_meta_accepts_nothing(acceptor, monkeypatch):
    """The entry alone is not a generation: a worker drops it after a while."""
    break_step(acceptor, monkeypatch, "create")

    with pytest.raises(Unavailable):
        await acceptor.accept(WITHOUT_KEY)

    (ticket,) = await tickets(acceptor.redis)
    assert await acceptor.store.meta(ticket.id) is None


async def test_the_entry_comes_before_meta(acceptor, monkeypatch):
    """An accepted prompt has an entry, whichever later step fails."""
    seen = []
    create = acceptor.store.create_charged

    async def look(generation_id, *args, **kwargs):
        seen.append([ticket.id for ticket in await tickets(acceptor.redis)] == [generation_id])
        return await create(generation_id, *args, **kwargs)

    monkeypatch.setattr(acceptor.store, "create_charged", look)

    await acceptor.accept(NEW)

    assert seen == [True]


# A full queue


async def test_a_full_queue_refuses(redis):
    acceptor = acceptor_on(redis, queue_max=2)
    await acceptor.accept(WITHOUT_KEY)
    await acceptor.accept(WITHOUT_KEY)

    with pytest.raises(RequestError) as refused:
        await acceptor.accept(WITHOUT_KEY)

    error = refused.value
    assert (error.status, error.code, error.retryable) == (503, "queue_full", True)
    assert error.retry_after_s > 0
    assert len(await tickets(redis)) == 2
    assert len(await owner_ids(redis, "alice", 9)) == 2


async def test_each_priority_has_its_own_bound(redis):
    acceptor = acceptor_on(redis, queue_max=1)
    await acceptor.accept(WITHOUT_KEY)

    await acceptor.accept(dataclasses.replace(WITHOUT_KEY, priority="batch"))


async def test_a_full_queue_refuses_no_repeat(redis):
    acceptor = acceptor_on(redis, queue_max=1)
    first = await acceptor.accept(NEW)
    assert (await acceptor.accept(NEW)).generation_id == first.generation_id
    await redis.delete(keys.meta(first.generation_id))

    assert (await acceptor.accept(NEW)).status == "queued", "it is among those that wait"


async def test_a_begun_generation_makes_room_in_the_queue(redis):
    acceptor = acceptor_on(redis, queue_max=1)
    await acceptor.accept(WITHOUT_KEY)
    (ticket,) = await tickets(redis)
    await Queue(redis, "worker").note_begun(ticket, 1)

    assert (await acceptor.accept(WITHOUT_KEY)).is_new


async def test_a_refused_prompt_may_be_repeated_with_its_key(redis):
    acceptor = acceptor_on(redis, queue_max=1)
    await acceptor.accept(WITHOUT_KEY)
    with pytest.raises(RequestError):
        await acceptor.accept(NEW)
    (ticket,) = await tickets(redis)
    await Queue(redis, "worker").note_begun(ticket, 1)

    assert (await acceptor.accept(NEW)).status == "queued"


# Indexes


async def test_sessions_and_owners_are_indexed(acceptor):
    first = await acceptor.accept(WITHOUT_KEY)
    other = await acceptor.accept(dataclasses.replace(WITHOUT_KEY, session=""))
    await acceptor.accept(dataclasses.replace(WITHOUT_KEY, owner="bob"))

    assert await session_ids(acceptor.redis, "alice", "chat", 9) == [first.generation_id]
    assert set(await owner_ids(acceptor.redis, "alice", 9)) == {
        first.generation_id,
        other.generation_id,
    }


async def test_without_redis_nothing_is_accepted():
    settings = Settings(redis_url="unix:///nowhere/at/all")
    redis = connect(settings)

    for new in (NEW, WITHOUT_KEY):
        with pytest.raises(Unavailable):
            await Acceptor(redis, Store(redis, settings), settings).accept(new)
