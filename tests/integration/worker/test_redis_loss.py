"""A worker writes again what Redis has lost of a running generation."""

from __future__ import annotations

import asyncio

import pytest

from shared.log.ids import START
from shared.redis import keys
from tests.support.plays import (
    LONG_S,
    says,
    says_and_waits,
    until_nothing_is_queued,
)
from tests.support.stage import Stage

pytestmark = pytest.mark.usefixtures("queue_partitions")


@pytest.mark.parametrize("loss", ["generation", "everything"])
async def test_a_running_generation_that_redis_lost_is_restored(url, loss):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "Hel", "lo"), lease_s=0.3) as stage:
        await stage.start()
        generation_id = await stage.ask(session="chat", metadata=b'{"a":1}')
        await stage.has_said(generation_id, "Hel")
        log = await stage.store.page(generation_id, START, 99)
        meta = await stage.store.meta(generation_id)

        if loss == "generation":
            await stage.redis.delete(keys.meta(generation_id), keys.log(generation_id))
        else:
            await stage.redis.flushall()
        await stage.has_said(generation_id, "Hel")
        assert await stage.store.page(generation_id, START, 99) == log
        gate.set()
        again = await stage.ended(generation_id)

        assert await stage.said(generation_id) == ["start", "Hel", "lo", "end"]
        for name in ("owner", "session", "metadata", "created_at_ms", "request", "attempt"):
            assert getattr(again, name) == getattr(meta, name), name


async def test_a_worker_serves_new_prompts_after_redis_came_back_empty(url):
    async with Stage(url, says("a")) as stage:
        await stage.start()
        await stage.ended(await stage.ask())
        await stage.redis.flushall()

        await stage.ended(await stage.ask())

        await until_nothing_is_queued(stage)


async def test_a_lost_tail_of_the_log_is_written_again(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a", "b"), lease_s=LONG_S) as stage:
        await stage.start()
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "a")
        log = await stage.store.page(generation_id, START, 99)
        await stage.redis.delete(keys.log(generation_id))

        gate.set()
        await stage.ended(generation_id)

        assert (await stage.store.page(generation_id, START, 99))[:2] == log
        assert await stage.text(generation_id) == "ab"
