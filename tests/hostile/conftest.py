"""A node as a process that everything is thrown at; after each test it must be as it was.

The worker's demo answers at once, so that a generation that a fuzzer starts by accident is over
before the next one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.footprint import connections, descriptors
from tests.support.outsider import Outsider
from tests.support.processes import Cluster, Role
from tests.support.wait import until

QUICK = '[models.demo]\nbackend = "demo"\non_takeover = "continue"\ntokens_per_s = 0\n'
REDIS_MAX = 40  # connections to Redis that are kept for as many requests at once


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Without asyncio's debug mode: here it would only slow down who throws."""
    return "asyncio", {"debug": False}


@pytest.fixture(scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    settings = {"heartbeat_s": "15", "hub_bytes_max": "4000000"}
    async with Cluster(api=1, workers=1, models=QUICK, settings=settings) as cluster:
        yield cluster


@pytest.fixture
async def node(cluster: Cluster) -> AsyncIterator[Role]:
    """The process. A test fails by what it leaves open, or by a line at the level error."""
    role = cluster.api[0]
    pid = role.pid
    yield role
    assert role.is_running and role.pid == pid, role.stderr()
    await until(lambda: connections(role.port) == 0, 20, "every connection is let go")
    assert descriptors(pid) < REDIS_MAX
    assert '"level": "error"' not in role.output.read_text(), role.stderr()


@pytest.fixture
async def api(node: Role) -> AsyncIterator[Outsider]:
    async with Outsider(node.url) as outsider:
        yield outsider


@pytest.fixture
async def ended(api: Outsider) -> str:
    """A generation that has ended, with a handful of events."""
    return await api.finished({"prompt": "x", "params": {"demo": {"tokens": 6}}})
