"""The process of an API node: it listens, starts without Redis, and stops in order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from api import server
from api.server import listen, run, url_of
from shared.config.settings import Settings
from shared.errors import ConfigurationError

DEADLINE_S = 10.0
NO_REDIS = "redis://127.0.0.1:1/0"


def test_a_taken_port_is_a_configuration_error() -> None:
    with listen("127.0.0.1", 0) as first:
        with pytest.raises(ConfigurationError, match="--port"):
            listen("127.0.0.1", first.getsockname()[1])


def test_an_address_of_another_machine_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="203.0.113.9"):
        listen("203.0.113.9", 0)


def test_the_url_names_the_port_that_was_chosen() -> None:
    with listen("localhost", 0) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 in this Python")
def test_the_url_has_brackets_around_an_ipv6_address() -> None:
    class Named:
        def getsockname(self) -> tuple[str, int, int, int]:
            return ("::1", 8000, 0, 0)

    named: object = Named()
    assert url_of(named) == "http://[::1]:8000"  # type: ignore[arg-type]


class Running:
    """A node in this process, without Redis."""

    def __init__(self, url: str, stopping: asyncio.Event, task: asyncio.Task[int]) -> None:
        self.url = url
        self.stopping = stopping
        self.task = task

    async def stop(self) -> int:
        self.stopping.set()
        async with asyncio.timeout(DEADLINE_S):
            return await self.task


@asynccontextmanager
async def running(monkeypatch: pytest.MonkeyPatch, **changes: float) -> AsyncIterator[Running]:
    stopping = asyncio.Event()
    monkeypatch.setattr(server, "take_signals", lambda: stopping)
    listener = listen("127.0.0.1", 0)
    url = url_of(listener)
    task = asyncio.create_task(run(Settings(redis_url=NO_REDIS, **changes), listener))  # type: ignore[arg-type]
    try:
        yield Running(url, stopping, task)
        assert task.done(), "the test has to stop the node"
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_node_starts_and_stops_without_redis(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(monkeypatch) as node, aiohttp.ClientSession(node.url) as client:
        async with client.get("/livez") as response:
            assert response.status == 200
        async with client.get("/readyz") as response:
            assert response.status == 503
        async with client.post("/v1/generations", json={"prompt": "x"}) as response:
            assert response.status == 503

        assert await node.stop() == 0
        assert f"tailrace api ready on {node.url}" in capsys.readouterr().err


async def test_a_reader_with_a_cursor_is_broken_off_without_redis(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A 503 would end a native EventSource for good; a finished body would look like a success."""
    async with running(monkeypatch) as node, aiohttp.ClientSession(node.url) as client:
        path = "/v1/generations/gen_12345678/events"
        async with client.get(path, headers={"Last-Event-ID": "1-1"}) as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        async with client.get(path) as response:
            assert response.status == 503

        await node.stop()


async def test_a_request_in_progress_is_answered_before_the_node_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch, drain_s=10) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(node.url.split(":")[-1]))
        writer.write(b"POST /v1/generations HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n")
        writer.write(b"content-type: application/json\r\n\r\n{")
        # When the node answers this later request, it has read the bytes above.
        async with aiohttp.ClientSession(node.url) as client, client.get("/livez"):
            pass
        stopped = asyncio.create_task(node.stop())
        await asyncio.sleep(0)
        writer.write(b"}")
        async with asyncio.timeout(DEADLINE_S):
            assert (await reader.readline()).startswith(b"HTTP/1.1 422")
            assert await stopped == 0
        writer.close()
        await writer.wait_closed()
