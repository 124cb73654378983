"""The HTTP and WebSocket protocol classes in a real uvicorn server, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from api.transport.extensions import HANDOVER, WIRE, break_off
from api.transport.http import HttpProtocol
from tests.support.protocol_server import (
    Echo,
    QuickHttpProtocol,
    close_code,
    connected,
    frame,
    handshake,
    serving,
)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with serving(Echo()) as port:
        yield port


@pytest.mark.parametrize(
    "start", [b"", b"G", b"GET / HTTP/1.1\r\nhost: x\r\nx: ", b"\r\n\r\n", b"POST / HTTP/1.1\r\n"]
)
async def test_a_connection_with_an_incomplete_head_is_closed(port: int, start: bytes) -> None:
    async with connected(port) as peer:
        peer.say(start)

        assert await peer.rest() == b""


async def test_a_head_that_trickles_is_closed(port: int) -> None:
    async with connected(port) as peer:
        peer.say(b"GET / HTTP/1.1\r\n")
        rest = asyncio.ensure_future(peer.rest())
        while not rest.done():
            peer.say(b"x-a: 1\r\n")
            await asyncio.sleep(0.01)  # the trickle is what is tested

        assert await rest == b""


@pytest.mark.parametrize("start", [b"G", b"\r\n"])
async def test_between_requests_the_first_byte_starts_the_deadline(port: int, start: bytes) -> None:
    async with connected(port) as peer:
        peer.say(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await peer.until(b"ok")
        peer.say(start)

        assert await peer.rest() == b""


async def test_a_head_that_began_during_an_answer_has_a_deadline(port: int) -> None:
    async with connected(port) as peer:
        peer.say(b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HT")

        assert b" 200 " in await peer.rest()


async def test_a_head_that_began_during_a_stream_does_not_end_it() -> None:
    app = Echo()
    async with serving(app) as port, connected(port) as peer:
        peer.say(b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET /slow HTTP/1.1\r\nhost: x\r\n\r\nGET")
        await peer.until(b"ok")
        await asyncio.sleep(2 * QuickHttpProtocol.head_s)  # the silence is what is tested
        app.release.set()

        assert b" 200 " in await peer.until(b"ok")


async def test_an_idle_connection_and_a_slow_answer_have_no_deadline() -> None:
    app = Echo()
    async with serving(app) as port, connected(port) as peer:
        peer.say(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await peer.until(b"ok")
        await asyncio.sleep(2 * QuickHttpProtocol.head_s)  # the silence is what is tested
        peer.say(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        await asyncio.sleep(2 * QuickHttpProtocol.head_s)  # a slow answer, too
        app.release.set()

        assert (await peer.until(b"ok")).startswith(b"HTTP/1.1 200")


async def test_the_rest_of_a_body_after_an_early_answer_has_a_deadline(port: int) -> None:
    async with connected(port) as peer:
        peer.say(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n1")
        await peer.until(b"ok")

        assert await peer.rest() == b""


async def test_a_body_that_completes_after_an_early_answer_keeps_the_connection(port: int) -> None:
    async with connected(port) as peer:
        peer.say(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n1")
        await peer.until(b"ok")
        peer.say(b"23456789")
        await asyncio.sleep(2 * QuickHttpProtocol.head_s)  # the silence is what is tested
        peer.say(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")

        assert (await peer.until(b"ok")).startswith(b"HTTP/1.1 200")


async def test_an_endless_head_is_431() -> None:
    async with serving(Echo(), HttpProtocol) as port, connected(port) as peer:
        peer.say(b"GET / HTTP/1.1\r\n")
        for _ in range(100):
            peer.say(b"x-" + b"a" * 8000 + b": 1\r\n")

        assert (await peer.rest()).startswith(b"HTTP/1.1 431 ")


async def test_a_request_with_an_upgrade_to_http_2_is_served_as_http_1(port: int) -> None:
    """Java's client and curl --http2 send this; the body is the request's (RFC 9110, 7.8)."""
    upgrade = b"connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nhttp2-settings: AAMA\r\n"
    async with connected(port) as peer:
        for _ in range(2):
            peer.say(
                b"POST /body HTTP/1.1\r\nhost: x\r\n" + upgrade + b"content-length: 3\r\n\r\nh2c"
            )
            assert (await peer.until(b"h2c")).startswith(b"HTTP/1.1 200")


H2C = b"\r\nupgrade: h2c\r\n"


@pytest.mark.parametrize("upgrade", [b"", b"connection: upgrade\r\nupgrade: h2c\r\n"])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_body_is_kept_byte_for_byte(
    port: int, framing: str, upgrade: bytes, version: bytes
) -> None:
    """Also a body that equals the ignored header, in one read with the head."""
    head = b"POST /body HTTP/" + version + b"\r\nhost: x\r\n" + upgrade
    size = len(H2C)
    if framing == "chunks":
        head += b"transfer-encoding: chunked\r\n"
        sent = head + b"\r\n%x\r\n" % size + H2C + b"\r\n0\r\n\r\n"
    else:
        sent = head + b"content-length: %d\r\n\r\n" % size + H2C
    async with connected(port) as peer:
        peer.say(sent * (1 if version == b"1.0" else 3))

        for _ in range(1 if version == b"1.0" else 3):
            assert (await peer.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await peer.until(H2C) == H2C


@pytest.mark.parametrize("protocol", [b"h2c", b"TLS/1.0", b"websocket, h2c", b"x" * 1_000])
async def test_an_upgrade_to_another_protocol_is_ignored(port: int, protocol: bytes) -> None:
    """RFC 9110, 7.8: the bytes behind the request are HTTP/1.1."""
    request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: %b\r\n\r\n" % protocol
    async with connected(port) as peer:
        peer.say(request * 50)

        for _ in range(50):
            assert (await peer.until(b"ok")).startswith(b"HTTP/1.1 200")


async def test_a_handshake_without_an_answer_is_refused_when_the_node_stops() -> None:
    started: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def undecided(scope: Scope, receive: Receive, send: Send) -> None:
        started.set_result(scope["extensions"]["tailrace.transport"])
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async with serving(undecided) as port, connected(port) as peer:
        peer.say(handshake())
        transport: Any = await started
        transport.get_protocol().shutdown()

        assert (await peer.rest()).startswith(b"HTTP/1.1 503 ")


async def test_a_request_that_arrives_while_the_node_stops_is_answered() -> None:
    app = Echo()
    async with serving(app) as port, connected(port) as peer, connected(port) as idle:
        for each in (peer, idle):
            each.say(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await each.until(b"ok")
        for transport in app.transports:
            transport.get_protocol().shutdown()
        peer.say(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")

        answer = await peer.rest()
        assert answer.startswith(b"HTTP/1.1 200 ") and b"connection: close" in answer
        assert await idle.rest() == b""


async def test_a_large_body_does_not_count_as_a_head(port: int) -> None:
    async with connected(port) as peer:
        peer.say(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 500000\r\n\r\n" + b"x" * 500_000)
        peer.say(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")

        assert b" 200 " in await peer.until(b"ok")
        assert b" 200 " in await peer.until(b"ok")


# WebSocket


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (handshake(("sec-websocket-version", "8")), (400, 426)),
        (handshake(("sec-websocket-version", None)), (400, 426)),
        (handshake(("sec-websocket-key", "short")), (400,)),
        (handshake(("sec-websocket-key", None)), (400,)),
        (handshake(line="POST /ws HTTP/1.1"), (400, 405)),
        (handshake(line="GET /ws HTTP/1.0"), (101, 400, 426, 505)),
        (handshake(("x", "y" * 20_000)), (431,)),
        (handshake(line="GET /" + "w" * 20_000 + " HTTP/1.1"), (414,)),
    ],
)
async def test_an_invalid_handshake_is_refused(
    port: int, request_bytes: bytes, status: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(port) as peer:
        peer.say(request_bytes)
        line = await peer.until(b"\r\n")

        assert int(line.split()[1]) in status
        assert not [r for r in caplog.records if r.exc_info]


@pytest.mark.parametrize(
    "change",
    [("sec-websocket-version", "8"), ("sec-websocket-version", None),
     ("sec-websocket-key", "short"), ("sec-websocket-key", None)],
    ids=["version", "no version", "key", "no key"],
)  # fmt: skip
async def test_a_refused_handshake_has_an_error_body_and_names_the_version(
    port: int, change: tuple[str, str | None]
) -> None:
    async with connected(port) as peer:
        peer.say(handshake(change))
        head, _, body = (await peer.rest()).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nsec-websocket-version: 13" in head
    error = json.loads(body)["error"]
    assert (error["code"], error["retryable"]) == ("invalid_http", False)


@pytest.mark.parametrize("line", ["GET /ws\x7f HTTP/1.1", "GET /\xff HTTP/1.1"])
async def test_an_unparsable_handshake_is_closed_without_a_traceback(
    port: int, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(port) as peer:
        peer.say(handshake(line=line).decode().encode("latin-1"))
        await peer.rest()

        assert not [r for r in caplog.records if r.exc_info]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (frame(1, b"\xff"), 1007),
        (frame(1, b"\xe2\x82", fin=False) + frame(0, b"x"), 1007),
        (frame(1, b"x", is_masked=False), 1002),
        (frame(0x41, b"x"), 1002),
        (frame(3, b"x"), 1002),
        (frame(1, b"x" * 8001), 1009),
        (frame(1, b"x" * 600, fin=False) + frame(0, b"x" * 600, fin=False) * 14, 1009),
        (frame(1, b"\xff" + b"x" * 900, fin=False) + frame(0, b"x"), 1007),
    ],
)
async def test_an_invalid_frame_closes_with_its_code(
    frames: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    app = Echo()
    async with serving(app) as port, connected(port) as peer:
        peer.say(handshake())
        await peer.until(b"\r\n\r\n")
        peer.say(frames)

        assert await close_code(peer) == code
        assert app.disconnects == [code]
        assert not [r for r in caplog.records if r.exc_info]


async def test_characters_may_be_split_over_frames(port: int) -> None:
    async with connected(port) as peer:
        peer.say(handshake())
        await peer.until(b"\r\n\r\n")
        peer.say(frame(1, b"\xe2\x82", fin=False) + frame(0, b"\xac"))

        assert await peer.until("€".encode()) == b"\x81\x03" + "€".encode()


async def test_the_transport_reaches_the_application() -> None:
    app = Echo()
    async with serving(app) as port:
        async with connected(port) as peer:
            peer.say(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await peer.until(b"ok")
        async with connected(port) as peer:
            peer.say(handshake())
            await peer.until(b"\r\n\r\n")

            assert len(app.transports) == 2
            assert app.transports[1].get_write_buffer_size() == 0
            app.transports[1].abort()
            assert await peer.rest() == b""


class Open:
    """An answer without Content-Length: two pieces, then a clean end or a break."""

    def __init__(self) -> None:
        self.extensions: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.extensions = set(scope["extensions"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        if scope["path"] == "/broken":
            break_off(scope)
            return
        await send({"type": "http.response.body", "body": b"two", "more_body": False})


async def test_a_body_for_http_1_0_ends_with_the_connection() -> None:
    app = Open()
    async with serving(app) as port, connected(port) as peer:
        peer.say(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        head, _, body = (await peer.rest()).partition(b"\r\n\r\n")

    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body == b"one two"
    assert app.extensions.isdisjoint({HANDOVER, WIRE})


async def test_a_body_for_http_1_0_that_breaks_off_is_reset() -> None:
    async with serving(Open()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /broken HTTP/1.0\r\n\r\n")

        with pytest.raises(ConnectionResetError):
            await reader.read(-1)
        writer.close()
