"""AutoPipeline: replies in order, every failure as Unavailable, a new connection after a loss."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import NoScriptError, ResponseError

from shared.errors import Unavailable
from shared.redis.address import RedisAddress
from shared.redis.resp import AutoPipeline
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer
from tests.support.wait import until


@pytest.fixture
async def pipeline(redis_server):
    pipeline = AutoPipeline(redis_server.url, answer_s=5.0)
    yield pipeline
    await pipeline.aclose()


def words(*lines: str) -> list[list[str]]:
    return [line.split() for line in lines]


async def test_replies_come_in_order_with_error_replies_among_them(pipeline):
    requests = words(
        "SET tr:n 1", "INCR tr:n", "NONSENSE", "EVALSHA " + "0" * 40 + " 0", "GET tr:n"
    )
    ok, two, wrong, unknown, value = await pipeline.run(requests)
    assert (ok, two, value) == (b"OK", 2, b"2")
    assert isinstance(wrong, ResponseError)
    assert isinstance(unknown, NoScriptError), "the types that redis-py would raise"


async def test_each_of_many_exchanges_in_flight_gets_its_own_replies(pipeline):
    replies = await asyncio.gather(
        *(pipeline.run(words(f"ECHO {n}", f"ECHO {n}b")) for n in range(100))
    )
    assert replies == [[b"%d" % n, b"%db" % n] for n in range(100)]


async def test_a_cancelled_exchange_leaves_the_replies_of_the_others_in_order(pipeline):
    await pipeline.run(words("PING"))
    cancelled = asyncio.create_task(pipeline.run(words("ECHO a")))
    other = asyncio.create_task(pipeline.run(words("ECHO b")))
    await asyncio.sleep(0)
    cancelled.cancel()
    assert await other == [b"b"]


async def test_after_a_lost_connection_the_next_exchange_opens_a_new_one(pipeline):
    number = (await pipeline.run(words("CLIENT ID")))[0]
    with pytest.raises(Unavailable):
        await pipeline.run(words(f"CLIENT KILL ID {number} SKIPME no", "PING"))
    assert await pipeline.run(words("PING")) == [b"PONG"]


async def test_a_late_reply_closes_the_connection(redis_server):
    pipeline = AutoPipeline(redis_server.url, answer_s=0.1)
    await pipeline.run(words("PING"))
    with pytest.raises(Unavailable):
        await pipeline.run(words("BLPOP tr:nothing 30"))
    assert await pipeline.run(words("ECHO later")) == [b"later"], "not the late reply of BLPOP"
    await pipeline.aclose()


async def test_after_close_every_exchange_is_unavailable(pipeline):
    await pipeline.run(words("PING"))
    await pipeline.aclose()
    with pytest.raises(Unavailable):
        await pipeline.run(words("PING"))


async def test_an_absent_server_is_unavailable():
    pipeline = AutoPipeline("unix:///nonexistent/s", answer_s=1.0)
    with pytest.raises(Unavailable):
        await pipeline.run(words("PING"))


async def test_the_database_of_the_url_is_selected(redis_server):
    urls = (redis_server.url.replace("db=0", f"db={n}") for n in (0, 3))
    zero, three = (AutoPipeline(url, answer_s=5.0) for url in urls)
    await three.run(words("SET tr:db 3"))
    assert await zero.run(words("EXISTS tr:db")) == [0]
    assert await three.run(words("GET tr:db")) == [b"3"]
    await zero.aclose()
    await three.aclose()


async def test_the_password_is_sent_first():
    with RedisServer(tcp=True) as server:
        with server.client() as client:
            client.config_set("requirepass", "secret")
        pipeline = AutoPipeline(f"redis://:secret@127.0.0.1:{server.port}/0", answer_s=5.0)
        assert await pipeline.run(words("PING")) == [b"PONG"]
        await pipeline.aclose()
        wrong = AutoPipeline(f"redis://:wrong@127.0.0.1:{server.port}/0", answer_s=5.0)
        with pytest.raises(Unavailable, match="WRONGPASS|invalid"):
            await wrong.run(words("PING"))
        await wrong.aclose()


async def test_a_server_that_loads_its_data_is_unavailable():
    async def refuse(reader, writer):
        while await reader.read(1_000):
            writer.write(b"-LOADING Redis is loading the dataset in memory\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pipeline = AutoPipeline(f"redis://127.0.0.1:{port}/0", answer_s=5.0)
    with pytest.raises(Unavailable, match="loading"):
        await pipeline.run(words("PING"))
    await pipeline.aclose()
    server.close()
    await server.wait_closed()


async def test_replies_split_at_any_byte_are_joined():
    """The proxy delays bytes, so chunks end anywhere in a reply."""
    with RedisServer(tcp=True) as server:
        async with Proxy("127.0.0.1", server.port) as proxy:
            pipeline = AutoPipeline(f"redis://127.0.0.1:{proxy.port}/0", answer_s=5.0)
            big = "x" * 200_000
            replies = await pipeline.run(words(*[f"ECHO {big}"] * 20))
            assert replies == [big.encode()] * 20
            await proxy.cut()
            await until(lambda: pipeline._connection is None or pipeline._connection.is_lost, 5)
            assert await pipeline.run(words("PING")) == [b"PONG"]
            await pipeline.aclose()


def test_credentials_of_a_url():
    assert RedisAddress("redis://user:pass@h:1/2").login == [b"AUTH", b"user", b"pass"]
    assert RedisAddress("redis://h:1/2").login == []
    assert RedisAddress("redis://h:1/2").database == 2
