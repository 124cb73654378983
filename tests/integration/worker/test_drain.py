"""A draining worker hands over what can be continued and waits for the rest."""

from __future__ import annotations

import asyncio

import pytest

from shared.queue.presence import workers_seen
from tests.support.plays import (
    LONG_S,
    says,
    says_and_waits,
    until_nothing_is_queued,
)
from tests.support.stage import DEADLINE_S, Stage
from tests.support.wait import until

pytestmark = pytest.mark.usefixtures("queue_partitions")


async def test_a_drain_releases_a_generation_that_can_be_continued_at_once(url):
    gate = asyncio.Event()
    plays = says_and_waits(gate, "Hel"), says("lo")
    async with Stage(url, *plays, lease_s=LONG_S, drain_s=LONG_S) as stage:
        first = await stage.start("first")
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "Hel")

        first.drain()
        await stage.drained("first")
        assert stage.backend.open == 0
        assert (await stage.store.meta(generation_id)).lease_ms == 0
        assert [presence.worker for presence in await workers_seen(stage.redis)] == []

        await stage.start("second")
        meta = await stage.ended(generation_id)

        assert await stage.said(generation_id) == ["start", "Hel", "start", "lo", "end"]
        assert stage.backend.prefixes == ["", "Hel"]
        assert meta.failures == 0, "a drain is nobody's failure"
        await until_nothing_is_queued(stage)


async def test_a_drain_waits_for_a_generation_that_cannot_be_continued(url):
    gate = asyncio.Event()
    plays = says_and_waits(gate, "a", "b")
    async with Stage(url, plays, on_takeover="restart", drain_s=LONG_S) as stage:
        worker = await stage.start()
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "a")
        worker.drain()
        late = await stage.ask()
        await until(lambda: worker.is_draining and len(worker.runs) == 1, DEADLINE_S, "it goes on")

        gate.set()
        await stage.drained()

        assert await stage.text(generation_id) == "ab"
        assert (await stage.store.meta(generation_id)).status == "completed"
        assert (await stage.store.meta(late)).status == "queued", "nothing more is taken"


async def test_a_drain_releases_everything_after_the_drain_time(url):
    gate = asyncio.Event()
    plays = says_and_waits(gate, "void"), says("good")
    async with Stage(url, *plays, on_takeover="restart", drain_s=0.2) as stage:
        first = await stage.start("first")
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "void")

        first.drain()
        await stage.drained("first")
        await stage.start("second")
        meta = await stage.ended(generation_id)

        assert await stage.text(generation_id) == "good"
        assert meta.failures == 0
