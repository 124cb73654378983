"""The client: its errors become ours, and every call can be cancelled."""

from __future__ import annotations

import asyncio

import pytest
from redis import exceptions

from shared.config.settings import Settings
from shared.console.board import read_all, report_worker
from shared.errors import ConfigurationError, Unavailable
from shared.later.lag import read_lag
from shared.queue.presence import Presence
from shared.redis.client import is_refusal, translated
from shared.redis.connections import connect
from tests.support.redis_server import RedisServer

IDLE = Presence("w", at_ms=0, slots=1, running=0, draining=False, counters={})


@pytest.mark.parametrize("steps", range(0, 40))
async def test_a_loop_over_redis_ends_when_it_is_cancelled(redis_server, steps):
    """At any moment: asyncio.wait_for of Python 3.11 would lose some cancellations."""
    client = connect(Settings(redis_url=redis_server.url))
    await client.ping()

    async def loop():
        while True:
            await client.ping()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(loop())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=1.0)
        was_lost = not task.done()
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=0.1)

    assert not was_lost
    assert await client.ping(), "and the client is still good"
    await client.aclose()


async def test_a_connection_that_breaks_while_sending_is_unavailable(redis_server):
    client = connect(Settings(redis_url=redis_server.url))
    await client.ping()
    (connection,) = client.connection_pool._available_connections
    connection._writer.transport.abort()

    with pytest.raises(Unavailable), translated():
        await client.set("k", b"x" * 10_000_000)

    assert await client.ping()
    await client.aclose()


async def test_uvloops_error_for_a_closed_transport_is_unavailable(redis_server, monkeypatch):
    client = connect(Settings(redis_url=redis_server.url))
    await client.ping()
    (connection,) = client.connection_pool._available_connections

    def closed(_):
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>")

    monkeypatch.setattr(connection._writer, "writelines", closed)

    with pytest.raises(Unavailable), translated():
        await client.ping()

    assert await client.ping()
    await client.aclose()


async def test_a_server_that_stops_reading_is_unavailable():
    """The write fills the socket's buffers and waits."""

    is_over = asyncio.Event()

    async def deaf(reader, writer):
        writer.transport.pause_reading()
        await is_over.wait()
        writer.transport.abort()

    server = await asyncio.start_server(deaf, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    client = connect(Settings(redis_url=f"redis://127.0.0.1:{port}"), answer_s=0.2)

    with pytest.raises(Unavailable), translated():
        await client.set("k", b"x" * 50_000_000)

    is_over.set()
    await client.aclose()
    server.close()
    await server.wait_closed()


def test_a_url_is_needed():
    with pytest.raises(ConfigurationError):
        connect(Settings())


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ConnectionError("gone"),
        exceptions.TimeoutError("late"),
        OSError("no route"),
        exceptions.ResponseError("OOM command not allowed"),
        exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        exceptions.ResponseError("LOADING Redis is loading"),
        exceptions.ReadOnlyError("READONLY You can't write against a read only replica."),
        exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots"),
        exceptions.ClusterDownError("The cluster is down"),
        exceptions.TryAgainError("Multiple keys request during rehashing of slot"),
        exceptions.MovedError("3999 127.0.0.1:6381"),
    ],
)
def test_a_temporary_refusal_is_unavailable(error):
    with pytest.raises(Unavailable), translated():
        raise error


def test_another_error_reply_is_not_translated():
    error = exceptions.ResponseError("WRONGTYPE Operation against a key")

    with pytest.raises(exceptions.ResponseError), translated():
        raise error

    assert not is_refusal(error)


@pytest.fixture(scope="module")
def down():
    """A server in cluster mode without slots: it refuses each command that has a key."""
    with RedisServer(is_cluster=True) as server:
        with server.client() as client:
            client.execute_command("CLUSTER FLUSHSLOTS")
        yield server


@pytest.mark.parametrize("is_transaction", [False, True])
async def test_a_refusal_inside_a_pipeline_is_unavailable(down, is_transaction):
    client = connect(Settings(redis_url=down.url))
    pipeline = client.pipeline(transaction=is_transaction)
    pipeline.get("{a}")
    pipeline.hset("{a}:b", "request", "MISCONF the words of a user")

    with pytest.raises(Unavailable) as refusal, translated():
        await pipeline.execute()

    await client.aclose()
    assert "CLUSTERDOWN" in str(refusal.value)
    assert "words of a user" not in str(refusal.value)


async def test_a_probe_and_a_report_meet_a_cluster_that_is_down(down):
    client = connect(Settings(redis_url=down.url))

    for refused in (read_lag(client), read_all(client), report_worker(client, IDLE, None)):
        with pytest.raises(Unavailable):
            await refused

    await client.aclose()


async def test_another_error_inside_a_pipeline_is_not_translated(real_redis, redis_server):
    client = connect(Settings(redis_url=redis_server.url))
    await client.set("text", "MISCONF")
    pipeline = client.pipeline(transaction=False)
    pipeline.get("text")
    pipeline.lpush("text", "OOM MISCONF LOADING")

    with pytest.raises(exceptions.ResponseError, match="^WRONGTYPE") as error, translated():
        await pipeline.execute()

    await client.aclose()
    assert error.value.__notes__ == ["command 2 of a pipeline: LPUSH"]
