"""TLS and plain HTTP on one port: which is which, and that silent peers keep nobody out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.transport import tls_listener
from api.transport.certificate import Certificate
from api.transport.tls_listener import TlsListener
from tests.support.certificates import Authority
from tests.support.wait import until

DEADLINE_S = 10


class Echo(asyncio.Protocol):
    """Says whether the connection has TLS, and then what it receives."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(b"tls " if transport.get_extra_info("sslcontext") else b"plain ")

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Scene:
    def __init__(self, authority: Authority, listener: TlsListener, port: int) -> None:
        self.listener, self.port = listener, port
        self.tls = ssl.create_default_context(cafile=authority.ca_file)

    async def said(self, sent: bytes, tls: ssl.SSLContext | None = None) -> bytes:
        """Send bytes; return what comes back until the echo of them, or the end."""
        host = "localhost" if tls else None
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=tls, server_hostname=host
        )
        with contextlib.closing(writer):
            writer.write(sent)
            received = b""
            async with asyncio.timeout(DEADLINE_S):
                while not received.endswith(sent) and (piece := await reader.read(65_536)):
                    received += piece
            return received


@contextlib.asynccontextmanager
async def listening(folder: Path, **options: Any) -> AsyncIterator[Scene]:
    authority = Authority(folder)
    certificate = Certificate(*authority.sign("localhost"))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        listener = TlsListener(sock, certificate, **{"is_tls_only": False, **options})
        async with asyncio.TaskGroup() as group:
            group.create_task(listener.run(Echo))
            try:
                yield Scene(authority, listener, sock.getsockname()[1])
            finally:
                await listener.close()


async def test_the_first_byte_tells_tls_from_plain_http(tmp_path: Path) -> None:
    async with listening(tmp_path) as scene:
        assert await scene.said(b"GET /", scene.tls) == b"tls GET /"
        assert await scene.said(b"GET /") == b"plain GET /"


async def test_a_plain_request_gets_an_error_where_only_tls_is_spoken(tmp_path: Path) -> None:
    async with listening(tmp_path, is_tls_only=True) as scene:
        assert await scene.said(b"GET /", scene.tls) == b"tls GET /"
        answer = await scene.said(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"x" * 100_000)

    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n") and b'"tls_required"' in answer


@pytest.mark.parametrize("sent", [b"\x16", b"\x16\x03\x01\x00\x02ab", b"\x16" * 70_000])
async def test_a_broken_hello_ends_its_connection_only(tmp_path: Path, sent: bytes) -> None:
    async with listening(tmp_path) as scene:
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.port)
        writer.write(sent)
        writer.write_eof()
        async with asyncio.timeout(DEADLINE_S):
            with contextlib.suppress(ConnectionError):
                while await reader.read(65_536):
                    pass
        writer.close()

        assert await scene.said(b"x", scene.tls) == b"tls x"


async def test_silent_peers_keep_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_listener, "BEGINNING_MAX", 3)
    async with listening(tmp_path) as scene, contextlib.AsyncExitStack() as stack:
        silent = [await asyncio.open_connection("127.0.0.1", scene.port) for _ in range(9)]
        for _, writer in silent:
            stack.callback(writer.close)

        assert await scene.said(b"x", scene.tls) == b"tls x"
        async with asyncio.timeout(DEADLINE_S):
            oldest = [await reader.read() for reader, _ in silent[:6]]
        assert oldest == [b""] * 6
        assert len(scene.listener._beginning) <= 3


async def test_silent_peers_of_one_turn_of_the_loop_are_bounded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then no connection that was given up has ended yet when the next one is accepted."""
    monkeypatch.setattr(tls_listener, "BEGINNING_MAX", 3)
    async with listening(tmp_path) as scene, contextlib.AsyncExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", scene.port)))
            for _ in range(9)
        ]
        for each in silent:
            each.setblocking(False)

        assert await scene.said(b"x", scene.tls) == b"tls x"
        assert len(scene.listener._beginning) <= 3
        async with asyncio.timeout(DEADLINE_S):
            loop = asyncio.get_running_loop()
            oldest = [await loop.sock_recv(each, 1) for each in silent[:6]]
        assert oldest == [b""] * 6


async def test_a_handshake_has_a_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_listener, "HANDSHAKE_S", 0.05)
    async with listening(tmp_path) as scene:
        for sent in (b"", b"\x16\x03\x01"):
            reader, writer = await asyncio.open_connection("127.0.0.1", scene.port)
            writer.write(sent)
            async with asyncio.timeout(DEADLINE_S):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
            writer.close()


async def test_close_ends_the_handshakes_and_keeps_the_connections(tmp_path: Path) -> None:
    async with listening(tmp_path) as scene:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", scene.port, ssl=scene.tls, server_hostname="localhost"
        )
        assert await reader.readexactly(4) == b"tls "
        silent, quiet = await asyncio.open_connection("127.0.0.1", scene.port)
        await until(lambda: len(scene.listener._beginning) == 1, DEADLINE_S, "a handshake")

        await scene.listener.close()

        async with asyncio.timeout(DEADLINE_S):
            assert await silent.read() == b""
        writer.write(b"more")
        assert await reader.readexactly(4) == b"more"
        writer.close()
        quiet.close()
