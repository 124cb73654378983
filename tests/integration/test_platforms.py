"""Tailrace on servers and machines that allow little: one database, few rights, no disk."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import openai
import pytest

from jobs.janitor import Rounds
from shared.config.settings import Settings
from shared.files.store import FileStore
from shared.redis.connections import connect
from tests.support.batch import demo_line, encoded, ended, submit
from tests.support.demo import demo_body
from tests.support.jobs import DEADLINE_S, ask, call, fired
from tests.support.processes import Deployment, run_role
from tests.support.raw_client import RawClient
from tests.support.receiver import Receiver
from tests.support.redis_server import RedisServer, free_port
from tests.support.restricted_user import PASSWORD, USER, add_user, rules_of_the_documents
from tests.support.wait import until

ROLES = ("api", "worker", "jobs")


@pytest.fixture(scope="module")
async def cluster_mode() -> AsyncIterator[RedisServer]:
    options = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    with RedisServer(tcp=True, options=options) as server:
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        yield server


@pytest.mark.parametrize(
    ("databases", "changes"),
    [("16", []), ("1", ["-select", "-info", "-config|get"])],
    ids=["the documented rights", "one database and no optional right"],
)
async def test_a_restricted_user_can_do_everything(databases: str, changes: list[str]) -> None:
    """A generation with a webhook, a batch and a schedule, through all roles."""
    options = {"databases": databases}
    with RedisServer(tcp=True, options=options) as server:
        add_user(server, *rules_of_the_documents(), *changes)
        url = f"redis://{USER}:{PASSWORD}@127.0.0.1:{server.port}/0"
        deployment = Deployment(
            api=1, workers=1, jobs=1, server=server, redis_url=url,
            settings={"webhook_private": "allow"},
        )  # fmt: skip
        async with deployment, Receiver() as receiver:
            client = openai.AsyncOpenAI(base_url=f"{deployment.urls[0]}/v1", api_key="x")
            async with client:
                content = BOM_UTF8 + encoded(demo_line(number) for number in range(3))
                batch = await submit(client, content)
                await ask(deployment, receiver.url)
                body = {**demo_body(3, 100), "run_at": datetime.now(UTC).isoformat()}
                status, schedule = await call(deployment, "POST", "/v1/generations", json=body)
                assert status == 202, schedule

                assert (await fired(deployment, schedule))["last_error"] is None
                done = await ended(client, batch.id)
                assert (done.status, done.request_counts.completed) == ("completed", 3)
                await until(lambda: receiver.calls, DEADLINE_S, "the webhook")
        with server.client() as client:
            refused = {entry["object"] for entry in client.acl_log()}
        assert refused == {change[1:] for change in changes} - {"config|get"}, "Redis's own list"


async def test_a_round_of_the_janitor_needs_no_further_right(tmp_path: Path) -> None:
    with RedisServer(tcp=True) as server:
        add_user(server, *rules_of_the_documents())
        url = f"redis://{USER}:{PASSWORD}@127.0.0.1:{server.port}/0"
        settings = Settings(redis_url=url, data_dir=str(tmp_path))
        async with aclosing(connect(settings)) as redis:
            await Rounds(redis, FileStore(redis, settings), settings).make()
        with server.client() as client:
            assert client.acl_log() == []


@pytest.mark.parametrize("role", ROLES)
async def test_a_server_in_cluster_mode_ends_a_role_in_words(
    cluster_mode: RedisServer, role: str
) -> None:
    code, said = await run_role(
        role, {"TAILRACE_REDIS_URL": cluster_mode.url, "TAILRACE_PORT": "0"}
    )

    assert code == 2
    assert len(said.splitlines()) == 1 and "cluster mode" in said


async def test_a_node_that_was_there_first_is_not_ready_and_says_why() -> None:
    options = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    server = RedisServer(tcp=True, options=options)
    deployment = Deployment(api=1, workers=0, server=server, is_waiting_for_workers=False)
    async with deployment, RawClient(deployment.urls[0]) as raw_client:

        async def says_why() -> bool:
            answer = (await raw_client.get("/readyz")).json()
            return answer["checks"]["server"] is False and "cluster mode" in answer["problems"][0]

        with server:
            await until(says_why, DEADLINE_S, "the problem")


@pytest.mark.parametrize(
    ("role", "options"),
    [("api", "decode_responses=true"), ("worker", "ssl_cert_reqs=none"), ("jobs", "protocol=3")],
)
async def test_an_option_that_cannot_work_is_one_line(role: str, options: str) -> None:
    code, said = await run_role(role, {"TAILRACE_REDIS_URL": f"redis://127.0.0.1:1?{options}"})

    assert code == 2
    assert len(said.splitlines()) == 1 and options.partition("=")[0] in said


async def test_options_that_work_work_for_all_roles(redis_server: RedisServer) -> None:
    options = "client_name=tailrace&health_check_interval=1&decode_responses=false&protocol=2"
    url = f"{redis_server.url}&{options}"
    async with Deployment(
        api=1, workers=1, jobs=1, server=redis_server, redis_url=url
    ) as deployment:
        status, made = await call(deployment, "POST", "/v1/generations", json=demo_body(3, 100))
        assert status == 202

        async def has_ended() -> bool:
            _, found = await call(deployment, "GET", f"/v1/generations/{made['id']}")
            return bool(found["status"] == "completed")

        await until(has_ended, DEADLINE_S, "the answer")


async def test_the_variables_of_a_kubernetes_service_do_not_stop_a_role(
    redis_server: RedisServer,
) -> None:
    service = {
        "TAILRACE_SERVICE_HOST": "10.0.0.1",
        "TAILRACE_SERVICE_PORT": "8000",
        "TAILRACE_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "TAILRACE_REDIS_PORT": "tcp://10.0.0.2:6379",
    }
    async with Deployment(api=1, workers=1, jobs=1, server=redis_server) as deployment:
        for role in deployment.roles:
            role.terminate()
            await role.ended(10)
            role.settings |= service
        deployment.workers[0].settings["TAILRACE_PORT"] = "tcp://10.0.0.1:8000"
        for role in deployment.roles:
            role.start()
        await deployment.ready()
        for role in deployment.roles:
            assert role.stderr().count("service variables ignored") == 1


async def test_without_a_place_for_files_only_uploads_fail(redis_server: RedisServer) -> None:
    """As in a read-only container of a user without a home directory."""
    settings = {"data_dir": "/dev/null"}
    deployment = Deployment(api=1, workers=1, jobs=1, server=redis_server, settings=settings)
    async with deployment, RawClient(deployment.urls[0]) as raw_client:
        client = openai.AsyncOpenAI(base_url=f"{deployment.urls[0]}/v1", api_key="x", max_retries=0)
        async with client:
            with pytest.raises(openai.InternalServerError) as error:
                await client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
            assert error.value.status_code == 503
        assert "TAILRACE_FILES_URL" in deployment.api[0].stderr(), "the log says what to set"
        assert (await raw_client.get("/v1/files")).status == 200
        status, _ = await call(deployment, "POST", "/v1/generations", json=demo_body(3, 100))
        assert status == 202
