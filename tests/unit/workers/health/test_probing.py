"""Probes of backends that are open, suspect or idle, at servers of this test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from shared.backends.breaker import Times
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError
from tests.support.listening import stop_listening
from tests.support.redis_server import free_port
from workers.health import probing
from workers.health.health import BackendHealth
from workers.health.probing import Probing

TIMES = Times(60_000, 60_000, 60_000, 60_000)
AWAY = BackendError("upstream_error", "it is away", is_outage=True)


class Server:
    """A model server that answers its list of models with `status`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.status = 200
        self.asked: list[str] = []
        self.connections = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self._server is not None:
            await stop_listening(self._server)
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        head = await reader.read(4_096)
        if head:
            self.asked.append(head.split(b" ")[1].decode())
            body = b'{"data": [{"id": "m"}]}'
            writer.write(b"HTTP/1.1 %d OK\r\ncontent-length: %d\r\n\r\n" % (self.status, len(body)))
            writer.write(body)
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    yield server
    await server.stop()


@pytest.fixture
def clock_s() -> list[float]:
    return [1_000.0]


@pytest.fixture
def health(server: Server, clock_s: list[float]) -> BackendHealth:
    model = Model(name="a", base_url=f"http://127.0.0.1:{server.port}/v1")
    now: Callable[[], float] = lambda: clock_s[0]  # noqa: E731
    return BackendHealth(
        {"a": model, "demo": Model(name="demo", backend="demo")},
        TIMES, clock=now, now_ms=lambda: round(now() * 1000), chance=lambda: 1.0,
    )  # fmt: skip


@pytest.fixture
def look(fake_redis: Any, health: BackendHealth, server: Server) -> Callable[[], Any]:
    """Make one round of probes, as if the last probe was long ago."""
    models = {"a": Model(name="a", base_url=f"http://127.0.0.1:{server.port}/v1")}
    models["demo"] = Model(name="demo", backend="demo")
    made = Probing(health, fake_redis, models, Settings(), {})

    async def round_of_probes() -> None:
        await fake_redis.flushall()
        await made.look()

    return round_of_probes


def open_breaker(health: BackendHealth) -> None:
    for _ in range(3):
        health.start("a").close(AWAY)
    assert health.state("a") == "open"


async def test_a_backend_that_works_is_not_probed(look, health, server) -> None:
    await server.start()
    health.start("a").first_token()
    await look()
    assert server.connections == 0


async def test_a_server_that_comes_back_is_tried_before_its_cool_down_is_over(
    look, health, server
) -> None:
    open_breaker(health)
    await look()
    assert health.breaker("a").is_silent
    assert not health.allows("a")
    await server.start()
    await look()
    assert server.asked == ["/v1/models"]
    assert health.allows("a")


@pytest.mark.parametrize(("status", "is_silent"), [(200, False), (404, False), (503, True)])
async def test_a_status_below_500_says_that_the_server_is_there(
    look, health, server, status, is_silent
) -> None:
    server.status = status
    await server.start()
    open_breaker(health)
    await look()
    assert health.breaker("a").is_silent is is_silent
    assert not health.allows("a"), "a server that lists its models may still fail its requests"


async def test_an_idle_backend_is_probed_by_a_connection_alone(
    look, health, server, clock_s
) -> None:
    await server.start()
    clock_s[0] += probing.IDLE_S + 1
    await look()
    assert (server.connections, server.asked, health.state("a")) == (1, [], "closed")
    await server.stop()
    for _ in range(3):
        await look()
    assert health.state("a") == "open"


async def test_of_all_workers_one_makes_a_probe(fake_redis, health, server) -> None:
    await server.start()
    open_breaker(health)
    models = {"a": Model(name="a", base_url=f"http://127.0.0.1:{server.port}/v1")}
    models["demo"] = Model(name="demo", backend="demo")
    for _ in range(3):
        await Probing(health, fake_redis, models, Settings(), {}).look()
    assert len(server.asked) == 1
