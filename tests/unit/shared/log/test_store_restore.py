"""Restore: the holder writes again what Redis has lost."""

from __future__ import annotations

import pytest

from shared.log.ids import START
from shared.log.records import (
    Ended,
    Fenced,
    Moved,
    Ok,
)
from shared.queue.endings import CANCELLED
from tests.support.generation import (
    ID,
    Holder,
    log_of,
    lose,
    lose_tail,
    types_of,
)
from tests.unit.shared.log.store_scene import field, set_field


async def test_restore_writes_a_lost_tail_again(store):
    holder = await Holder.begin(store)
    await holder.say("a", "b", "c")
    log = await log_of(store)
    await lose_tail(store, keep=2)

    assert await holder.restore(log[1][0], *log[2:], with_fields=False) == Ok()

    assert await log_of(store) == log
    assert await field(store, "hist") == b"lost"
    assert (await store.meta(ID)).lease_ms > await store.now_ms()


async def test_restore_writes_a_lost_log_and_meta_again(store):
    holder = await Holder.begin(store)
    await holder.say("a")
    log, meta = await log_of(store), await store.meta(ID)
    await lose(store)

    assert await holder.restore(START, *log) == Ok()

    assert await log_of(store) == log
    again = await store.meta(ID)
    for name in ("status", "owner", "session", "model", "request", "created_at_ms", "attempt"):
        assert getattr(again, name) == getattr(meta, name), name
    assert again.waiting_since_ms == 0
    assert await holder.say("b", after=2) == Ok()


async def test_restore_can_be_split_into_calls(store):
    holder = await Holder.begin(store)
    await holder.say(*"abcdef")
    log = await log_of(store)
    await lose(store)

    assert await holder.restore(START, *log[:3]) == Ok()
    assert await holder.restore(log[2][0], *log[3:], with_fields=False) == Ok()

    assert await log_of(store) == log
    assert (await store.meta(ID)).owner == "alice"


async def test_restore_does_not_overwrite_existing_meta(store):
    holder = await Holder.begin(store)
    log = await log_of(store)
    await lose_tail(store, keep=0)
    await set_field(store, "session", "another")

    assert await holder.restore(START, *log) == Ok()

    assert (await store.meta(ID)).session == "another"


async def test_restore_on_another_top_returns_moved_with_the_real_top(store):
    holder = await Holder.begin(store)
    await holder.say("a", "b")
    log = await log_of(store)
    await lose_tail(store, keep=2)
    before = await log_of(store)

    assert await holder.restore(START, *log) == Moved(log[1][0])
    assert await holder.restore(log[2][0]) == Moved(log[1][0])
    assert await log_of(store) == before


@pytest.mark.parametrize("above", [0, 1])
async def test_restore_is_fenced_by_an_equal_or_higher_attempt(store, above):
    holder = await Holder.begin(store)
    await holder.say("a")
    log = await log_of(store)
    await lose_tail(store, keep=1)
    await set_field(store, "token", "another")
    await set_field(store, "attempt", str(holder.attempt + above))

    assert await holder.restore(log[0][0], *log[1:]) == Fenced()
    assert await types_of(store) == ["start"]


async def test_restore_takes_over_from_an_older_attempt(store):
    """Another worker may have begun on an earlier state of Redis, under a lower attempt."""
    holder = await Holder.begin(store)
    await set_field(store, "attempt", str(holder.attempt - 1))
    await set_field(store, "token", "older")

    assert await holder.restore(holder.begun.start[0]) == Ok()

    assert await field(store, "token") == b"mine"
    assert (await store.meta(ID)).attempt == holder.attempt


async def test_restore_never_writes_after_the_end_or_a_seal(store):
    holder = await Holder.begin(store)
    log = await log_of(store)
    await store.close(ID, CANCELLED)
    assert await holder.restore((await log_of(store))[-1][0], *log) == Ended()

    await lose(store)
    assert await store.seal(ID) == "sealed"

    assert await holder.restore(START, *log) == Ended()
    assert await log_of(store) == []


async def test_after_a_restore_the_next_attempt_jumps(store):
    holder = await Holder.begin(store)
    log = await log_of(store)
    await lose(store)
    await holder.restore(START, *log)
    await holder.release()
    before_ms = await store.now_ms()

    begun = await store.begin(ID, "another", "worker")

    assert begun.start[0].attempt >= before_ms
