"""WebSockets with odd servers, TLS, proxies and handshakes that are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request as Handshake
from websockets.http11 import Response

from shared.config.model_connection import Connection
from shared.config.model_request import RequestRules
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError
from shared.log.events import Token
from shared.log.request import Request
from tests.support.certificates import Authority
from tests.support.forward_proxy import ForwardProxy
from workers.backends import build_backends
from workers.backends.contract import BackendItem, Finish, SetUpFault

DEADLINE_S = 10.0
ASKED = Request([{"role": "user", "content": "hello"}])


async def read(
    url: str, environ: dict[str, str] | None = None, **members: Any
) -> list[BackendItem]:
    model = Model(name="m", backend="websocket", base_url=url, **members)
    settings = Settings(upstream_line_bytes_max=65_536, upstream_first_token_s=3)
    backend = build_backends({"m": model}, settings, environ or {})["m"]
    items: list[BackendItem] = []
    async with asyncio.timeout(DEADLINE_S):
        async for batch in backend.stream(ASKED, prefix="", seed="s", form=""):
            items += batch
    return items


async def failure_of(url: str, **members: Any) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await read(url, **members)
    return caught.value


async def say_hi(connection: ServerConnection) -> None:
    await connection.recv()
    await connection.send('{"token":"hi"}')
    await connection.send('{"done":true}')


HI = [Token("hi"), Finish("stop")]


async def test_the_key_and_the_headers_are_in_the_handshake() -> None:
    seen: dict[str, str] = {}

    async def answer(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.update(connection.request.headers.raw_items())
        await say_hi(connection)

    rules = RequestRules(headers={"X-Team": "${TEAM}"})
    async with serve(answer, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/a?b=c"
        environ = {"KEY": "sk-1", "TEAM": "red"}
        assert await read(url, environ, api_key_env="KEY", rules=rules) == HI

    assert (seen["Authorization"], seen["X-Team"]) == ("Bearer sk-1", "red")
    assert seen["User-Agent"] == "tailrace"


async def test_fragments_and_pings_between_them_are_one_message() -> None:
    async def answer(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(['{"tok', 'en":"', 'hi"}'])
        pong = await connection.ping()
        await pong
        await connection.send('{"done":true}')

    async with serve(answer, "127.0.0.1", 0) as server:
        assert await read(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}") == HI


async def test_tls_with_an_authority_of_the_models_file(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = authority.server_context("localhost")
    async with serve(say_hi, "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        connection = Connection(ca_file=authority.ca_file)
        assert await read(f"wss://localhost:{port}/", connection=connection) == HI


async def test_a_proxy_passes_a_socket_without_tls_through_a_tunnel() -> None:
    async with serve(say_hi, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with ForwardProxy(port) as proxy:
            connection = Connection(proxy=proxy.url())
            assert await read("ws://model.test/", connection=connection) == HI

    assert proxy.asked == ["CONNECT model.test:80 HTTP/1.1"]


async def test_messages_wait_at_the_server_while_the_worker_does_not_read() -> None:
    count, sent = 2_000, 0
    text = "x" * 10_000

    async def answer(connection: ServerConnection) -> None:
        nonlocal sent
        await connection.recv()
        for sent in range(1, count + 1):  # noqa: B007 - the test reads it
            await connection.send(f'{{"token":"{text}"}}')
        await connection.send('{"done":true}')

    async with serve(answer, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        model = Model(name="m", backend="websocket", base_url=url)
        backend = build_backends({"m": model}, Settings(), {})["m"]
        items: list[BackendItem] = []
        async with asyncio.timeout(DEADLINE_S):
            async for batch in backend.stream(ASKED, prefix="", seed="s", form=""):
                if not items and batch:
                    before = -1
                    while sent > before:  # until the buffers of the kernel are full
                        before = sent
                        await asyncio.sleep(0.02)  # silence itself is tested
                    assert sent < count
                items += batch

    assert len(items) == count + 1


@pytest.mark.parametrize(
    ("status", "code", "retryable", "is_outage"),
    [
        (401, "upstream_refused", False, False),
        (404, "upstream_refused", False, False),
        (429, "upstream_error", True, False),
        (503, "upstream_error", True, True),
    ],
)
async def test_a_handshake_that_is_refused(
    status: int, code: str, retryable: bool, is_outage: bool
) -> None:
    def refuse(connection: ServerConnection, handshake: Handshake) -> Response:
        response = connection.respond(status, "not today")
        response.headers["Retry-After"] = "7"
        return response

    async with serve(say_hi, "127.0.0.1", 0, process_request=refuse) as server:
        error = await failure_of(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")

    assert (error.code, error.retryable, error.is_outage) == (code, retryable, is_outage)
    assert error.message.startswith(f"the backend answered {status}: ")
    assert error.retry_after_s == (7.0 if retryable else None)


@asynccontextmanager
async def server_of(raw: bytes) -> AsyncIterator[str]:
    """Run a server that sends these bytes on every connection and closes it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(raw)
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


RESPONSES = {
    "nothing": b"",
    "not HTTP": b"\x00\x01\x02\x03" * 100,
    "TLS": b"\x15\x03\x01\x00\x02\x02\x28",
    "half a head": b"HTTP/1.1 101 Switching Protocols\r\n",
    "an endless header": b"HTTP/1.1 101 x\r\nx: " + b"y" * 200_000,
    "no accept": b"HTTP/1.1 101 x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    "a page": b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
    "a refusal without a length": b"HTTP/1.1 403 x\r\n\r\nno",
}


@pytest.mark.parametrize("response", RESPONSES)
async def test_any_answer_to_the_handshake_is_a_backend_error(response: str) -> None:
    async with server_of(RESPONSES[response]) as url:
        error = await failure_of(url)

    assert "127.0.0.1" not in error.message


async def test_an_address_that_is_none_is_the_operators_to_mend() -> None:
    error = await failure_of("ws://")

    assert isinstance(error, SetUpFault) and "correct the models file" in error.advice
