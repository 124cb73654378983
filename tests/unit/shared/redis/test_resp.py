"""Our own connection: answers in order, errors that are ours, and another one after each loss."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import NoScriptError, ResponseError

from shared.errors import Unavailable
from shared.redis.resp import AutoPipeline, RedisAddress, encode
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer
from tests.support.wait import until


@pytest.fixture
async def line(redis_server):
    line = AutoPipeline(redis_server.url, answer_s=5.0)
    yield line
    await line.aclose()


def commands(*lines: str) -> bytes:
    return b"".join(encode(line.encode().split()) for line in lines)


async def test_answers_come_in_order_errors_among_them(line):
    asked = commands(
        "SET tr:n 1", "INCR tr:n", "NONSENSE", "EVALSHA " + "0" * 40 + " 0", "GET tr:n"
    )
    ok, two, wrong, unknown, value = await line.ask(asked, 5)
    assert (ok, two, value) == (b"OK", 2, b"2")
    assert isinstance(wrong, ResponseError)
    assert isinstance(unknown, NoScriptError), "the types that redis-py would raise"


async def test_many_exchanges_at_once_get_their_own_answers(line):
    answers = await asyncio.gather(
        *(line.ask(commands(f"ECHO {n}", f"ECHO {n}b"), 2) for n in range(100))
    )
    assert answers == [[b"%d" % n, b"%db" % n] for n in range(100)]


async def test_who_is_cancelled_leaves_the_others_their_answers(line):
    await line.ask(commands("PING"), 1)
    slow = asyncio.create_task(line.ask(commands("ECHO a"), 1))
    other = asyncio.create_task(line.ask(commands("ECHO b"), 1))
    await asyncio.sleep(0)
    slow.cancel()
    assert await other == [b"b"]


async def test_a_lost_connection_is_unavailable_and_the_next_exchange_makes_another(line):
    number = (await line.ask(commands("CLIENT ID"), 1))[0]
    with pytest.raises(Unavailable):
        await line.ask(commands(f"CLIENT KILL ID {number} SKIPME no", "PING"), 2)
    assert await line.ask(commands("PING"), 1) == [b"PONG"]


async def test_an_answer_that_does_not_come_in_time_gives_the_connection_up(redis_server):
    line = AutoPipeline(redis_server.url, answer_s=0.1)
    await line.ask(commands("PING"), 1)
    with pytest.raises(Unavailable):
        await line.ask(commands("BLPOP tr:nothing 30"), 1)
    assert await line.ask(commands("ECHO later"), 1) == [b"later"], "not the late answer of BLPOP"
    await line.aclose()


async def test_after_close_nothing_is_asked(line):
    await line.ask(commands("PING"), 1)
    await line.aclose()
    with pytest.raises(Unavailable):
        await line.ask(commands("PING"), 1)


async def test_nobody_there_is_unavailable():
    line = AutoPipeline("unix:///nonexistent/s", answer_s=1.0)
    with pytest.raises(Unavailable):
        await line.ask(commands("PING"), 1)


async def test_the_database_of_the_url_is_used(redis_server):
    urls = (redis_server.url.replace("db=0", f"db={n}") for n in (0, 3))
    zero, three = (AutoPipeline(url, answer_s=5.0) for url in urls)
    await three.ask(commands("SET tr:db 3"), 1)
    assert await zero.ask(commands("EXISTS tr:db"), 1) == [0]
    assert await three.ask(commands("GET tr:db"), 1) == [b"3"]
    await zero.aclose()
    await three.aclose()


async def test_a_password_is_sent_first():
    with RedisServer(tcp=True) as server:
        with server.client() as client:
            client.config_set("requirepass", "secret")
        line = AutoPipeline(f"redis://:secret@127.0.0.1:{server.port}/0", answer_s=5.0)
        assert await line.ask(commands("PING"), 1) == [b"PONG"]
        await line.aclose()
        wrong = AutoPipeline(f"redis://:wrong@127.0.0.1:{server.port}/0", answer_s=5.0)
        with pytest.raises(Unavailable, match="WRONGPASS|invalid"):
            await wrong.ask(commands("PING"), 1)
        await wrong.aclose()


async def test_a_server_that_loads_its_data_is_unavailable():
    async def refuse(reader, writer):
        while await reader.read(1_000):
            writer.write(b"-LOADING Redis is loading the dataset in memory\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    line = AutoPipeline(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", answer_s=5.0)
    with pytest.raises(Unavailable, match="loading"):
        await line.ask(commands("PING"), 1)
    await line.aclose()
    server.close()
    await server.wait_closed()


async def test_replies_cut_anywhere_are_put_together():
    """Through a proxy that delays: chunks do not respect replies."""
    with RedisServer(tcp=True) as server:
        async with Proxy("127.0.0.1", server.port) as proxy:
            line = AutoPipeline(f"redis://127.0.0.1:{proxy.port}/0", answer_s=5.0)
            big = "x" * 200_000
            answers = await line.ask(commands(*[f"ECHO {big}"] * 20), 20)
            assert answers == [big.encode()] * 20
            await proxy.cut()
            await until(lambda: line._connection is None or line._connection.is_lost, 5)
            assert await line.ask(commands("PING"), 1) == [b"PONG"]
            await line.aclose()


def test_credentials_of_a_url():
    assert RedisAddress("redis://user:pass@h:1/2").login == [b"AUTH", b"user", b"pass"]
    assert RedisAddress("redis://h:1/2").login == []
    assert RedisAddress("redis://h:1/2").database == 2
