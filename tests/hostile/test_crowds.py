"""Connections that only take place: somebody with a key is served all the same.

The node has few open files (tests/support/few_files.py), so that a test can use all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime

import pytest

from tests.hostile.conftest import QUICK, OwnDeployment
from tests.support.few_files import FILES
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient
from tests.support.raw_wire import exchange, handshake, raw_connection
from tests.support.wait import until

KEY = "a-key-of-sixteen-characters"
SLOW = {"prompt": "x", "params": {"demo": {"tokens": 100_000, "tokens_per_s": 20}}}
ANSWER_S = 3.0  # generous: without the bound nobody is answered for as long as the attack goes on

Writers = list[asyncio.StreamWriter]


@pytest.fixture(scope="module")
async def crowded(own_deployment: OwnDeployment) -> AsyncIterator[Deployment]:
    settings = {"api_keys": f"{KEY}:me", "heartbeat_s": "0.5"}
    deployment = own_deployment(api=1, workers=1, models=QUICK, settings=settings)
    deployment.api[0].module = "tests.support.few_files"
    async with deployment:
        yield deployment


@pytest.fixture
async def raw_client(crowded: Deployment) -> AsyncIterator[RawClient]:
    async with RawClient(crowded.api[0].url, key=KEY) as raw_client:
        yield raw_client


@contextlib.asynccontextmanager
async def flooded(url: str, start: bytes, count: int = 2 * FILES) -> AsyncIterator[Writers]:
    """Open connections that say `start` and then nothing; more than the node has files for."""
    async with contextlib.AsyncExitStack() as opened:
        writers: Writers = []
        for _ in range(count):
            with contextlib.suppress(ConnectionError):
                _, writer = await opened.enter_async_context(raw_connection(url))
                writer.write(start)
                writers.append(writer)
                await asyncio.sleep(0)
        yield writers


STARTS = {
    "nothing": b"",
    "half a head": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ",
    "one request": b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a body that never comes": b"POST /v1/generations HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n",
    "a bad handshake": handshake("http://x", {"Content-Length": "5"}),
}


@pytest.mark.parametrize("start", STARTS)
async def test_idle_connections_lock_nobody_out(raw_client: RawClient, start: str) -> None:
    async with flooded(raw_client.url, STARTS[start]):
        for _ in range(10):
            async with RawClient(raw_client.url, key=KEY) as newcomer, asyncio.timeout(ANSWER_S):
                assert (await newcomer.get("/v1/models")).status == 200


async def test_a_stream_and_a_socket_outlive_a_flood(raw_client: RawClient) -> None:
    generation_id = await raw_client.start(SLOW)
    async with raw_client.stream(generation_id) as stream, raw_client.socket() as socket:
        for start in STARTS.values():
            async with flooded(raw_client.url, start, FILES):
                async with asyncio.timeout(ANSWER_S):
                    assert await stream.content.readany()
                await socket.ping()
        await socket.send('{"type":"ping"}')
        async with asyncio.timeout(ANSWER_S):
            assert json.loads(await socket.recv())["type"] == "pong"
    await raw_client.call("POST", f"/v1/generations/{generation_id}/cancel")


async def test_a_full_node_logs_one_line_a_minute(
    raw_client: RawClient, crowded: Deployment
) -> None:
    for _ in range(2):
        async with flooded(raw_client.url, b""):
            assert (await raw_client.get("/livez")).status == 200

    lines = list(events(crowded.api[0].output.read_text(), "connections full"))
    assert {line["level"] for line in lines} == {"warning"}
    times = [datetime.fromisoformat(str(line["time"])) for line in lines]
    pauses_s = [(after - before).total_seconds() for before, after in itertools.pairwise(times)]
    assert all(pause_s > 59 for pause_s in pauses_s)


async def test_a_connection_above_the_bound_is_refused_with_an_error(raw_client: RawClient) -> None:
    """Of streams, which the node does not end for a newcomer."""
    generation_id = await raw_client.start(SLOW)
    stream = f"GET /v1/generations/{generation_id}/events?access_token={KEY} HTTP/1.1\r\n"
    async with flooded(raw_client.url, f"{stream}Host: localhost\r\n\r\n".encode(), FILES):

        async def refused() -> bytes:
            received = await exchange(
                raw_client.url,
                b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            )
            return received if received.startswith(b"HTTP/1.1 503 ") else b""

        head, _, body = (await until(refused, 10, "a full node")).partition(b"\r\n\r\n")
        assert b"retry-after: 1" in head
        assert json.loads(body)["error"]["code"] == "unavailable"
    await raw_client.call("POST", f"/v1/generations/{generation_id}/cancel")


def events(text: str, name: str) -> Iterator[dict[str, object]]:
    for line in text.splitlines():
        if line.startswith("{") and (record := json.loads(line))["event"] == name:
            yield record


# A bound for each address, of the address that a trusted proxy names

MAX = 3


@pytest.fixture(scope="module")
async def bounded(own_deployment: OwnDeployment) -> AsyncIterator[Deployment]:
    settings = {"address_connections_max": str(MAX), "trusted_proxies": "127.0.0.0/8"}
    async with own_deployment(api=1, workers=1, models=QUICK, settings=settings) as deployment:
        yield deployment


@pytest.mark.parametrize("kind", ["streams", "sockets"])
async def test_requests_of_one_address_behind_a_proxy_are_bounded(
    bounded: Deployment, kind: str
) -> None:
    attacker = {"X-Forwarded-For": "198.51.100.7, 203.0.113.7"}
    victim = {"X-Forwarded-For": "203.0.113.7, 198.51.100.7"}
    async with RawClient(bounded.api[0].url) as raw_client:
        generation_id = await raw_client.start(SLOW)
        path = f"/v1/generations/{generation_id}/events"
        async with contextlib.AsyncExitStack() as opened:
            for _ in range(MAX):
                if kind == "streams":
                    what = raw_client.opened("GET", path, headers=attacker)
                    assert (await opened.enter_async_context(what)).status == 200
                else:
                    socket = raw_client.socket(additional_headers=attacker)
                    await opened.enter_async_context(socket)

            for probe in ("/livez", path):
                answer = await raw_client.get(probe, headers=attacker)
                assert (answer.status, answer.error_code) == (429, "rate_limited")
                assert answer.headers["retry-after"] == "1"
            upgrade = handshake(raw_client.url, attacker)
            assert (await exchange(raw_client.url, upgrade)).startswith(b"HTTP/1.1 429 ")
            assert (await raw_client.get("/livez", headers=victim)).status == 200
            assert (await raw_client.get("/livez")).status == 200  # the proxy's own

        async def is_served() -> bool:
            return (await raw_client.get("/livez", headers=attacker)).status == 200

        await until(is_served, 5, "who has left counts no more")
        await raw_client.call("POST", f"/v1/generations/{generation_id}/cancel")
