"""Reading pages, tops and meta; errors of an absent Redis."""

from __future__ import annotations

import pytest

from shared.config.settings import Settings
from shared.errors import Expired, Unavailable
from shared.log.events import End, Failure, decode
from shared.log.ids import START, EventId
from shared.log.records import (
    Append,
)
from shared.log.store import Store
from shared.queue.endings import CANCELLED, cancel
from shared.queue.requeuing import requeue
from shared.redis import keys
from shared.redis.connections import connect
from tests.support.generation import (
    ID,
    Holder,
    create,
    log_of,
)

# Reading


async def test_a_page_begins_with_the_given_entry(store):
    holder = await Holder.begin(store)
    await holder.say(*"abcdef")
    log = await log_of(store)

    assert await store.page(ID, START, 3) == log[:3]
    assert await store.page(ID, log[2][0], 3) == log[2:5], "inclusive"
    assert await store.page(ID, log[-1][0], 3) == log[-1:]
    assert await store.page(ID, EventId(holder.attempt, 99), 3) == []
    assert await store.page("gen_nobody00", START, 3) == []


async def test_cursors_of_nineteen_digits_are_only_compared(store):
    holder = await Holder.begin(store)
    await holder.say("a")
    huge = 9_999_999_999_999_999_999

    assert await store.page(ID, EventId(huge, huge), 10) == []
    assert await store.page(ID, EventId(holder.attempt, huge), 10) == []
    assert await store.page(ID, EventId(1, huge), 10) in ([], await log_of(store))


async def test_tops_returns_the_states_of_many_in_order(store):
    await create(store, "gen_second00")
    holder = await Holder.begin(store)
    await holder.say("a")

    mine, queued, nobody = await store.tops([ID, "gen_second00", "gen_nobody00"])

    assert (mine.status, mine.id) == ("running", EventId(holder.attempt, 2))
    assert mine.lease_ms > mine.now_ms
    assert mine.waiting_since_ms == 0
    assert (queued.status, queued.id, queued.lease_ms) == ("queued", None, 0)
    assert 0 < queued.waiting_since_ms <= queued.now_ms
    assert (nobody.status, nobody.id) == (None, None)


async def test_meta_holds_the_end_as_written(store):
    end = End("failed", "error", error=Failure("upstream_error", "broken \n \u2028 ü", True))

    await store.close(ID, end)

    assert decode((await store.meta(ID)).end) == end


# Errors


async def test_every_method_raises_unavailable_without_redis():
    settings = Settings(redis_url="unix:///nowhere/at/all")
    store = Store(connect(settings), settings)
    calls = [
        lambda: store.meta(ID),
        lambda: store.metas([ID]),
        lambda: store.page(ID, START, 1),
        lambda: store.tops([ID]),
        lambda: store.now_ms(),
        lambda: store.create(ID, {}, may_be_lost=False),
        lambda: store.begin(ID, "t", "w"),
        lambda: store.append_many([Append(ID, "t", 1, 0, [b"{}"])]),
        lambda: store.renew_many([(ID, "t", 1, False)]),
        lambda: store.restore(ID, "t", 1, START, {}, []),
        lambda: store.release(ID, "t", 1, has_failed=False),
        lambda: store.close(ID, CANCELLED),
        lambda: cancel(store, ID),
        lambda: store.seal(ID),
        lambda: store.attach_readers(ID, "n"),
        lambda: store.detach_readers(ID, "n"),
        lambda: requeue(store, ID, "batch"),
        lambda: store.publish("c", b""),
    ]
    for call in calls:
        with pytest.raises(Unavailable):
            await call()


async def test_a_cancel_after_the_log_expired_raises_expired(store):
    await cancel(store, ID)
    await store.redis.delete(keys.log(ID))  # its retention is over; meta stays as long again

    with pytest.raises(Expired):
        await cancel(store, ID)
