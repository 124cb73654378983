"""A cancel stops the backend, whichever way the worker learns of the cancel."""

from __future__ import annotations

import asyncio

import pytest

from shared.queue.endings import CANCELLED, cancel
from shared.redis import keys
from tests.support.plays import (
    LONG_S,
    says,
    says_and_waits,
    until_nothing_is_queued,
)
from tests.support.stage import DEADLINE_S, Stage
from tests.support.wait import until

pytestmark = pytest.mark.usefixtures("queue_partitions")


async def test_a_cancel_stops_the_backend_at_once(url):
    """Long before a renewal would tell."""
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a"), lease_s=LONG_S) as stage:
        await stage.start()
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "a")
        await heard(stage)

        await cancel(stage.store, generation_id)

        await until(lambda: stage.backend.open == 0, 3.0, "the backend is closed")
        assert await stage.said(generation_id) == ["start", "a", "end"]
        assert (await stage.store.meta(generation_id)).status == "cancelled"
        await until_nothing_is_queued(stage)


async def heard(stage):
    async def is_heard():
        ((_, count),) = await stage.redis.pubsub_numsub(keys.CANCEL)
        return count

    await until(is_heard, DEADLINE_S, "the worker listens")


async def test_a_renewal_reports_a_cancel_whose_message_was_missed(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a"), lease_s=0.3) as stage:
        await stage.start()
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "a")

        await stage.store.close(generation_id, CANCELLED)

        await until(lambda: stage.backend.open == 0, 3.0, "the backend is closed")
        await until_nothing_is_queued(stage)


async def test_the_next_append_reports_a_cancel(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a", "b", "c"), lease_s=LONG_S) as stage:
        await stage.start()
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "a")
        await stage.store.close(generation_id, CANCELLED)

        gate.set()

        await until(lambda: stage.backend.open == 0, 3.0, "the backend is closed")
        assert await stage.said(generation_id) == ["start", "a", "end"]
        await until_nothing_is_queued(stage)


async def test_a_generation_cancelled_in_the_queue_never_runs(url):
    async with Stage(url, says("a")) as stage:
        cancelled = await stage.ask()
        await cancel(stage.store, cancelled)
        await stage.start()

        other = await stage.ask()
        await stage.ended(other)

        await until_nothing_is_queued(stage)
        assert stage.backend.seeds == [other]
        assert await stage.said(cancelled) == ["end"]
