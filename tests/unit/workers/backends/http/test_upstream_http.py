"""Addresses of model servers, and connections that are kept for the next request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from shared.config.settings import Settings
from tests.support.wait import until
from workers.backends.http import upstream_http
from workers.backends.http.upstream_http import (
    AddressInvalid,
    Origin,
    UpstreamAddress,
    UpstreamHttp,
)

DEADLINE_S = 10.0


@pytest.mark.parametrize(
    ("url", "origin", "line", "host"),
    [
        ("http://a/v1", Origin("a", 80, False), "POST /v1/chat HTTP/1.1", "a"),
        ("http://a:8000/v1", Origin("a", 8000, False), "POST /v1/chat HTTP/1.1", "a:8000"),
        ("https://a", Origin("a", 443, True), "POST /chat HTTP/1.1", "a"),
        ("https://[::1]:80/v1", Origin("::1", 80, True), "POST /v1/chat HTTP/1.1", "[::1]:80"),
        ("http://bücher.example/v1", Origin("xn--bcher-kva.example", 80, False),
         "POST /v1/chat HTTP/1.1", "xn--bcher-kva.example"),
        ("http://a/ü v%20/x?y=1 2", Origin("a", 80, False),
         "POST /%C3%BC%20v%20/x/chat?y=1%202 HTTP/1.1", "a"),
    ],
)  # fmt: skip
def test_an_address_gives_the_request_line_and_the_host(
    url: str, origin: Origin, line: str, host: str
) -> None:
    target = UpstreamAddress(url, "/chat", {"A": "b"})

    assert target.origin == origin
    expected = f"{line}\r\nHost: {host}\r\nA: b\r\nContent-Length: 2\r\n\r\nhi"
    assert target.request(b"hi").decode() == expected


def test_a_user_in_the_url_is_basic_authorization_unless_there_is_a_key() -> None:
    assert b"\r\nAuthorization: Basic dTpwOnc=\r\n" in UpstreamAddress(
        "http://u:p%3Aw@a", "", {}
    ).request(b"")
    request = UpstreamAddress("http://u:p@a", "", {"authorization": "Bearer k"}).request(b"")
    assert request.lower().count(b"authorization:") == 1


@pytest.mark.parametrize("url", ["", "a", "ftp://a", "http://", "http://a b", "http://a:x"])
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(AddressInvalid):
        UpstreamAddress(url, "", {})


@asynccontextmanager
async def server() -> AsyncIterator[Origin]:
    """Answer `hi` to every read, on connections that stay open."""

    serving: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(writer)
        with suppress(ConnectionError):
            while await reader.read(1_000):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        writer.close()
        serving.discard(writer)

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        yield Origin("127.0.0.1", listening.sockets[0].getsockname()[1], False)
        await until(lambda: not serving, DEADLINE_S, "the client has hung up")


async def test_a_connection_is_reused_for_its_origin_only() -> None:
    http, deadline = UpstreamHttp(Settings()), asyncio.get_running_loop().time() + DEADLINE_S
    async with server() as origin:
        exchange = await http.connect(origin, deadline)
        exchange.send(b"POST")
        await exchange.head(deadline)
        assert await exchange.read(deadline) == b"hi"
        http.release(origin, exchange)

        assert http.idle(origin._replace(host="localhost")) is None
        assert http.idle(origin) is exchange
        assert http.idle(origin) is None
        exchange.abort()


async def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_http, "IDLE_S", 0.0)
    http, deadline = UpstreamHttp(Settings()), asyncio.get_running_loop().time() + DEADLINE_S
    async with server() as origin:
        exchange = await http.connect(origin, deadline)
        exchange.send(b"POST")
        await exchange.head(deadline)
        await exchange.read(deadline)
        http.release(origin, exchange)
        await until(lambda: exchange.is_lost, DEADLINE_S, "the connection is closed")

        assert http.idle(origin) is None
