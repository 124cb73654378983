"""People's own streams when Redis is killed, emptied, or comes back without its last writes.

An offset never names other bytes than those that were read up to it: a loss shows as a status.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from tests.support.redis_server import RedisServer
from tests.support.sentinel_setup import standing
from tests.support.stream_client import TEXT, Follower, StreamClient, write


async def test_readers_stay_while_redis_is_killed_and_comes_back(deployment, streams, stream_path):
    await streams.create(stream_path)
    followers = [Follower(streams, stream_path, mode) for mode in ("sse", "long-poll")]
    async with asyncio.TaskGroup() as tasks:
        reading = [tasks.create_task(follower.run()) for follower in followers]
        writing = tasks.create_task(write(streams, stream_path))
        await followers[0].reached(300)
        deployment.server.restart()
        await writing

    assert [task.result() for task in reading] == [TEXT] * 2


async def test_a_lost_tail_shows_to_the_producer_and_to_the_reader(
    deployment, streams, stream_path
):
    server: RedisServer = deployment.server
    await streams.create(stream_path)
    kept = await streams.append(stream_path, b"kept, ", 0)
    kept_bytes = aof_of(server).stat().st_size
    lost = [await streams.append(stream_path, f"lost {n}, ".encode(), 1 + n) for n in range(3)]
    follower = Follower(streams, stream_path, "sse")
    reading = asyncio.create_task(follower.run())
    await follower.reached(len("kept, lost 0, lost 1, lost 2, "))
    server.kill()
    os.truncate(aof_of(server), kept_bytes)
    server.start()

    refused = await streams.append(stream_path, b"next, ", 4)
    assert (refused.status, refused.headers["producer-expected-seq"]) == (409, "1")
    assert (await streams.read(stream_path, lost[2].offset)).status == 410
    async with asyncio.timeout(15):
        await reading
    assert follower.refused == 410
    # The same bytes come back to the same offset; after other bytes the offset stays refused.
    again = await streams.append(stream_path, b"lost 0, ", 1)
    assert again.offset == lost[0].offset
    other = await streams.append(stream_path, b"LOST 1, ", 2)
    assert other.offset[:16] == lost[1].offset[:16] and other.offset != lost[1].offset
    assert (await streams.read(stream_path, lost[1].offset)).status == 410
    assert (await streams.read(stream_path, lost[0].offset)).body == b"LOST 1, "
    assert (await streams.read(stream_path, kept.offset)).body == b"lost 0, LOST 1, "


def aof_of(server: RedisServer) -> Path:
    return max((server.directory / "appendonlydir").glob("*.incr.aof"))


async def test_an_emptied_redis_ends_readers_and_a_new_stream_has_none_of_the_offsets(
    deployment, streams, stream_path
):
    await streams.create(stream_path)
    first = await streams.append(stream_path, b"one, ", 0)
    last = await streams.append(stream_path, b"two, ", 1)
    followers = [Follower(streams, stream_path, mode) for mode in ("sse", "long-poll")]
    reading = [asyncio.create_task(follower.run()) for follower in followers]
    for follower in followers:
        await follower.reached(10)
    redis = deployment.redis()
    await redis.flushall()
    await redis.aclose()

    async with asyncio.timeout(20):
        await asyncio.gather(*reading)
    assert [follower.refused for follower in followers] == [404, 404]
    assert (await streams.read(stream_path)).status == 404
    await streams.create(stream_path, b"six, ")
    assert (await streams.read(stream_path, first.offset)).status == 410
    assert (await streams.read(stream_path, last.offset)).status == 410


async def test_after_a_failover_the_producer_sends_again_and_readers_go_on(stream_path, figure):
    """The master dies with writes that its replica may lack. No reader sees a byte twice."""
    async with standing() as setup, StreamClient(setup.deployment.urls) as streams:
        await streams.create(stream_path)
        followers = [
            Follower(streams, stream_path, mode, is_patient=True) for mode in ("sse", "long-poll")
        ]
        async with asyncio.TaskGroup() as tasks:
            reading = [tasks.create_task(follower.run()) for follower in followers]
            tasks.create_task(write(streams, stream_path, goes_back=True))
            await followers[0].reached(300)
            await setup.lose_master("killed")
        figure("offsets that were lost for a while", str(sum(f.losses for f in followers)))
        setup.bring_back("killed")

    assert [task.result() for task in reading] == [TEXT] * 2
