"""Real browsers and packages at two nodes of our own, whose pages are on another origin.

test_deployment.py drives the deployment at --base-url instead, where one is named. The others kill
processes, or need an upstream that fails as told: they run on these nodes all the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.browser import Browser, PageServer
from tests.support.processes import Deployment
from tests.support.upstream import Upstream

LEASE_S = 0.8
TABLE = """
[models.{name}]
backend = "openai"
base_url = "{url}"
on_takeover = "{name}"
"""
DEMO = """
[models.demo]
backend = "demo"
"""


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with Browser() as browser:
        yield browser


@pytest.fixture(scope="session")
async def pages() -> AsyncIterator[PageServer]:
    async with PageServer() as pages:
        yield pages


@pytest.fixture(scope="session")
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture(scope="session")
async def shared_deployment(upstream: Upstream, pages: PageServer) -> AsyncIterator[Deployment]:
    models = "".join(
        TABLE.format(name=name, url=upstream.base_url) for name in ("continue", "restart")
    )
    models += DEMO
    # Every client that asks for it gets compressed streams and messages; browsers and Node.js do.
    settings = {
        "cors_origins": pages.origin, "grace_s": "0.5", "stream_encodings": "gzip,zstd,br",
        "ws_deflate": "on",
    }  # fmt: skip
    async with Deployment(
        api=2, workers=2, lease_s=LEASE_S, models=models, settings=settings
    ) as deployment:
        yield deployment


@pytest.fixture
async def deployment(shared_deployment: Deployment) -> AsyncIterator[Deployment]:
    await shared_deployment.heal()
    yield shared_deployment
