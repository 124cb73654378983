"""Bounds on what one HTTP peer can make the server keep, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import api.transport.http_bounds
from api.transport.http_bounds import HEAD_BYTES_MAX, HEADERS_MAX, PIECE_BYTES, PIPELINED_MAX
from tests.support.hub_harness import settle
from tests.support.protocol_server import Echo, connected, serving
from tests.support.raw_wire import stopped_connection
from tests.support.wait import until

CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
TOO_MANY_BYTES = 16 * HEAD_BYTES_MAX


@pytest.fixture
def app() -> Echo:
    return Echo()


@pytest.fixture
async def port(app: Echo) -> AsyncIterator[int]:
    async with serving(app) as port:
        yield port


@pytest.mark.parametrize(("count", "status"), [(HEADERS_MAX, 200), (HEADERS_MAX + 1, 431)])
async def test_a_request_has_at_most_headers_max_headers(
    port: int, count: int, status: int
) -> None:
    async with connected(port) as peer:
        peer.say(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * count + b"\r\n")

        assert b" %d " % status in await peer.until(b"\r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * HEAD_BYTES_MAX + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"a" * HEAD_BYTES_MAX + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + (b"x: " + b"a" * 2_000 + b"\r\n") * 33 + b"\r\n",
    ],
    ids=["line", "header", "headers"],
)
async def test_a_head_in_one_read_is_bounded(port: int, head: bytes) -> None:
    async with connected(port) as peer:
        peer.say(head)

        assert b" 431 " in await peer.until(b"\r\n")


@pytest.mark.parametrize(
    "line", [b"GET / HTTP/2.0", b"GET / HTTP/0.9", b"GET /", b"GET / HTTP/3.0", b"GET / HTTP/1.2"]
)
async def test_another_http_version_is_505(app: Echo, port: int, line: bytes) -> None:
    async with connected(port) as peer:
        peer.say(GET + line + b"\r\nhost: x\r\n\r\n")

        assert b" 200 " in await peer.until(b"ok")
        answer = await peer.rest()
    assert answer.startswith(b"HTTP/1.1 505 HTTP Version Not Supported\r\n")
    assert b'"code":"http_version_unsupported"' in answer
    assert len(app.scopes) == 1, "the refused request does not reach the application"


@pytest.mark.parametrize(
    "codings",
    [
        [b"gzip, chunked"],
        [b"gzip", b"chunked"],
        [b"gzip,chunked"],
        [b"GZIP ,\tChunked"],
        [b"gzip"],
        [b"identity"],
        [b"chunked;level=1"],
        [b", chunked"],
    ],
)
async def test_a_coding_beside_chunked_is_501(app: Echo, port: int, codings: list[bytes]) -> None:
    head = b"".join(b"transfer-encoding: %b\r\n" % coding for coding in codings)
    async with connected(port) as peer:
        peer.say(b"POST / HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n1\r\nx\r\n0\r\n\r\n" + GET)

        answer = await peer.rest()
    assert answer.startswith(b"HTTP/1.1 501 Not Implemented\r\n")
    assert b'"code":"transfer_encoding_unsupported"' in answer
    assert answer.count(b"HTTP/1.1 ") == 1 and not app.scopes


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"  chunked  "])
async def test_chunked_alone_is_accepted(port: int, coding: bytes) -> None:
    async with connected(port) as peer:
        head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding:%b\r\n\r\n" % coding
        peer.say(head + b"1\r\nx\r\n0\r\n\r\n")

        assert b" 200 " in await peer.until(b"ok")


async def test_trailers_do_not_become_headers(app: Echo, port: int) -> None:
    async with connected(port) as peer:
        peer.say(CHUNKED + b"1\r\nx\r\n0\r\nauthorization: Bearer stolen\r\n\r\n" + GET)

        assert b" 200 " in await peer.until(b"ok")
        assert b" 200 " in await peer.until(b"ok")
    assert all(name != b"authorization" for name, _ in app.scopes[0]["headers"])


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"0\r\n", b"x: " + b"y" * 1_000 + b"\r\n"),
        (b"0\r\nx: ", b"y" * 1_000),
        (b"1;x=", b"y" * 1_000),
    ],
    ids=["trailers", "trailer", "chunk extension"],
)
async def test_trailers_and_chunk_extensions_are_bounded(
    port: int, start: bytes, piece: bytes
) -> None:
    async with connected(port) as peer:
        peer.say(CHUNKED + start)
        for _ in range(TOO_MANY_BYTES // len(piece)):
            peer.say(piece)

        # The server reads and drops the rest: a reset could lose the answer.
        assert (await peer.rest()).startswith(b"HTTP/1.1 431 ")


EXTENSION = b"1;x=" + b"y" * (HEAD_BYTES_MAX + 2 * PIECE_BYTES) + b"\r\nx\r\n0\r\n\r\n"
LENGTH = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 20000\r\n\r\n" + b"x" * 20_000


@pytest.mark.parametrize("before", [b"", GET, LENGTH], ids=["first", "behind GET", "behind POST"])
@pytest.mark.parametrize("first", [b"", b"5000\r\n" + b"x" * 0x5000 + b"\r\n"], ids=["1st", "2nd"])
async def test_a_chunk_extension_in_one_read_is_bounded(
    port: int, before: bytes, first: bytes
) -> None:
    """Also an extension whose head and whose end arrive in the same read."""
    async with connected(port) as peer:
        peer.say(before + CHUNKED + first + EXTENSION)

        answer = await peer.rest()
    assert answer.count(b" 200 ") == bool(before)
    assert answer.count(b"HTTP/1.1 431 ") == 1


async def test_a_chunk_extension_within_the_bound_is_accepted(port: int) -> None:
    extension = b"1;x=" + b"y" * (HEAD_BYTES_MAX - PIECE_BYTES) + b"\r\n"
    async with connected(port) as peer:
        for _ in range(2):
            peer.say(CHUNKED + (extension + b"x\r\n") * 3 + b"0\r\n\r\n")

            assert b" 200 " in await peer.until(b"ok")


async def test_a_header_within_the_bound_is_accepted_in_any_pieces(port: int) -> None:
    """Bytes that the parser kept in earlier pieces are not counted twice."""
    head = b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 60_000 + b"\r\n\r\n"
    async with connected(port) as peer:
        for size in (len(head), 10_000):
            for start in range(0, len(head), size):
                peer.say(head[start : start + size])
                await settle()  # so that the server reads each piece alone

            assert b" 200 " in await peer.until(b"ok")


async def test_spaces_around_headers_are_bounded(port: int) -> None:
    line = b"a:" + b" " * 40_000 + b"b\r\n"
    async with connected(port) as peer:
        peer.say(b"GET / HTTP/1.1\r\n" + line * 4 + b"\r\n")

        assert (await peer.rest()).startswith(b"HTTP/1.1 431 ")


async def test_a_body_in_many_small_chunks_is_accepted(port: int) -> None:
    """The sum of the framing exceeds the bound, but no framing is kept."""
    async with connected(port) as peer:
        peer.say(CHUNKED + b"1;note=this\r\nx\r\n" * 20_000 + b"0\r\n\r\n")

        assert b" 200 " in await peer.until(b"ok")


@pytest.mark.parametrize("count", [PIPELINED_MAX, PIPELINED_MAX + 1])
async def test_at_most_pipelined_max_requests_wait(app: Echo, port: int, count: int) -> None:
    async with connected(port) as peer:
        peer.say(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n" + GET * count)
        await until(lambda: app.scopes, 5)
        app.release.set()
        for _ in range(PIPELINED_MAX + 1):
            assert b" 200 " in await peer.until(b"ok")
        if count > PIPELINED_MAX:
            assert (await peer.rest()).startswith(b"HTTP/1.1 400 ")


async def test_a_request_with_pipelined_requests_behind_it_is_notified_of_a_disconnect(
    app: Echo, port: int
) -> None:
    async with connected(port) as peer:
        peer.say(b"GET /left HTTP/1.1\r\nhost: x\r\n\r\n" + GET)
        await until(lambda: app.scopes, 5)

    async with asyncio.timeout(5):
        await app.release.wait()


async def test_a_peer_that_takes_nothing_of_an_answer_is_aborted(
    app: Echo, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.transport.http_bounds, "OPEN_STALL_S", 0.2)
    async with stopped_connection(f"http://127.0.0.1:{port}") as (_, writer):
        writer.write(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")

        await until(lambda: app.transports and app.transports[0].is_closing(), 10)


@pytest.mark.parametrize("last", [b"\0\0\r\n\r\n", b""], ids=["rubbish", "half closed"])
async def test_a_closing_connection_whose_peer_takes_nothing_is_aborted(
    app: Echo, port: int, last: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.transport.http_bounds, "FLUSHING_STALL_S", 0.2)
    async with stopped_connection(f"http://127.0.0.1:{port}") as (_, writer):
        writer.write(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        await until(lambda: app.transports and app.transports[0].get_write_buffer_size(), 10)
        if last:
            writer.write(last)
        else:
            writer.write_eof()

        await until(lambda: is_closed(app.transports[0]), 10)


def is_closed(transport: asyncio.Transport) -> bool:
    """Whether the file descriptor is closed, not only the transport closing."""
    sock = transport.get_extra_info("socket")
    return sock is None or sock.fileno() == -1
