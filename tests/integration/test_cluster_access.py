"""Clusters that want TLS, a user and IPv6: all roles reach every node with what the URL says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from shared.redis import server_check
from tests.support.certificates import Authority
from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun
from tests.support.processes import Deployment, run_role
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.restricted_user import (
    PAGE,
    PASSWORD,
    USER,
    add_user,
    rules_of_the_documents,
)
from tests.support.tls_front import tls_front

CLUSTER_RULES = "+asking +cluster|info +cluster|slots +spublish +ssubscribe +sunsubscribe".split()


async def has_answered(deployment: Deployment) -> None:
    """Return when some answers, spread over the masters, have ended whole for their readers."""
    async with FaultRun(deployment) as run:
        for _ in range(6):
            await run.start(demo_body(5, 200))
        await asyncio.gather(*(task for each in run.playing for task in each.tasks))
        for each in run.playing:
            assert all(reading.end is not None for reading in each.readings)


async def test_all_roles_reach_a_cluster_behind_tls_with_a_restricted_user(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = authority.server_context("localhost")
    redis = RedisCluster()
    async with AsyncExitStack() as stack:
        for server in redis.servers:
            port = await stack.enter_async_context(tls_front(server, tls))
            server.options["cluster-announce-port"] = str(port)
            server.options["cluster-announce-hostname"] = "localhost"
            server.options["cluster-preferred-endpoint-type"] = "hostname"
        await stack.enter_async_context(redis)
        for server in redis.servers:
            add_user(server, *rules_of_the_documents(), *CLUSTER_RULES)
        jobs = stack.enter_context(RedisServer(tcp=True))
        first = redis.servers[0].options["cluster-announce-port"]
        options = f"ssl_ca_certs={authority.ca_file}&ssl_check_hostname=true"
        url = f"rediss+cluster://{USER}:{PASSWORD}@localhost:{first}?{options}"
        settings = {"jobs_redis_url": jobs.url}
        async with Deployment(
            api=1, workers=1, jobs=1, server=jobs, redis_url=url, settings=settings
        ) as deployment:
            await has_answered(deployment)
        for server in redis.servers:
            with server.client() as client:
                assert client.acl_log() == []


async def test_all_roles_reach_a_cluster_that_names_its_nodes_by_ipv6() -> None:
    redis = RedisCluster(options={"bind": "127.0.0.1 ::1"})
    for server in redis.servers:
        server.options["cluster-announce-ip"] = "::1"
    async with redis:
        with RedisServer(tcp=True) as jobs:
            url = f"redis+cluster://[::1]:{redis.servers[0].port}"
            settings = {"jobs_redis_url": jobs.url}
            async with Deployment(
                api=1, workers=1, jobs=1, server=jobs, redis_url=url, settings=settings
            ) as deployment:
                await has_answered(deployment)


@pytest.mark.parametrize("role", ["api", "worker", "jobs"])
async def test_a_right_that_only_a_cluster_needs_is_named(role: str, one_master: RedisCluster):
    server = one_master.servers[0]
    add_user(server, "reset", *rules_of_the_documents(), *CLUSTER_RULES, "-ssubscribe")
    url = f"redis+cluster://{USER}:{PASSWORD}@127.0.0.1:{server.port}"

    code, said = await run_role(role, {"TAILRACE_REDIS_URL": url, "TAILRACE_PORT": "0"})

    assert code == 2
    assert len(said.splitlines()) == 1 and "SSUBSCRIBE" in said


async def test_the_jobs_role_needs_a_plain_redis_for_arq(one_master: RedisCluster) -> None:
    code, said = await run_role("jobs", {"TAILRACE_REDIS_URL": one_master.url})

    assert code == 2
    assert len(said.splitlines()) == 1 and "TAILRACE_JOBS_REDIS_URL is not set" in said


@pytest.mark.parametrize("role", ["api", "worker", "jobs"])
async def test_a_single_server_behind_a_cluster_url_is_refused_in_words(role: str) -> None:
    with RedisServer(tcp=True) as server:
        url = server.url.replace("redis://", "redis+cluster://")
        code, said = await run_role(role, {"TAILRACE_REDIS_URL": url, "TAILRACE_PORT": "0"})

    assert code == 2
    assert len(said.splitlines()) == 1 and "without cluster mode" in said


@pytest.fixture(scope="module")
async def one_master() -> AsyncIterator[RedisCluster]:
    async with RedisCluster(masters=1) as deployment:
        yield deployment


def test_the_page_lists_the_rights_that_are_asked_for() -> None:
    asked = {f"+{command.split(' ')[0].lower()}" for command in server_check.CLUSTER_COMMANDS}
    found = re.search(r"needs these as well: `([^`]*)`", PAGE.read_text())

    assert found and set(found[1].split()) == asked == set(CLUSTER_RULES)
