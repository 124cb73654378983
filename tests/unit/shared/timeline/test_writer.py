"""What the writer of timelines sends, loses and counts, on the fake and on a real server."""

from __future__ import annotations

import pytest

from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.queue.endings import CANCELLED
from shared.redis import keys
from shared.timeline import writer as writer_module
from shared.timeline.moment import Moment
from shared.timeline.story import read_story
from shared.timeline.writer import TimelineWriter
from tests.support.generation import ID, Holder, create, store_on

RETENTION_S = 1_000.0
CONNECTED = Moment("connected", worker="w-1", attempt=1, backend="demo")


@pytest.fixture
async def store(redis):
    store = store_on(redis, retention_s=RETENTION_S)
    await create(store)
    return store


def writer_on(store, **settings):
    clock = [0.0]
    given = {"redis_url": "redis://test", "retention_s": RETENTION_S} | settings
    writer = TimelineWriter(store.redis, Settings(**given), clock=lambda: clock[0])
    return writer, clock


async def story(store, generation_id=ID):
    meta = await store.meta(generation_id)
    return await read_story(store.redis, meta, "q")


async def names(store):
    return [timed.moment.what for timed in await story(store)]


async def test_a_noted_moment_stands_between_acceptance_and_end(store):
    writer, _ = writer_on(store)
    holder = await Holder.begin(store)
    writer.note(ID, CONNECTED)
    await writer.flush()
    await holder.finish("text")

    assert await names(store) == ["accepted", "queued", "connected", "end"]
    assert (writer.written, writer.lost) == (1, 0)


async def test_a_moment_has_the_time_at_which_it_was_noted_and_not_written(store):
    writer, clock = writer_on(store)
    writer.note(ID, CONNECTED)
    clock[0] = 0.5
    before_ms = await store.now_ms()
    await writer.flush()
    after_ms = await store.now_ms()

    (entry,) = await store.redis.xrange(keys.timeline(ID))
    assert before_ms - 500 <= int(entry[1][b"at"]) <= after_ms - 500


async def test_a_moment_keeps_the_time_that_redis_has_given_it(store):
    writer, _ = writer_on(store)
    writer.note(ID, CONNECTED, at_ms=4_000_000_000_000)
    await writer.flush()

    assert (await story(store))[-1].at_ms == 4_000_000_000_000


async def test_moments_of_one_millisecond_stand_in_the_order_of_a_life(store):
    writer, _ = writer_on(store)
    created_ms = (await store.meta(ID)).created_at_ms
    for what in ("first_token", "begun", "connected"):
        writer.note(ID, Moment(what), at_ms=created_ms)
    await writer.flush()

    assert await names(store) == ["accepted", "queued", "begun", "connected", "first_token"]


async def test_a_timeline_expires_with_its_log(store):
    writer, _ = writer_on(store)
    holder = await Holder.begin(store)
    writer.note(ID, CONNECTED)
    await writer.flush()
    unfinished_ms = await store.redis.pttl(keys.timeline(ID))
    await holder.finish()
    writer.note(ID, Moment("attempt_ended"))
    await writer.flush()

    assert unfinished_ms > 2 * RETENTION_S * 1000
    log_ms, timeline_ms = [await store.redis.pttl(key(ID)) for key in (keys.log, keys.timeline)]
    assert log_ms - 5_000 < timeline_ms <= log_ms + 1_000


async def test_a_late_moment_does_not_bring_back_a_deleted_timeline(store):
    writer, _ = writer_on(store)
    writer.note(ID, CONNECTED)
    await writer.flush()
    await store.delete(ID)
    assert not await store.redis.exists(keys.timeline(ID))

    writer.note(ID, Moment("attempt_ended"))
    await writer.flush()

    assert not await store.redis.exists(keys.timeline(ID))


async def test_a_moment_of_an_unknown_or_expired_generation_is_not_kept(store):
    writer, _ = writer_on(store)
    await store.close(ID, CANCELLED)
    await store.redis.delete(keys.log(ID))
    writer.note(ID, CONNECTED)
    writer.note("gen_unknown0", CONNECTED)
    await writer.flush()

    assert not await store.redis.exists(keys.timeline(ID), keys.timeline("gen_unknown0"))


async def test_a_timeline_keeps_a_bounded_number_of_moments(store):
    writer, _ = writer_on(store)
    for _ in range(3 * writer_module.MOMENTS_MAX):
        writer.note(ID, CONNECTED)
    await writer.flush()

    # Redis trims whole nodes of a stream, of 100 entries each.
    assert await store.redis.xlen(keys.timeline(ID)) < writer_module.MOMENTS_MAX + 100


async def test_without_redis_moments_are_lost_and_counted(store, monkeypatch):
    writer, _ = writer_on(store)

    async def refuse(*_):
        raise Unavailable("away")

    monkeypatch.setattr(writer._scripts, "run_many", refuse)
    writer.note(ID, CONNECTED)
    writer.note(ID, CONNECTED)
    await writer.flush()

    assert (writer.written, writer.lost) == (0, 2)


async def test_moments_beyond_the_bound_of_a_process_are_lost_and_counted(store, monkeypatch):
    monkeypatch.setattr(writer_module, "NOTED_MAX", 2)
    writer, _ = writer_on(store)
    for _ in range(3):
        writer.note(ID, CONNECTED)
    await writer.flush()
    writer.note(ID, CONNECTED)
    await writer.flush()

    assert (writer.written, writer.lost) == (3, 1)


async def test_with_the_setting_off_nothing_is_written(store):
    writer, _ = writer_on(store, timeline="off")
    writer.note(ID, CONNECTED)
    await writer.flush()

    assert not writer._is_noted.is_set()
    assert not await store.redis.exists(keys.timeline(ID))
    assert await names(store) == ["accepted", "queued"]


async def test_a_moment_of_a_newer_version_is_left_out(store):
    await store.redis.xadd(keys.timeline(ID), {"at": 1, "e": b'{"what":"teleported"}'})

    assert await names(store) == ["accepted", "queued"]
