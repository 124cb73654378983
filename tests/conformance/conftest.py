"""A deployment to test from outside: the one at --base-url, or two nodes and a worker of our own.

The tests know docs/protocol.md and nothing else. Those that need a node with settings of its own
start one; they are skipped, saying so, where --base-url names a deployment that we did not start.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest

from tests.support.processes import Deployment
from tests.support.raw_client import RawClient

OwnDeployment = Callable[..., contextlib.AbstractAsyncContextManager[Deployment]]


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Without asyncio's debug mode: only clients run in the test process."""
    return "asyncio", {"debug": False}


@pytest.fixture(scope="session")
async def deployment(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, str, str]]:
    """URL of a node, of another one, and the key."""
    option = request.config.getoption
    if base := option("--base-url"):
        yield base, option("--other-url") or base, option("--key")
        return
    async with Deployment(api=2, workers=1, jobs=1, lease_s=3, moves_slots=True) as deployment:
        yield deployment.urls[0], deployment.urls[1], ""


@pytest.fixture
async def api(deployment: tuple[str, str, str]) -> AsyncIterator[RawClient]:
    async with RawClient(*deployment) as raw_client:
        yield raw_client


@pytest.fixture(scope="session")
def own_deployment(request: pytest.FixtureRequest) -> OwnDeployment:
    """Start one: `async with own_deployment(workers=0, settings={…}) as deployment`."""
    if request.config.getoption("--base-url"):
        pytest.skip("needs a node with settings of its own; --base-url names a running one")
    return partial(Deployment, moves_slots=True)
