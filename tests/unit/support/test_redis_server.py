"""The server fixture: it starts, keeps what it should, and can be killed in every way."""

from __future__ import annotations

import pytest

from tests.support.redis_server import RedisServer, ServerMissing, find_binary


async def test_the_fixture_gives_an_empty_server(redis):
    assert await redis.dbsize() == 0

    await redis.set("k", "v")

    assert await redis.get("k") == b"v"


async def test_the_fixture_runs_scripts(redis):
    assert await redis.eval("return ARGV[1]", 0, "x") == b"x"


def test_aof_always_survives_a_kill():
    with RedisServer(aof="always", tcp=True) as server:
        with server.client() as client:
            client.set("k", "v")

        server.restart()

        with server.client() as client:
            assert client.get("k") == b"v"


def test_without_aof_a_restart_is_empty():
    with RedisServer() as server:
        with server.client() as client:
            client.set("k", "v")

        server.restart()

        with server.client() as client:
            assert client.get("k") is None


def test_a_replica_can_be_promoted_and_takes_writes():
    with RedisServer(tcp=True) as master, RedisServer(replica_of=master) as replica:
        with master.client() as client:
            client.set("k", "v")
        replica.wait_replicated()

        replica.promote()

        with replica.client() as client:
            client.set("k2", "v2")
            assert client.get("k") == b"v"


def test_close_leaves_neither_process_nor_directory():
    server = RedisServer().start()
    process = server.process

    server.close()

    assert process.poll() is not None
    assert not server.directory.exists()


def test_a_frozen_server_can_be_closed():
    with RedisServer() as server:
        server.freeze()


def test_a_missing_server_is_an_error(monkeypatch):
    monkeypatch.setenv("TEST_REDIS_SERVER", "/nowhere/redis-server")

    with pytest.raises(ServerMissing):
        find_binary()
