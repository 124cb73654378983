"""One deployment per file of fault tests; before each test all roles of a deployment run again."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from signal import SIGKILL

import pytest

from tests.support.fault_run import FaultRun
from tests.support.processes import MASTERS_MODE, Deployment
from tests.support.raw_client import RawClient
from tests.support.redis_server import RedisServer
from tests.support.slow_answer import models_by_takeover
from tests.support.stream_client import StreamClient
from tests.support.upstream import Upstream

LEASE_S = 0.8


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Without asyncio's debug mode: only clients run in the test process."""
    return "asyncio", {"debug": False}


@pytest.fixture(scope="module")
async def shared_deployment() -> AsyncIterator[Deployment]:
    if MASTERS_MODE:
        async with Deployment(api=2, workers=2, jobs=True, lease_s=LEASE_S) as deployment:
            yield deployment
        return
    debug = {"enable-debug-command": "yes"}  # DEBUG SLEEP
    with RedisServer(aof="everysec", tcp=True, options=debug) as server:
        async with Deployment(
            api=2, workers=2, jobs=True, lease_s=LEASE_S, server=server
        ) as deployment:
            yield deployment


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture(scope="module")
async def upstream_deployment(upstream: Upstream) -> AsyncIterator[Deployment]:
    """Two models at `upstream`; a file's `shared_deployment` may return this deployment."""
    models = models_by_takeover(upstream.base_url, "continue", "restart")
    # The SDK needs seconds for its first event, and answers no ping meanwhile.
    settings = {"heartbeat_s": "5", "backend_cooldown_s": "1"}
    async with Deployment(
        api=2, workers=2, lease_s=LEASE_S, models=models, settings=settings
    ) as deployment:
        yield deployment


@pytest.fixture
async def deployment(shared_deployment: Deployment) -> AsyncIterator[Deployment]:
    await shared_deployment.heal()
    yield shared_deployment
    for role in shared_deployment.roles:
        # The role runs, was drained or was killed by the test: no fault may end a role by itself.
        assert role.process is None or role.process.poll() in (None, 0, -SIGKILL), role.stderr()
    await shared_deployment.heal()


@pytest.fixture
async def fault_run(deployment: Deployment) -> AsyncIterator[FaultRun]:
    async with FaultRun(deployment) as fault_run:
        yield fault_run


@pytest.fixture
async def api(deployment: Deployment) -> AsyncIterator[RawClient]:
    async with RawClient(*deployment.urls) as raw_client:
        yield raw_client


@pytest.fixture
async def streams(deployment: Deployment) -> AsyncIterator[StreamClient]:
    async with StreamClient(deployment.urls) as client:
        yield client


@pytest.fixture
def stream_path() -> str:
    return f"faults/{secrets.token_hex(6)}"


@pytest.fixture
def figure(record_property, capsys):
    """Say a measured figure: in the junit report, and on the terminal."""

    def say(name: str, value: str) -> None:
        record_property(name, value)
        with capsys.disabled():
            print(f"\n    {name}: {value}")  # noqa: T201 - the figure is the output

    return say
