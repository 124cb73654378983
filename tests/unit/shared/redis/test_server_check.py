"""The check of the server on real servers: what is refused, in which words, and what passes."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import aclosing, contextmanager

import pytest

from shared.config.settings import Settings
from shared.errors import ConfigurationError, Unavailable
from shared.redis import server_check
from shared.redis.client import translated
from shared.redis.connections import connect
from shared.redis.scripts import FOLDER
from shared.redis.server_check import check_server, find_jobs_url, missing_rights
from tests.support.redis_server import RedisServer, free_port
from tests.support.restricted_user import PASSWORD, USER, add_user, rules_of_the_documents

COMMANDS = {command.split(" ")[0] for command in server_check.COMMANDS}
COMMANDS |= {command.split(" ")[0] for command in server_check.TRANSACTION}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(tcp=True) as found:
        yield found


@contextmanager
def restricted(server: RedisServer, *changes: str) -> Iterator[Settings]:
    """A user with the documented rights, and changes to them."""
    add_user(server, *rules_of_the_documents(), *changes)
    yield Settings(redis_url=f"redis://{USER}:{PASSWORD}@127.0.0.1:{server.port}/0")


async def check(settings: Settings) -> None:
    async with aclosing(connect(settings)) as redis:
        await check_server(redis)


def test_each_command_of_a_script_is_in_the_list() -> None:
    """Redis checks the rights of the user inside scripts, too."""
    found = set()
    for path in FOLDER.glob("*.lua"):
        for name, second in re.findall(
            r"call\((?:redis\.call, )?'(\w+)'(?:, '(\w+)')?", path.read_text()
        ):
            found.add(f"{name}|{second}" if name in ("XGROUP", "XINFO") else name)

    optional = {"INFO", "CLUSTER"}  # the second one only on a cluster
    assert found - COMMANDS == optional, "the script goes on without them"


def test_the_documents_have_the_same_list() -> None:
    rules = rules_of_the_documents()
    commands = {rule[1:].upper() for rule in rules if rule.startswith("+")}

    assert commands == COMMANDS | set(server_check.OPTIONAL)
    assert [rule[1:] for rule in rules if rule.startswith("~")] == list(server_check.KEY_PATTERNS)
    assert [rule[1:] for rule in rules if rule.startswith("&")] == [server_check.CHANNEL_PATTERN]


async def test_a_server_without_users_passes(server: RedisServer) -> None:
    await check(Settings(redis_url=server.url))


async def test_exactly_the_documented_rights_pass(server: RedisServer) -> None:
    with restricted(server) as settings:
        await check(settings)


@pytest.mark.parametrize("right", sorted(COMMANDS))
async def test_each_missing_right_is_named(server: RedisServer, right: str) -> None:
    with restricted(server, f"-{right.lower()}") as settings:
        with pytest.raises(ConfigurationError, match=f"(?i){right.split('|')[0]}"):
            await check(settings)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        (["resetkeys", "~arq:*"], "keys tr"),
        (["resetkeys", "~tr:*"], "keys tr"),
        (["resetchannels"], "channels tr"),
    ],
)
async def test_missing_patterns_are_named(
    server: RedisServer, changes: list[str], word: str
) -> None:
    with restricted(server, *changes) as settings, pytest.raises(ConfigurationError, match=word):
        await check(settings)


async def test_asking_for_rights_changes_nothing(server: RedisServer) -> None:
    with server.client() as client:
        client.flushall()
        async with aclosing(connect(Settings(redis_url=server.url))) as redis:
            assert await missing_rights(redis) == []
            assert await redis.ping(), "and the client is still good"

        assert client.keys() == []


async def test_a_user_without_info_passes_with_a_warning(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with restricted(server, "-info") as settings, caplog.at_level(logging.WARNING):
        await check(settings)

    assert [record.message for record in caplog.records] == ["redis not checked"]


async def test_rights_that_are_taken_away_later_are_a_refusal_and_no_crash(
    server: RedisServer,
) -> None:
    with restricted(server) as settings:
        async with aclosing(connect(settings)) as redis:
            await check_server(redis)
            add_user(server, "-get")
            with pytest.raises(Unavailable, match="refuses"), translated():
                await redis.get("tr:x")


# Databases and the mode


@pytest.mark.parametrize("is_tcp", [True, False])
async def test_the_database_must_exist(
    server: RedisServer, redis_server: RedisServer, is_tcp: bool
) -> None:
    """On a unix socket redis-py says that it cannot connect."""
    url = redis_server.url.replace("db=0", "db=16")
    if is_tcp:
        url = f"redis://127.0.0.1:{server.port}/16"

    with pytest.raises(ConfigurationError, match="(?i)TAILRACE_REDIS_URL: .*range"):
        await check(Settings(redis_url=url))


@pytest.mark.parametrize(
    ("databases", "named", "jobs", "is_shared"),
    [("1", 0, 0, True), ("2", 0, 1, False), ("2", 1, 1, True), ("16", 15, 15, True)],
)
async def test_arq_shares_the_database_if_there_is_no_next_one(
    databases: str, named: int, jobs: int, is_shared: bool
) -> None:
    with RedisServer(tcp=True, options={"databases": databases}) as one:
        settings = Settings(redis_url=f"redis://127.0.0.1:{one.port}/{named}")
        await check(settings)
        url, shares = await find_jobs_url(settings)

    assert (url.database, shares) == (jobs, is_shared)


async def test_a_database_that_the_user_may_not_select_is_named(server: RedisServer) -> None:
    with restricted(server, "-select") as settings:
        with pytest.raises(ConfigurationError, match="TAILRACE_REDIS_URL: .*'select'"):
            await check(Settings(redis_url=settings.redis_url.removesuffix("0") + "1"))


async def test_arq_shares_the_last_database_on_a_unix_socket(redis_server: RedisServer) -> None:
    url = redis_server.url.replace("db=0", "db=15")

    assert (await find_jobs_url(Settings(redis_url=url)))[1]


async def test_arq_shares_the_database_if_the_user_may_not_select(server: RedisServer) -> None:
    with restricted(server, "-select") as settings:
        url, is_shared = await find_jobs_url(settings)

    assert (url.database, is_shared) == (0, True)


async def test_a_named_place_of_arq_must_be_usable(server: RedisServer) -> None:
    url = f"redis://127.0.0.1:{server.port}"

    found, is_shared = await find_jobs_url(Settings(redis_url=url, jobs_redis_url=f"{url}/7"))
    assert (found.database, is_shared) == (7, False)
    with pytest.raises(ConfigurationError, match="TAILRACE_JOBS_REDIS_URL: .*range"):
        await find_jobs_url(Settings(redis_url=url, jobs_redis_url=f"{url}/16"))
    with pytest.raises(Unavailable):
        await find_jobs_url(Settings(redis_url=url, jobs_redis_url="redis://127.0.0.1:1"))


async def test_a_server_in_cluster_mode_is_refused_in_words() -> None:
    # By default the cluster's port is 10,000 higher, which may not exist.
    options = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    with RedisServer(tcp=True, options=options) as one:
        settings = Settings(redis_url=one.url)
        with pytest.raises(ConfigurationError, match="cluster mode"):
            await check(settings)
        with pytest.raises(ConfigurationError, match="TAILRACE_JOBS_REDIS_URL: .*cluster mode"):
            await find_jobs_url(Settings(redis_url="redis://h", jobs_redis_url=one.url))
        add_user(one, *rules_of_the_documents(), "-info")
        with pytest.raises(ConfigurationError, match="cluster mode"):
            await check(Settings(redis_url=f"redis://{USER}:{PASSWORD}@127.0.0.1:{one.port}"))
