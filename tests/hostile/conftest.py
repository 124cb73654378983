"""A node as a process that everything is thrown at; after each test it must be as it was.

The worker's demo answers at once, so that a generation that a fuzzer starts by accident is over
before the next one.

With `--base-url` the attacks run against that deployment instead (`make hostile BASE_URL=…`). Tests
that look inside the process or need settings of their own are left out of such a run: they are the
tests that ask for one of the fixtures in `INSIDE`.
"""

from __future__ import annotations

import contextlib
import inspect
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.support.footprint import connections, descriptors
from tests.support.processes import Deployment, Role
from tests.support.raw_client import RawClient
from tests.support.wait import until

QUICK = '[models.demo]\nbackend = "demo"\non_takeover = "continue"\ntokens_per_s = 0\n'
REDIS_MAX = 40  # connections to Redis that are kept for as many requests at once
# Against a deployment that refuses the key every attack fails, which would prove nothing.
PREFLIGHT_S = 10.0
# The last three: deployments of one module, and programs that run on this machine.
INSIDE = {"node", "deployment", "own_deployment", "quoting", "talking", "tmp_path"}

OwnDeployment = Callable[..., contextlib.AbstractAsyncContextManager[Deployment]]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Against a deployment of somebody's, keep the tests that need nothing but its URL."""
    if not config.getoption("--base-url"):
        return
    here = [item for item in items if "hostile" in item.path.parts]
    inside = [item for item in here if INSIDE & set(_asked_for(item))]
    config.hook.pytest_deselected(items=inside)
    items[:] = [item for item in items if item not in inside]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Stop at once where the deployment does not take the key, or none answers."""
    base, key = session.config.getoption("--base-url"), session.config.getoption("--key")
    if not base:
        return
    request = urllib.request.Request(f"{base.rstrip('/')}/v1/models")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        urllib.request.urlopen(request, timeout=PREFLIGHT_S).close()
    except OSError as exc:  # HTTPError is one
        pytest.exit(f"{base} does not serve GET /v1/models with this key: {exc}", 2)


def _asked_for(item: pytest.Item) -> Iterator[str]:
    if isinstance(item, pytest.Function):
        # hypothesis wraps the function; what it wraps names the fixtures.
        yield from inspect.signature(inspect.unwrap(item.function)).parameters
        # Also by way of a fixture of the module's.
        yield from {"own_deployment"} & set(item.fixturenames)


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Without asyncio's debug mode, which would only slow the attacking clients down."""
    return "asyncio", {"debug": False}


@pytest.fixture(scope="module")
async def deployment(request: pytest.FixtureRequest) -> AsyncIterator[Deployment | None]:
    """The node and its worker; None where `--base-url` names a deployment."""
    if request.config.getoption("--base-url"):
        yield None
        return
    settings = {"heartbeat_s": "15", "hub_bytes_max": "4000000", "ws_deflate": "on"}
    async with Deployment(api=1, workers=1, models=QUICK, settings=settings) as deployment:
        yield deployment


@pytest.fixture(scope="session")
def own_deployment() -> OwnDeployment:
    """Start a deployment with other settings: `async with own_deployment(settings={…})`."""
    return Deployment


@pytest.fixture
async def node(deployment: Deployment | None) -> AsyncIterator[Role | None]:
    """The process. A test fails by what it leaves open, or by a line at the level error."""
    if deployment is None:
        yield None
        return
    role = deployment.api[0]
    pid = role.pid
    yield role
    assert role.is_running and role.pid == pid, role.stderr()
    await until(lambda: connections(role.port) == 0, 20, "every connection is let go")
    assert descriptors(pid) < REDIS_MAX
    assert '"level": "error"' not in role.output.read_text(), role.stderr()


@pytest.fixture
async def api(node: Role | None, request: pytest.FixtureRequest) -> AsyncIterator[RawClient]:
    """A client of the node under attack: ours, or the one that `--base-url` names."""
    option = request.config.getoption
    target = (
        (node.url, "", "")
        if node
        else (option("--base-url"), option("--other-url"), option("--key"))
    )
    async with RawClient(*target) as raw_client:
        yield raw_client


@pytest.fixture
async def ended(api: RawClient) -> str:
    """A generation that has ended, with a handful of events."""
    return await api.finished({"prompt": "x", "params": {"demo": {"tokens": 6}}})
