"""Following a master: real servers, and sentinels that say what the test wants."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import pytest

from api.hub.live_connection import LiveConnection
from shared.config.settings import Settings
from shared.errors import ConfigurationError, Unavailable
from shared.redis.client import client_follower, translated
from shared.redis.connections import connect
from shared.redis.resp import AutoPipeline
from shared.redis.sentinel import follower
from shared.redis.sentinel.watch import watch_masters
from shared.redis.server_check import check_server, find_jobs_url
from tests.support.certificates import Authority
from tests.support.fake_sentinel import SERVICE, FakeSentinel, url_of
from tests.support.redis_server import RedisServer, free_port
from tests.support.tls_front import tls_front
from tests.support.wait import until

PING = [["PING"]]


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[RedisServer, RedisServer, RedisServer]]:
    """Two masters, and a replica of the first."""
    with RedisServer(tcp=True) as one, RedisServer(tcp=True) as two:
        with RedisServer(replica_of=one) as replica:
            yield one, two, replica


@pytest.fixture
async def sentinels(servers) -> AsyncIterator[list[FakeSentinel]]:
    """Three that name the first server."""
    async with AsyncExitStack() as stack:
        address = ("127.0.0.1", servers[0].port)
        yield [await stack.enter_async_context(FakeSentinel(1, address)) for _ in range(3)]


@asynccontextmanager
async def watching(settings: Settings, sentinels: list[FakeSentinel]) -> AsyncIterator[None]:
    """With the watch of a role, whose subscriptions have begun."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(watch_masters(settings))
        await until(lambda: all(each.subscribers or each.is_silent for each in sentinels), 10)
        await until(lambda: all(each.asked or each.is_silent for each in sentinels), 10)
        yield
        task.cancel()


async def port_of(pipeline: AutoPipeline) -> int:
    ((_, port),) = await pipeline.run([["CONFIG", "GET", "port"]])
    return int(port)


def switch(sentinel: FakeSentinel, old: RedisServer, new: RedisServer) -> None:
    sentinel.epoch += 1
    sentinel.master = ("127.0.0.1", new.port)
    place = f"{SERVICE} 127.0.0.1 {old.port} 127.0.0.1 {new.port}"
    sentinel.publish("+switch-master", place)


async def test_one_notice_moves_every_connection_although_the_other_sentinels_lag(
    servers, sentinels
):
    old, new, _ = servers
    settings = Settings(redis_url=url_of(*sentinels))
    listener = Ears()
    async with aclosing(connect(settings)) as redis, watching(settings, sentinels):
        pipeline = AutoPipeline(settings.redis_url, answer_s=5.0)
        live = LiveConnection(settings.redis_url, listener)
        live.subscribe(b"tr:channel")
        async with aclosing(pipeline), asyncio.TaskGroup() as group:
            running = group.create_task(live.run())
            await until(lambda: listener.subscriptions, 10)
            blocked = group.create_task(first_error(redis.blpop(["tr:never"], timeout=30)))
            await until(lambda: clients(old, "blpop"), 10)
            assert await port_of(pipeline) == old.port

            switch(sentinels[2], old, new)

            assert isinstance(await blocked, Unavailable)
            await until(lambda: listener.subscriptions == 2, 10)
            assert await port_of(pipeline) == new.port
            assert (await redis.config_get("port"))["port"] == str(new.port)
            assert pipeline.losses == 1
            assert client_follower(redis).switches == 1
            await until(lambda: not clients(old, ""), 10, "no connection is left at the old master")
            with new.client() as other:
                other.publish("tr:channel", "heard")
            await until(lambda: listener.messages == [b"heard"], 10)
            running.cancel()


async def test_the_notice_of_a_promotion_counts_before_the_switch(servers, sentinels):
    old, new, _ = servers
    settings = Settings(redis_url=url_of(*sentinels))
    pipeline = AutoPipeline(settings.redis_url, answer_s=5.0)
    async with aclosing(pipeline), watching(settings, sentinels):
        assert await port_of(pipeline) == old.port
        sentinels[0].epoch, sentinels[0].master = 2, ("127.0.0.1", new.port)
        slave = f"slave 127.0.0.1:{new.port} 127.0.0.1 {new.port}"
        sentinels[0].publish("+promoted-slave", f"{slave} @ {SERVICE} 127.0.0.1 {old.port}")

        await until(lambda: pipeline.losses == 1, 10)
        assert await port_of(pipeline) == new.port


async def test_a_switch_before_the_subscription_is_noticed_with_it(servers, sentinels):
    old, new, _ = servers
    settings = Settings(redis_url=url_of(*sentinels))
    pipeline = AutoPipeline(settings.redis_url, answer_s=5.0)
    async with aclosing(pipeline):
        assert await port_of(pipeline) == old.port
        switch(sentinels[1], old, new)
        async with watching(settings, sentinels):
            await until(lambda: pipeline.losses == 1, 10)
            assert await port_of(pipeline) == new.port


async def test_a_replica_is_not_taken_for_the_master(servers, sentinels):
    _, _, replica = servers
    for sentinel in sentinels:
        sentinel.master = ("127.0.0.1", replica.port)
    settings = Settings(redis_url=url_of(*sentinels))
    pipeline = AutoPipeline(settings.redis_url, answer_s=5.0)
    async with aclosing(connect(settings)) as redis, aclosing(pipeline):
        with pytest.raises(Unavailable, match="is a replica and not the master"):
            await pipeline.run(PING)
        with pytest.raises(Unavailable, match="is a replica and not the master"), translated():
            await redis.ping()


async def test_a_master_that_refuses_writes_is_asked_about_before_the_next_command(
    servers, sentinels
):
    """Without a watch: the notice of the switch was never heard."""
    old, _, _ = servers
    settings = Settings(redis_url=url_of(*sentinels))
    with RedisServer(tcp=True) as demoted:
        for sentinel in sentinels:
            sentinel.master = ("127.0.0.1", demoted.port)
        pipeline = AutoPipeline(settings.redis_url, answer_s=5.0)
        async with aclosing(connect(settings)) as redis, aclosing(pipeline):
            await pipeline.run(PING)
            await redis.ping()
            with demoted.client() as admin:
                admin.execute_command("REPLICAOF", "127.0.0.1", str(old.port))
            for sentinel in sentinels:
                sentinel.epoch, sentinel.master = 2, ("127.0.0.1", old.port)
            await first_error(pipeline.run([["SET", "tr:x", "1"]]))
            await first_error(redis.set("tr:x", "1"))

            assert await port_of(pipeline) == old.port
            assert (await redis.config_get("port"))["port"] == str(old.port)


async def test_silent_and_absent_sentinels_do_not_stop_the_others(servers, sentinels):
    sentinels[0].is_silent = True
    absent = FakeSentinel(0, None)
    absent.port = free_port()
    settings = Settings(redis_url=url_of(sentinels[0], absent, sentinels[1]))
    async with aclosing(connect(settings)) as redis:
        assert (await redis.config_get("port"))["port"] == str(servers[0].port)
        await check_server(redis)


async def test_without_a_sentinel_that_answers_no_connection_is_opened(sentinels, monkeypatch):
    monkeypatch.setattr(follower, "ASK_S", 0.1)
    for sentinel in sentinels:
        sentinel.is_silent = True
    pipeline = AutoPipeline(url_of(*sentinels), answer_s=5.0)
    async with aclosing(pipeline):
        with pytest.raises(Unavailable):
            await pipeline.run(PING)


async def test_the_sentinels_have_a_login_of_their_own(servers, sentinels, tmp_path: Path):
    file = tmp_path / "password"
    file.write_text("theirs\n")
    for sentinel in sentinels:
        sentinel.password = "theirs"
    url = url_of(*sentinels, options=f"?sentinel_password_file={file}")
    async with aclosing(connect(Settings(redis_url=url))) as redis:
        assert await redis.ping()
    async with aclosing(connect(Settings(redis_url=url_of(*sentinels)))) as redis:
        with pytest.raises(Unavailable, match="NOAUTH"):
            await check_server(redis)


async def test_with_rediss_the_sentinels_and_the_server_use_tls(servers, tmp_path: Path):
    authority = Authority(tmp_path)
    tls, listener = authority.server_context("localhost"), Ears()
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(tls_front(servers[0], tls))
        sentinel = FakeSentinel(1, ("127.0.0.1", port), tls=tls)
        await stack.enter_async_context(sentinel)
        url = url_of(sentinel, options=f"?ssl_ca_certs={authority.ca_file}")
        url = url.replace("redis+", "rediss+")
        pipeline, live = AutoPipeline(url, answer_s=5.0), LiveConnection(url, listener)
        redis = connect(Settings(redis_url=url))
        await stack.enter_async_context(aclosing(pipeline))
        await stack.enter_async_context(aclosing(redis))
        live.subscribe(b"tr:channel")

        assert await pipeline.run(PING) == [b"PONG"]
        assert await redis.ping()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(live.run())
            await until(lambda: listener.subscriptions, 10)
            running.cancel()


async def test_a_service_that_no_sentinel_knows_is_one_line(sentinels):
    for sentinel in sentinels:
        sentinel.master = None
    async with aclosing(connect(Settings(redis_url=url_of(*sentinels)))) as redis:
        with pytest.raises(ConfigurationError, match=f"No such master.*service {SERVICE}") as error:
            await check_server(redis)

    assert "\n" not in str(error.value)


async def test_servers_in_place_of_sentinels_are_one_line(servers):
    url = f"redis+sentinel://127.0.0.1:{servers[0].port}/{SERVICE}"
    async with aclosing(connect(Settings(redis_url=url))) as redis:
        with pytest.raises(ConfigurationError, match="is a Redis server and no sentinel"):
            await check_server(redis)


async def test_arqs_queue_is_at_the_same_master_in_the_next_database(servers, sentinels):
    settings = Settings(redis_url=url_of(*sentinels))

    url, is_shared = await find_jobs_url(settings)

    assert (url.database, is_shared) == (1, False)
    assert url.sentinels is not None
    named = dataclasses.replace(settings, jobs_redis_url=url_of(*sentinels).replace("/0", "/7"))
    assert (await find_jobs_url(named))[0].database == 7


class Ears:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.subscriptions = 0
        self.messages: list[bytes] = []

    def subscribed(self, channel: bytes) -> None:
        self.subscriptions += 1

    def message(self, channel: bytes, payload: bytes) -> None:
        self.messages.append(payload)

    def disconnected(self) -> None:
        pass


async def first_error(awaitable) -> Exception | None:
    """Return the error of a call as the store sees it; None: it had a result."""
    try:
        with translated():
            await awaitable
    except Exception as exc:
        return exc
    return None


def clients(server: RedisServer, command: str) -> list[dict[str, str]]:
    """The connections at a server, without this one and those of replicas."""
    with server.client() as admin:
        me = str(admin.client_id())
        found = admin.client_list(_type="normal") + admin.client_list(_type="pubsub")
    return [c for c in found if c["id"] != me and (not command or c["cmd"] == command)]
