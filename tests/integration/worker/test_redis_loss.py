"""A worker writes again what Redis has lost of a running generation."""

from __future__ import annotations

import asyncio

import pytest

from shared.log.ids import START
from shared.redis import keys
from tests.support.backend_scripts import (
    LONG_S,
    says,
    says_and_waits,
    until_nothing_is_queued,
)
from tests.support.worker_harness import WorkerHarness

pytestmark = pytest.mark.usefixtures("queue_partitions")


@pytest.mark.parametrize("loss", ["generation", "everything"])
async def test_a_running_generation_that_redis_lost_is_restored(url, loss):
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "Hel", "lo"), lease_s=0.3) as harness:
        await harness.start()
        generation_id = await harness.ask(session="chat", metadata=b'{"a":1}')
        await harness.has_said(generation_id, "Hel")
        log = await harness.store.page(generation_id, START, 99)
        meta = await harness.store.meta(generation_id)

        if loss == "generation":
            await harness.redis.delete(keys.meta(generation_id), keys.log(generation_id))
        else:
            await harness.redis.flushall()
        await harness.has_said(generation_id, "Hel")
        assert await harness.store.page(generation_id, START, 99) == log
        gate.set()
        again = await harness.ended(generation_id)

        assert await harness.said(generation_id) == ["start", "Hel", "lo", "end"]
        for name in ("owner", "session", "metadata", "created_at_ms", "request", "attempt"):
            assert getattr(again, name) == getattr(meta, name), name


async def test_a_worker_serves_new_prompts_after_redis_came_back_empty(url):
    async with WorkerHarness(url, says("a")) as harness:
        await harness.start()
        await harness.ended(await harness.ask())
        await harness.redis.flushall()

        await harness.ended(await harness.ask())

        await until_nothing_is_queued(harness)


async def test_a_lost_tail_of_the_log_is_written_again(url):
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "a", "b"), lease_s=LONG_S) as harness:
        await harness.start()
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "a")
        log = await harness.store.page(generation_id, START, 99)
        await harness.redis.delete(keys.log(generation_id))

        gate.set()
        await harness.ended(generation_id)

        assert (await harness.store.page(generation_id, START, 99))[:2] == log
        assert await harness.text(generation_id) == "ab"
