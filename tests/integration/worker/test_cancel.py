"""A cancel stops the backend, whichever way the worker learns of the cancel."""

from __future__ import annotations

import asyncio

import pytest

from shared.queue.endings import CANCELLED, cancel
from shared.redis import keys
from tests.support.backend_scripts import (
    LONG_S,
    says,
    says_and_waits,
    until_nothing_is_queued,
)
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness

pytestmark = pytest.mark.usefixtures("queue_partitions")


async def test_a_cancel_stops_the_backend_at_once(url):
    """Long before a renewal would tell."""
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "a"), lease_s=LONG_S) as harness:
        await harness.start()
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "a")
        await heard(harness)

        await cancel(harness.store, generation_id)

        await until(lambda: harness.backend.open == 0, 3.0, "the backend is closed")
        assert await harness.said(generation_id) == ["start", "a", "end"]
        assert (await harness.store.meta(generation_id)).status == "cancelled"
        await until_nothing_is_queued(harness)


async def heard(harness):
    async def is_heard():
        ((_, count),) = await harness.redis.pubsub_numsub(keys.CANCEL)
        return count

    await until(is_heard, DEADLINE_S, "the worker listens")


async def test_a_renewal_reports_a_cancel_whose_message_was_missed(url):
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "a"), lease_s=0.3) as harness:
        await harness.start()
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "a")

        await harness.store.close(generation_id, CANCELLED)

        await until(lambda: harness.backend.open == 0, 3.0, "the backend is closed")
        await until_nothing_is_queued(harness)


async def test_the_next_append_reports_a_cancel(url):
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "a", "b", "c"), lease_s=LONG_S) as harness:
        await harness.start()
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "a")
        await harness.store.close(generation_id, CANCELLED)

        gate.set()

        await until(lambda: harness.backend.open == 0, 3.0, "the backend is closed")
        assert await harness.said(generation_id) == ["start", "a", "end"]
        await until_nothing_is_queued(harness)


async def test_a_generation_cancelled_in_the_queue_never_runs(url):
    async with WorkerHarness(url, says("a")) as harness:
        cancelled = await harness.ask()
        await cancel(harness.store, cancelled)
        await harness.start()

        other = await harness.ask()
        await harness.ended(other)

        await until_nothing_is_queued(harness)
        assert harness.backend.seeds == [other]
        assert await harness.said(cancelled) == ["end"]
