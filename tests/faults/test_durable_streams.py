"""People's own streams while nodes are killed and drained. Readers remember only an offset.

With TEST_REDIS_MODE=masters they run on a cluster whose slots move all the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.processes import Deployment
from tests.support.proxy import Proxy
from tests.support.stream_client import TEXT, Follower, StreamClient, write


@pytest.fixture(scope="module")
async def shared_deployment() -> AsyncIterator[Deployment]:
    async with Deployment(
        api=2, workers=1, moves_slots=True, settings={"drain_s": "1.5"}
    ) as deployment:
        yield deployment


async def test_killed_nodes_lose_and_repeat_no_append_and_readers_go_on(
    deployment, streams, stream_path
):
    await streams.create(stream_path)
    followers = [
        Follower(streams, stream_path, mode) for mode in ("sse", "sse", "long-poll", "long-poll")
    ]
    async with asyncio.TaskGroup() as tasks:
        reading = [tasks.create_task(follower.run()) for follower in followers]
        writing = tasks.create_task(write(streams, stream_path))
        for turn in range(3):
            await followers[0].reached(200 * (turn + 1))
            deployment.api[turn % 2].kill()
            await deployment.heal()
        await writing

    assert [task.result() for task in reading] == [TEXT] * 4
    assert (await streams.read(stream_path)).body.decode() == TEXT
    assert sum(follower.breaks for follower in followers) > 0


async def test_an_offset_of_one_node_is_good_on_the_other(deployment, streams, stream_path):
    offsets = [(await streams.create(stream_path)).offset]
    offsets += [(await streams.append(stream_path, b"abc", n)).offset for n in range(5)]
    deployment.api[0].kill()

    for n, offset in enumerate(offsets):
        assert (await streams.read(stream_path, offset)).body == b"abc" * (5 - n)
    assert offsets == sorted(offsets)


async def test_a_drained_node_hands_its_readers_to_the_other(deployment, streams, stream_path):
    await streams.create(stream_path)
    followers = [Follower(streams, stream_path, mode) for mode in ("sse", "long-poll")]
    async with asyncio.TaskGroup() as tasks:
        reading = [tasks.create_task(follower.run()) for follower in followers]
        writing = tasks.create_task(write(streams, stream_path))
        await followers[0].reached(100)
        deployment.api[0].terminate()
        await writing
        await deployment.heal()

    assert [task.result() for task in reading] == [TEXT] * 2


async def test_an_append_whose_answer_is_lost_is_not_repeated(deployment, stream_path):
    """The first node is behind a proxy that loses answers: each append is sent to both."""
    async with Proxy("127.0.0.1", deployment.api[0].port) as proxy:
        nodes = [f"http://127.0.0.1:{proxy.port}", deployment.api[1].url]
        async with StreamClient(nodes[1:]) as safe, StreamClient(nodes) as client:
            await safe.create(stream_path)
            proxy.lose_replies()
            await write(client, stream_path)
            assert (await safe.read(stream_path)).body.decode() == TEXT
        assert proxy.cuts >= 10
