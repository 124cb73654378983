"""Which failures say that the model server is away, and not that the answer has failed."""

from __future__ import annotations

import asyncio

import pytest

from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError
from shared.log.request import Request
from tests.support.redis_server import free_port
from tests.support.upstream import Upstream
from workers.backends import build_backends

SETTINGS = Settings(upstream_idle_s=0.05, upstream_first_token_s=0.2)


async def failure(url: str, **script) -> BackendError:
    """Ask once; return how it failed."""
    model = Model(name="m", base_url=url)
    backend = build_backends({"m": model}, SETTINGS, {})["m"]
    told = {"upstream": {"fault_requests": 0, **script}} if script else {}
    request = Request([{"role": "user", "content": "hello"}], told)
    try:
        with pytest.raises(BackendError) as caught:
            async for _ in backend.stream(request, prefix="", seed="s", form=""):
                pass
    finally:
        await backend.aclose()
    return caught.value


@pytest.mark.parametrize(
    ("script", "is_outage"),
    [
        ({"fault": "status", "status": 503}, True),
        ({"fault": "status", "status": 502}, True),
        ({"fault": "status", "status": 500}, False),
        ({"fault": "status", "status": 504}, False),
        ({"fault": "status", "status": 429}, False),
        ({"fault": "status", "status": 404}, False),
        ({"fault": "cut", "fault_at": 5}, True),
        ({"fault": "cut"}, True),
        ({"fault": "eof", "fault_at": 5}, False),
        ({"fault": "stall", "fault_at": 5}, False),
        ({"fault": "error", "fault_at": 5}, False),
    ],
    ids=str,
)
async def test_a_server_that_answers_somehow(script: dict[str, object], is_outage: bool) -> None:
    async with Upstream() as upstream:
        assert (await failure(upstream.base_url, **script)).is_outage == is_outage


async def test_a_refused_connection() -> None:
    assert (await failure(f"http://127.0.0.1:{free_port()}/v1")).is_outage


async def test_a_connection_that_is_closed_without_an_answer() -> None:
    async with Upstream() as upstream:
        upstream.hang_up_next = True

        assert (await failure(upstream.base_url)).is_outage


async def test_a_server_that_speaks_no_tls() -> None:
    """A wrong URL in the models file: waiting does not mend it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 no TLS here\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]

        assert not (await failure(f"https://127.0.0.1:{port}/v1")).is_outage
