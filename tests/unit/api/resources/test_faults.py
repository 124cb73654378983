"""Who may ask a node for a fault, and what the node asks its supervisor for."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from shared.redis import keys
from tests.support.shell import ALICE, OPERATOR, Shell

TOKEN_HEADER = "x-break-token"
FOREIGN = {
    "another site": {"sec-fetch-site": "cross-site"},
    "another port of this machine": {"sec-fetch-site": "same-site"},
    "a typed address": {"sec-fetch-site": "none"},
    "a proxy": {"x-forwarded-for": "127.0.0.1"},
    "a proxy of another kind": {"via": "1.1 proxy"},
    "another name": {"host": "tailrace.example.org"},
}


class Supervisor:
    """Notes what it is asked for, and answers `reply`."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.reply: dict[str, Any] = {"done": "worker 1 is killed"}

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(json.loads(await reader.readline()))
        writer.write(json.dumps(self.reply).encode() + b"\n")
        await writer.drain()
        writer.close()


@asynccontextmanager
async def supervised(**settings: str) -> AsyncIterator[tuple[Shell, Supervisor]]:
    supervisor = Supervisor()
    server = await asyncio.start_server(supervisor.answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    shell = Shell(break_control=f"127.0.0.1:{port}/secret", **settings)
    shell.client = client_at(shell, "127.0.0.1")
    yield shell, supervisor
    server.close()


def client_at(shell: Shell, address: str) -> httpx2.AsyncClient:
    """Return a client whose requests come from an address."""
    transport = httpx2.ASGITransport(app=shell.app, client=(address, 40_000))
    return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


async def running(shell: Shell, worker: str = "vm-1") -> str:
    """Return the id of a generation that a worker writes; of nobody with an empty name."""
    generation_id: str = (await shell.post()).json()["id"]
    await shell.redis.hset(keys.meta(generation_id), "status", "running")
    if worker:
        fields = {"worker": worker, "lease": "9999999999999"}
        await shell.redis.hset(keys.meta(generation_id), mapping=fields)
    return generation_id


async def token_of(shell: Shell) -> str:
    answer = await shell.client.get("/v1/break", headers=OPERATOR)
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["token"]
    return token


async def test_a_fault_acts_on_the_worker_that_writes_the_answer() -> None:
    async with supervised(auth="off", api_keys="") as (shell, supervisor):
        generation_id = await running(shell)
        headers = {TOKEN_HEADER: await token_of(shell)}
        url = f"/v1/break/worker?id={generation_id}"
        answer = await shell.client.post(url, headers=headers)

    assert (answer.status_code, answer.json()) == (202, {"done": "worker 1 is killed"})
    assert supervisor.asked[-1] == {
        **{"token": "secret", "do": "worker", "pid": os.getpid()},
        **{"id": generation_id, "worker": "vm-1"},
    }


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_of_a_stranger_breaks_nothing(method: str, name: str) -> None:
    async with supervised(auth="off", api_keys="") as (shell, supervisor):
        headers = {TOKEN_HEADER: await token_of(shell), **FOREIGN[name]}
        path = "/v1/break" if method == "GET" else "/v1/break/node"
        asked = len(supervisor.asked)
        answer = await shell.client.request(method, path, headers=headers)

    assert answer.status_code == 403
    assert len(supervisor.asked) == asked


async def test_a_request_of_another_machine_breaks_nothing() -> None:
    async with supervised(auth="off", api_keys="") as (shell, supervisor):
        headers = {TOKEN_HEADER: await token_of(shell)}
        answer = await client_at(shell, "192.0.2.7").post("/v1/break/node", headers=headers)

    assert answer.status_code == 403
    assert [asked["do"] for asked in supervisor.asked] == ["notes"]


@pytest.mark.parametrize("given", [{}, {TOKEN_HEADER: ""}, {TOKEN_HEADER: "0" * 32}])
async def test_a_fault_needs_the_token_of_the_page(given: dict[str, str]) -> None:
    async with supervised(auth="off", api_keys="") as (shell, supervisor):
        answer = await shell.client.post("/v1/break/node", headers=given)

    assert answer.status_code == 403
    assert supervisor.asked == []


async def test_with_keys_a_fault_needs_the_scope_admin() -> None:
    async with supervised() as (shell, _):
        headers = {TOKEN_HEADER: await token_of(shell)}
        refused = await shell.client.post("/v1/break/node", headers={**headers, **ALICE})
        done = await shell.client.post("/v1/break/node", headers={**headers, **OPERATOR})

    assert (refused.status_code, done.status_code) == (403, 202)


async def test_a_key_does_not_help_a_page_under_another_name() -> None:
    """With credentials a node answers to every name, and another site may have pointed its own."""
    async with supervised() as (shell, supervisor):
        headers = {**OPERATOR, "host": "tailrace.example.org"}
        answer = await shell.client.get("/v1/break", headers=headers)

    assert answer.status_code == 403
    assert supervisor.asked == []


@pytest.mark.parametrize("changes", [{}, {"break_control": "127.0.0.1:9/x", "host": "0.0.0.0"}])
async def test_other_nodes_have_no_such_path(changes: dict[str, str]) -> None:
    """Without a supervisor of `tailrace up`, or where other machines can reach the node."""
    shell = Shell(**changes)
    read = await shell.get("/v1/break", **OPERATOR)
    broken = await shell.client.post("/v1/break/node", headers=OPERATOR)

    assert (read.status_code, broken.status_code) == (404, 404)


Refused = Callable[[Shell], Awaitable[str]]


async def nobody_writes(shell: Shell) -> str:
    return f"worker?id={await running(shell, worker='')}"


async def is_over(shell: Shell) -> str:
    generation_id = await running(shell)
    await shell.redis.hset(keys.meta(generation_id), "status", "completed")
    return f"freeze?id={generation_id}"


async def of_nobody(shell: Shell) -> str:
    return "worker?id=gen_aaaaaaaaaaaaaaaaaaaaaaaaaa"


async def unknown(shell: Shell) -> str:
    return "everything"


@pytest.mark.parametrize(
    ("refused", "status"), [(nobody_writes, 422), (is_over, 422), (of_nobody, 404), (unknown, 404)]
)
async def test_a_fault_that_is_impossible_says_why(refused: Refused, status: int) -> None:
    async with supervised(auth="off", api_keys="") as (shell, supervisor):
        headers = {TOKEN_HEADER: await token_of(shell)}
        answer = await shell.client.post(f"/v1/break/{await refused(shell)}", headers=headers)

    assert answer.status_code == status
    assert [asked["do"] for asked in supervisor.asked] == ["notes"]


async def test_the_refusal_of_the_supervisor_reaches_the_page() -> None:
    async with supervised(auth="off", api_keys="") as (shell, supervisor):
        headers = {TOKEN_HEADER: await token_of(shell)}
        supervisor.reply = {"refused": "too many faults at once"}
        answer = await shell.client.post("/v1/break/node", headers=headers)

    assert answer.status_code == 422
    assert answer.json()["error"]["message"] == "too many faults at once"


async def test_without_a_supervisor_the_node_says_so() -> None:
    async with supervised(auth="off", api_keys="") as (shell, _):
        pass
    answer = await shell.client.get("/v1/break")

    assert answer.status_code == 503
