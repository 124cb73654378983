"""A deployment whose jobs processes have short pauses and can die (faulty_jobs.py)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from tests.support.demo import demo_body
from tests.support.processes import Deployment, Role
from tests.support.receiver import SECRET
from tests.support.redis_server import RedisServer
from tests.support.wait import until

DEADLINE_S = 30.0
ODD = "tests.support.faulty_jobs"


@contextlib.asynccontextmanager
async def faulty_deployment(*, jobs: int = 2) -> AsyncIterator[Deployment]:
    """One node, one worker, and jobs processes; on a server that keeps its file."""
    with RedisServer(aof="everysec", tcp=True) as server:
        settings = {"webhook_private": "allow"}
        deployment = Deployment(api=1, workers=1, jobs=jobs, server=server, settings=settings)
        for role in deployment.jobs:
            role.module = ODD
        async with deployment:
            yield deployment


async def call(deployment: Deployment, method: str, path: str, **kwargs: Any) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, deployment.urls[0] + path, **kwargs) as response,
    ):
        return response.status, await response.json()


async def ask(deployment: Deployment, url: str, **members: Any) -> str:
    """Start a short answer whose end is to be told to `url`."""
    body = {**demo_body(5, 200), "webhook": {"url": url, "secret": SECRET}, **members}
    status, found = await call(deployment, "POST", "/v1/generations", json=body)
    assert status == 202, found
    return str(found["id"])


async def plan(deployment: Deployment, session: str, **members: Any) -> dict[str, Any]:
    """Schedule a short answer in a session of its own."""
    body = {**demo_body(3, 100), "session": session, **members}
    status, found = await call(deployment, "POST", "/v1/generations", json=body)
    assert status == 202, found
    return dict(found)


async def fired(deployment: Deployment, schedule: dict[str, Any]) -> dict[str, Any]:
    """Wait until a schedule has made something; returns the schedule as it is then."""

    async def look() -> Any:
        status, found = await call(deployment, "GET", f"/v1/schedules/{schedule['id']}")
        return found if status == 200 and found["last_id"] else None

    return dict(await until(look, DEADLINE_S, "the firing"))


async def made(deployment: Deployment, session: str) -> list[str]:
    """The generations of a session."""
    _, found = await call(deployment, "GET", f"/v1/sessions/{session}")
    return [one["id"] for one in found["generations"]]


async def first_dead(deployment: Deployment) -> Role:
    """Wait until one of the jobs processes has died."""

    def look() -> Role | None:
        return next((role for role in deployment.jobs if not role.is_running), None)

    found: Role = await until(look, DEADLINE_S, "a death")
    return found
