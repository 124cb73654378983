"""A worker dies between an end and the steps that follow it: another worker does these steps."""

from __future__ import annotations

import asyncio
import json

from shared.audio.input import AudioChunk, AudioInputs
from shared.config.limits import OwnerLimits
from shared.errors import Unavailable
from shared.log.ids import START
from shared.log.request_pieces import PIECE_BYTES
from shared.queue import lanes, leaving
from shared.redis import keys
from tests.support.backend_scripts import says, says_and_waits
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness

LARGE = b'{"messages":[{"role":"user","content":"' + b"x" * PIECE_BYTES + b'"}]}'
AUDIO = "audio/pcm;rate=16000;channels=1"


async def test_a_worker_that_dies_after_an_end_leaves_the_steps_to_another_one(
    url, queue_partitions, monkeypatch
):
    gate, died = asyncio.Event(), asyncio.Event()

    async def die(*_, **__):
        died.set()
        raise Unavailable("Redis did not answer in time")

    async with WorkerHarness(url, says_and_waits(gate, "a"), retention_s=100.0) as harness:
        await harness.start("one")
        asked = {"request": LARGE, "audio": AUDIO, "idempotency_key": "k", "body_digest": "d"}
        generation_id = await harness.ask(**asked)
        await harness.has_said(generation_id, "a")
        chunk = AudioChunk(1, b"a" * 60_000, True)
        await AudioInputs(harness.store, harness.settings).append(generation_id, "alice", chunk)
        redis, meta = harness.redis, keys.meta(generation_id)
        with monkeypatch.context() as patch:
            patch.setattr(leaving, "_follow_up", die)
            gate.set()
            await harness.ended(generation_id)
            await asyncio.wait_for(died.wait(), DEADLINE_S)
            await harness.kill("one")
        await harness.start("two")

        async def has_left():
            return not await redis.exists(keys.audio(generation_id))

        await until(has_left, DEADLINE_S, "the audio is deleted")
        await until(lambda: expires_with(redis, keys.request(generation_id), meta), DEADLINE_S)
        key = keys.idempotency("alice", "k")
        assert await redis.pttl(key) < await redis.pttl(meta)


async def test_another_worker_records_the_size_of_the_log_and_the_counted_tokens(url, monkeypatch):
    """The server of the answer reports no tokens, and the first worker cannot write its records."""
    died = asyncio.Event()

    async def die(*_, **__):
        died.set()
        raise Unavailable("Redis did not answer in time")

    limits = OwnerLimits(active_max=1, tokens_per_day=10_000)
    async with WorkerHarness(url, says("a" * 5_000, "b")) as harness:
        with monkeypatch.context() as patch:
            patch.setattr(lanes, "leave", die)
            await harness.start("one")
            generation_id = await harness.ask(limits=limits, tokens=3_000)
            await asyncio.wait_for(died.wait(), DEADLINE_S)
            await harness.kill("one")
        await harness.start("two")

        async def is_settled():
            return not await harness.redis.zcard(keys.owner_active("alice"))

        await until(is_settled, DEADLINE_S, "the settlement")
        entries = await harness.store.page(generation_id, START, 100)
        (size, *_) = (await harness.redis.hget(keys.owner_bytes("alice"), generation_id)).split()
        assert int(size) == sum(len(raw) for _, raw in entries)
        used = int(await harness.redis.hget(keys.owner_limits("alice"), "used"))
        spent = json.loads(await harness.redis.hget(keys.meta(generation_id), "spent"))
        assert used == spent["total_tokens"] != 3_000


async def expires_with(redis, key, meta):
    return await redis.pttl(key) <= await redis.pttl(meta) + 1_000
