"""`produce` of the Python client against a node with real sockets and a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import tailrace_client
from shared.config.settings import Settings
from shared.queue.endings import cancel
from shared.redis import keys
from tailrace_client import AsyncTailrace, Tailrace, TailraceError
from tests.support.local_node import LocalNode, serve_here
from tests.support.redis_server import RedisServer
from tests.support.wait import until

DEADLINE_S = 10.0


@pytest.fixture(scope="module")
async def node(redis_server: RedisServer) -> AsyncIterator[LocalNode]:
    async with serve_here(Settings(redis_url=redis_server.url)) as local_node:
        await local_node.node.redis.flushall()
        yield local_node


@pytest.fixture
async def client(node: LocalNode) -> AsyncIterator[AsyncTailrace]:
    async with AsyncTailrace(node.url) as found:
        yield found


async def test_a_block_writes_an_answer_of_several_agents_and_ends_it(node, client) -> None:
    async with tailrace_client.produce(node.url, model="report", prompt="Write") as log:
        await log.progress("reading", 1, 2)
        await log.agent("writer").token("All is ")
        await log.agent("reviewer").token("well.")
        await log.data("row", None)
    events = [event async for event in client.attach(log.id)]
    snapshot = await client.snapshot(log.id)

    assert [event.type for event in events] == [
        "start", "progress", "token", "token", "data", "end",
    ]  # fmt: skip
    assert [event.agent for event in events if event.type == "token"] == ["writer", "reviewer"]
    assert (snapshot["status"], snapshot["text"]) == ("completed", "All is well.")
    assert (snapshot["model"], log.status) == ("report", "completed")


async def test_an_exception_in_the_block_fails_the_generation_and_leaves_the_block(client) -> None:
    with pytest.raises(ValueError, match="a secret"):
        async with client.produce() as log:
            await log.token("A beginning")
            raise ValueError("a secret")
    snapshot = await client.snapshot(log.id)

    assert (snapshot["status"], snapshot["text"]) == ("failed", "A beginning")
    assert snapshot["error"]["code"] == "producer_error"
    assert "a secret" not in str(snapshot)


async def test_a_cancelled_task_cancels_its_generation(client) -> None:
    producer, is_written = client.produce(), asyncio.Event()

    async def write() -> None:
        async with producer as log:
            await log.token("x")
            is_written.set()
            await asyncio.Event().wait()

    writing = asyncio.create_task(write())
    async with asyncio.timeout(DEADLINE_S):
        await is_written.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing

    assert (await client.snapshot(producer.id))["status"] == "cancelled"


async def test_a_cancel_of_a_reader_ends_the_block_with_an_error(node, client) -> None:
    with pytest.raises(TailraceError, match="generation_ended"):
        async with client.produce() as log:
            await cancel(node.node.store, log.id)
            await log.token("x")
            await log.flush()

    assert log.status == "cancelled"


async def test_a_silent_producer_renews_its_lease(node, client) -> None:
    key = keys.meta
    async with client.produce(lease_s=1) as log:
        first = await node.node.redis.hget(key(log.id), "lease")

        async def is_renewed() -> bool:
            return bool(await node.node.redis.hget(key(log.id), "lease") != first)

        await until(is_renewed, 10, "a renewal")


async def test_a_token_function_that_raises_stops_the_producer(node) -> None:
    answers = iter(["", ""])

    async with AsyncTailrace(node.url, lambda: next(answers)) as client:
        with pytest.raises(TailraceError, match="cannot send"):
            async with client.produce() as log:
                log._json = failing  # type: ignore[method-assign]
                await log.token("x")
                await log.flush()


async def failing(*_: object, **__: object) -> None:
    raise OSError("no token")


async def test_a_program_without_an_event_loop_produces_with_a_thread(node, client) -> None:
    def write() -> str:
        with Tailrace(node.url) as sync_client, sync_client.produce(session="s") as log:
            for n in range(50):
                log.token(f"{n} ")
            log.agent("a").progress("x", 1, 1)
            return log.id

    generation_id = await asyncio.to_thread(write)
    snapshot = await client.snapshot(generation_id)

    assert snapshot["text"] == "".join(f"{n} " for n in range(50))
    assert snapshot["status"] == "completed"


async def test_a_takeover_without_an_event_loop_fences_the_first_producer(node, client) -> None:
    def take_over(generation_id: str) -> None:
        with Tailrace(node.url) as sync_client:
            with sync_client.produce(take_over=generation_id, reset=True) as log:
                log.token("New")

    with pytest.raises(TailraceError, match="generation_ended|producer_fenced"):
        async with client.produce() as log:
            await log.token("Old")
            await log.flush()
            await asyncio.to_thread(take_over, log.id)
            await log.token("Late")
            await log.flush()

    assert (await client.snapshot(log.id))["text"] == "New"
