"""A draining worker hands over what can be continued and waits for the rest."""

from __future__ import annotations

import asyncio

import pytest

from shared.queue.presence import workers_seen
from tests.support.backend_scripts import (
    LONG_S,
    says,
    says_and_waits,
    until_no_read_is_blocked,
    until_nothing_is_queued,
)
from tests.support.worker_harness import WorkerHarness

pytestmark = pytest.mark.usefixtures("queue_partitions")


async def test_a_drain_releases_a_generation_that_can_be_continued_at_once(url):
    gate = asyncio.Event()
    backend_scripts = says_and_waits(gate, "Hel"), says("lo")
    async with WorkerHarness(url, *backend_scripts, lease_s=LONG_S, drain_s=LONG_S) as harness:
        first = await harness.start("first")
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "Hel")

        first.drain()
        await harness.drained("first")
        assert harness.backend.open == 0
        assert (await harness.store.meta(generation_id)).lease_ms == 0
        assert [presence.worker for presence in await workers_seen(harness.redis)] == []

        await harness.start("second")
        meta = await harness.ended(generation_id)

        assert await harness.said(generation_id) == ["start", "Hel", "start", "lo", "end"]
        assert harness.backend.prefixes == ["", "Hel"]
        assert meta.failures == 0, "a drain is nobody's failure"
        await until_nothing_is_queued(harness)


async def test_a_drain_waits_for_a_generation_that_cannot_be_continued(url):
    gate = asyncio.Event()
    backend_scripts = says_and_waits(gate, "a", "b")
    async with WorkerHarness(
        url, backend_scripts, on_takeover="restart", drain_s=LONG_S
    ) as harness:
        worker = await harness.start()
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "a")
        worker.drain()
        late = await harness.ask()
        await until_no_read_is_blocked(harness)  # the worker's last read of the lanes has ended
        assert len(worker.runs) == 1

        gate.set()
        await harness.drained()

        assert await harness.text(generation_id) == "ab"
        assert (await harness.store.meta(generation_id)).status == "completed"
        assert (await harness.store.meta(late)).status == "queued", "nothing more is taken"


async def test_a_drain_releases_everything_after_the_drain_time(url):
    gate = asyncio.Event()
    backend_scripts = says_and_waits(gate, "void"), says("good")
    async with WorkerHarness(url, *backend_scripts, on_takeover="restart", drain_s=0.2) as harness:
        first = await harness.start("first")
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "void")

        first.drain()
        await harness.drained("first")
        await harness.start("second")
        meta = await harness.ended(generation_id)

        assert await harness.text(generation_id) == "good"
        assert meta.failures == 0
