"""The frames that the scripts publish on the live channel."""

from __future__ import annotations

import pytest

from shared.log.ids import START
from shared.queue.endings import CANCELLED
from shared.redis import keys
from tests.support.generation import (
    END,
    ID,
    Holder,
    let_lapse,
    log_of,
    lose,
    token,
)
from tests.unit.shared.log.store_scene import next_message


@pytest.fixture
async def live(store):
    async with store.redis.pubsub(ignore_subscribe_messages=True) as heard:
        await heard.subscribe(keys.live(ID))
        await heard.get_message(timeout=1.0)
        yield heard


async def silence(store, heard):
    """Check that nothing was published: the next message is the one published here."""
    await store.publish(keys.live(ID), b"mark")
    assert await next_message(heard) == b"mark"


async def test_a_frame_has_the_id_before_its_first_entry_and_the_bytes_of_the_log(store, live):
    holder = await Holder.begin(store)
    a = holder.attempt
    assert await next_message(live) == f"0-0\n{a}-1 ".encode() + holder.begun.start[1]

    await holder.say("b", "c")
    assert await next_message(live) == (
        f"{a}-1\n{a}-2 ".encode() + token("b") + f"\n{a}-3 ".encode() + token("c")
    )

    await holder.finish("d", after=3)
    assert await next_message(live) == (
        f"{a}-3\n{a}-4 ".encode() + token("d") + f"\n{a}-5 ".encode() + END
    )


async def test_a_partial_resend_publishes_only_new_entries(store, live):
    holder = await Holder.begin(store)
    await holder.say("b")
    await next_message(live)
    await next_message(live)
    a = holder.attempt

    await holder.say("b", "c")

    assert await next_message(live) == f"{a}-2\n{a}-3 ".encode() + token("c")
    await holder.say("b", "c")
    await silence(store, live)


async def test_the_frame_of_a_takeover_follows_the_last_entry_of_the_attempt_before(store, live):
    first = await Holder.begin(store, "first")
    await let_lapse(store)
    second = await Holder.begin(store, "second")

    await next_message(live)
    start_id, raw = second.begun.start

    assert await next_message(live) == f"{first.attempt}-1\n{start_id} ".encode() + raw


async def test_a_repeated_begin_publishes_nothing(store, live):
    await Holder.begin(store)
    await next_message(live)

    await Holder.begin(store)

    await silence(store, live)


async def test_a_close_publishes_the_end(store, live):
    holder = await Holder.begin(store)
    await next_message(live)

    end_id = await store.close(ID, CANCELLED)

    expected = f"{holder.attempt}-1\n{end_id} ".encode() + (await store.meta(ID)).end
    assert await next_message(live) == expected


async def test_a_restore_publishes_only_the_top(store, live):
    holder = await Holder.begin(store)
    await holder.say("a", "b")
    log = await log_of(store)
    await lose(store)
    await next_message(live)
    await next_message(live)

    await holder.restore(START, *log)

    assert await next_message(live) == f"top {log[-1][0]}".encode()
    await silence(store, live)


async def test_refused_calls_publish_nothing(store, live):
    first = await Holder.begin(store, "first")
    await next_message(live)
    await first.release()

    await first.say("a")
    await first.renew()
    await store.begin("gen_nobody00", "mine", "worker")
    await store.seal(ID)

    await silence(store, live)
