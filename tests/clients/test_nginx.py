"""The shipped nginx configuration, run by a real nginx before two real nodes.

tests/unit/test_compose.py reads the file; here nginx does. What is asked: does a client of nginx's
ever pay for what another client sends, and does nginx say the API's own words where no node does?
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from tests.support.nginx import Nginx
from tests.support.processes import Deployment
from tests.support.raw_client import Answer, RawClient
from tests.support.raw_wire import exchange, handshake, raw_connection
from tests.support.wait import until

REQUESTS = 98
EACH = 2  # requests of others behind each attack
CONNECTIONS_MAX = 512  # of one address, as deploy/nginx.conf has it
DEADLINE_S = 10.0
BODY = {
    "length": ({"Content-Length": "5"}, b"hello"),
    "chunks": ({"Transfer-Encoding": "chunked"}, b"5\r\nhello\r\n0\r\n\r\n"),
}


@pytest.fixture(scope="module")
async def nodes() -> AsyncIterator[Deployment]:
    async with Deployment(api=2, workers=1) as deployment:
        yield deployment


@pytest.fixture
async def nginx(nodes: Deployment) -> AsyncIterator[Nginx]:
    await nodes.heal()
    async with Nginx([role.port for role in nodes.api]) as nginx:
        yield nginx


@pytest.fixture
async def raw_client(nginx: Nginx) -> AsyncIterator[RawClient]:
    async with RawClient(nginx.url) as raw_client:
        yield raw_client


def said(answer: Answer) -> dict[str, object]:
    """The error of an answer that nginx gives by itself."""
    assert answer.headers["content-type"] == "application/json", answer.body
    error: dict[str, object] = json.loads(answer.body)["error"]
    assert error["message"] and isinstance(error["retryable"], bool)
    return error


@pytest.mark.parametrize("kind", BODY)
async def test_upgrades_with_a_body_take_no_node_out_of_service(
    raw_client: RawClient, kind: str
) -> None:
    """An upgrade that nginx takes for a node's failure would ban both nodes for everybody."""
    headers, body = BODY[kind]
    attack = handshake(raw_client.url, {**headers, "Connection": "upgrade"}) + body
    refusals, statuses = [], []

    for _ in range(REQUESTS // EACH):
        async with raw_connection(raw_client.url) as (reader, writer):
            writer.write(attack)
            refusals.append((await reader.readline())[:12])
        statuses += [(await raw_client.get("/livez")).status for _ in range(EACH)]

    assert statuses.count(200) == len(statuses), f"{statuses.count(200)} of {len(statuses)}"
    assert set(refusals) == {b"HTTP/1.1 400"}


async def test_nginx_passes_over_a_killed_node(raw_client: RawClient, nodes: Deployment) -> None:
    nodes.api[0].kill()

    statuses = [(await raw_client.get("/v1/models")).status for _ in range(REQUESTS)]

    assert set(statuses) == {200}
    nodes.api[1].kill()
    answer = await raw_client.get("/v1/models")
    assert (answer.status, said(answer)["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(("path", "size"), [("/v1/generations", 50_000_000), ("/v1/files", 2**29)])
async def test_a_body_above_the_limit_of_nginx_gets_the_error_of_the_api(
    raw_client: RawClient, path: str, size: int
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()

    error = refused(await exchange(raw_client.url, head + b"{", within_s=3), 413)

    assert error["code"] == "body_too_large"


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET /\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "invalid_http"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "invalid_http"),
        (b"rubbish\r\n\r\n", 400, "invalid_http"),
        (b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method_not_allowed"),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "head_too_large"),
        (
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
            431,
            "head_too_large",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: odd\r\n\r\n",
            400,
            "invalid_http",
        ),
        (b"GET / HTTP/3.0\r\nHost: localhost\r\n\r\n", 400, "invalid_http"),
    ],
)
async def test_refusals_of_nginx_itself_are_json(
    nginx: Nginx, request_bytes: bytes, status: int, code: str
) -> None:
    error = refused(await exchange(nginx.url, request_bytes, within_s=3), status)

    assert (error["code"], error["retryable"]) == (code, False)


async def test_nginx_bounds_the_requests_of_one_address(raw_client: RawClient) -> None:
    half = b"POST /v1/generations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
    async with contextlib.AsyncExitStack() as open_ones:
        for _ in range(CONNECTIONS_MAX):
            _, writer = await open_ones.enter_async_context(raw_connection(raw_client.url))
            writer.write(half)
            await writer.drain()

        async def refusal() -> Answer | None:
            # A worker process of nginx may not have read the last of the heads yet.
            answer = await raw_client.get("/livez")
            return answer if answer.status == 429 else None

        answer = await until(refusal, DEADLINE_S, "the refusal of one request more")
        assert answer is not None
        assert said(answer)["code"] == "rate_limited"
        assert answer.headers["retry-after"] == "1"


async def test_a_client_cannot_choose_the_address_that_nodes_are_told() -> None:
    heads: list[bytes] = []

    async def node(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(node, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Nginx([port, port]) as nginx, RawClient(nginx.url) as raw_client:
            for path in ("/livez", "/v1/files"):
                await raw_client.get(path, headers={"X-Forwarded-For": "203.0.113.7"})

    for head in heads:
        assert head.lower().count(b"x-forwarded-for") == 1
        assert b"\r\nX-Forwarded-For: 127.0.0.1\r\n" in head


def refused(received: bytes, status: int) -> dict[str, object]:
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), received[:300]
    assert b"content-type: application/json" in head.lower(), received[:300]
    error: dict[str, object] = json.loads(body)["error"]
    return error
