"""Readers get the events of the log, whatever frames Redis publishes.

The test publishes frames of a running answer again, out of order, with holes and with garbage, and
holds frames back. Redis pub/sub guarantees no delivery, so a node must not depend on frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from shared.redis import keys
from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun

RUBBISH = [
    b"",
    b"\n",
    b"top",
    b"top 9-9999",
    b"1-1",
    b"not an id\nnor an entry",
    b"0-0\n",
    b"1-1\n1-2",
    b'7-7\n7-8 {"type":"token","text":"never said"}',
    b'1-1\n1-9 {"type":"token","text":"a hole"}',
    b"\xff\xfe\x00",
    b"99999999999999999999-1\n99999999999999999999-2 {}",
]


@pytest.fixture
async def meddler(deployment) -> AsyncIterator:
    redis = deployment.redis()
    yield redis
    await redis.aclose()


async def frames_of(redis, generation_id: str, count: int) -> list[bytes]:
    """Listen until so many frames of the answer have come."""
    frames: list[bytes] = []
    async with redis.pubsub() as listener:
        await listener.subscribe(keys.live(generation_id))
        async with asyncio.timeout(10):
            async for message in listener.listen():
                if message["type"] == "message":
                    frames.append(message["data"])
                if len(frames) >= count:
                    return frames
    raise AssertionError("the channel fell silent")


async def test_repeated_and_reordered_frames_change_nothing(fault_run: FaultRun, meddler):
    answer = await fault_run.start(demo_body(120, 60))
    channel = keys.live(answer.id)
    for _ in range(4):
        frames = await frames_of(meddler, answer.id, 8)
        for frame in [*frames, *reversed(frames), frames[0]]:
            await meddler.publish(channel, frame)

    await fault_run.finish(bound_s=25)


async def test_malformed_frames_change_nothing(fault_run: FaultRun, meddler):
    answer = await fault_run.start(demo_body(120, 60))
    for n in range(6):
        await fault_run.read_to(answer, 5 + 10 * n)
        for frame in RUBBISH:
            await meddler.publish(keys.live(answer.id), frame)

    await fault_run.finish(bound_s=25)


async def test_an_answer_whose_frames_are_never_published_is_read_from_the_log(
    fault_run: FaultRun, meddler
):
    """The nodes find the entries in the log, although no frame announces them.

    Entries are written past the script, as a lost publish would leave them.
    """
    for worker in fault_run.deployment.workers:
        worker.freeze()
    answer = await fault_run.start(demo_body(1, 0), has_text=False)
    log, meta = keys.log(answer.id), keys.meta(answer.id)
    for n, event in enumerate(
        [
            b'{"type":"start","attempt":1,"model":"demo"}',
            b'{"type":"token","text":"unheard"}',
            b'{"type":"end","status":"completed","finish_reason":"stop"}',
        ],
        start=1,
    ):
        await meddler.xadd(log, {"e": event}, id=f"1-{n}")
    end = b'{"type":"end","status":"completed","finish_reason":"stop"}'
    await meddler.hset(meta, mapping={"status": "completed", "attempt": "1", "end": end})

    await fault_run.finish(bound_s=10)
    assert answer.readings[0].text == "unheard"
