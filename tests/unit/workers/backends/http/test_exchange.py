"""One exchange with a fake transport: responses, errors, and reads that share one timer."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import pytest

from workers.backends.http.exchange import UNREAD_BYTES_MAX, Exchange, ExchangeError

NO_DEADLINE = 1e9
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
VALID = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class FakeTransport:
    def __init__(self) -> None:
        self.written = b""
        self.is_reading = True
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


class FakeTimer:
    def __init__(self, at: float, ring: Any) -> None:
        self.at, self.ring, self.is_cancelled = at, ring, False

    def when(self) -> float:
        return self.at

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeLoop:
    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[FakeTimer] = []
        self.create_future = asyncio.get_running_loop().create_future

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, ring: Any) -> FakeTimer:
        self.timers.append(FakeTimer(at, ring))
        return self.timers[-1]

    def advance(self, now: float) -> None:
        self.now = now
        due = [t for t in self.timers if t.at <= now and not t.is_cancelled]
        self.timers = [t for t in self.timers if t not in due and not t.is_cancelled]
        for timer in due:
            timer.ring()


class Connected(Exchange):
    """An exchange with a sent request, on a fake transport and a fake loop."""

    def __init__(self) -> None:
        super().__init__()
        self.loop, self.transport = FakeLoop(), FakeTransport()
        self._loop = self.loop  # type: ignore[assignment]
        self.connection_made(self.transport)  # type: ignore[arg-type]
        self.send(b"POST")

    async def body(self) -> bytes:
        await self.head(NO_DEADLINE)
        body = b""
        while data := await self.read(NO_DEADLINE):
            body += data
        return body


@pytest.fixture
async def exchange() -> Connected:
    return Connected()


@pytest.mark.parametrize("size", [1, 7, 1_000])
@pytest.mark.parametrize(
    "raw",
    [
        VALID,
        CHUNKED + b"1\r\nh\r\n1;x=y\r\ni\r\n0\r\nTrailer: t\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + VALID,
        CHUNKED[:-2]
        + b"Content-Encoding: gzip\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
        % (len(gzip.compress(b"hi", mtime=0)), gzip.compress(b"hi", mtime=0)),
    ],
    ids=["length", "chunks", "informations first", "gzip"],
)
async def test_a_response_is_the_same_however_it_is_cut(
    exchange: Connected, raw: bytes, size: int
) -> None:
    for start in range(0, len(raw), size):
        exchange.data_received(raw[start : start + size])

    assert await exchange.body() == b"hi"
    assert exchange.status == 200
    assert not {"link", "trailer"} & set(exchange.headers)
    assert exchange.finish()
    assert not exchange.transport.is_aborted


async def test_a_body_without_a_length_ends_with_the_connection(exchange: Connected) -> None:
    exchange.data_received(b"HTTP/1.1 200 OK\r\n\r\nhi")
    exchange.connection_lost(None)

    assert await exchange.body() == b"hi"
    assert not exchange.finish()


@pytest.mark.parametrize("raw", [CHUNKED + b"2\r\nhi\r\n", VALID[:-1]], ids=["chunks", "length"])
async def test_an_incomplete_body_raises_after_its_last_bytes(
    exchange: Connected, raw: bytes
) -> None:
    exchange.data_received(raw)
    exchange.connection_lost(None)
    await exchange.head(NO_DEADLINE)
    assert (await exchange.read(NO_DEADLINE)).startswith(b"h")

    with pytest.raises(ExchangeError) as caught:
        await exchange.read(NO_DEADLINE)
    assert not caught.value.is_before_response


async def test_the_body_before_invalid_bytes_can_be_read(exchange: Connected) -> None:
    head = asyncio.create_task(exchange.head(NO_DEADLINE))
    await asyncio.sleep(0)
    exchange.data_received(CHUNKED + b"2\r\nhi\r\nno size\r\n")
    await head
    assert await exchange.read(NO_DEADLINE) == b"hi"

    with pytest.raises(ExchangeError, match="not HTTP"):
        await exchange.read(NO_DEADLINE)
    assert not exchange.finish()


async def test_a_close_before_the_first_byte_is_marked(
    exchange: Connected,
) -> None:
    waiting = asyncio.create_task(exchange.head(NO_DEADLINE))
    await asyncio.sleep(0)
    exchange.connection_lost(None)

    with pytest.raises(ExchangeError) as caught:
        await waiting
    assert caught.value.is_before_response
    with pytest.raises(ExchangeError) as caught:
        exchange.send(b"POST")
    assert caught.value.is_before_response


@pytest.mark.parametrize(
    "raw",
    [
        VALID + VALID,
        VALID + b"\x00",
        VALID.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        VALID.replace(b"1.1", b"1.0"),
    ],
    ids=["a second answer", "more bytes", "it will close", "HTTP/1.0"],
)
async def test_a_connection_without_a_clean_end_is_not_used_again(
    exchange: Connected, raw: bytes
) -> None:
    exchange.data_received(raw)

    assert await exchange.body() == b"hi"
    assert not exchange.finish()
    assert exchange.transport.is_aborted


async def test_an_unread_body_closes_the_connection(exchange: Connected) -> None:
    exchange.data_received(CHUNKED)
    await exchange.head(NO_DEADLINE)

    assert not exchange.finish()
    assert exchange.transport.is_aborted


async def test_unrequested_bytes_close_an_idle_connection(exchange: Connected) -> None:
    exchange.data_received(VALID)
    assert await exchange.body() == b"hi"
    assert exchange.finish()
    exchange.data_received(VALID)

    assert exchange.transport.is_aborted


async def test_a_connection_is_used_for_several_exchanges(exchange: Connected) -> None:
    for _ in range(3):
        exchange.data_received(VALID)
        assert await exchange.body() == b"hi"
        assert exchange.finish()
        exchange.send(b"POST")

    assert exchange.transport.written == b"POST" * 4


async def test_unread_body_bytes_pause_the_socket(exchange: Connected) -> None:
    piece = b"%x\r\n%b\r\n" % (UNREAD_BYTES_MAX, b"x" * UNREAD_BYTES_MAX)
    exchange.data_received(CHUNKED + piece)
    assert exchange.transport.is_reading
    exchange.data_received(piece)
    assert not exchange.transport.is_reading
    await exchange.head(NO_DEADLINE)
    assert len(await exchange.read(NO_DEADLINE)) == 2 * UNREAD_BYTES_MAX

    assert exchange.transport.is_reading


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 4_000,
        CHUNKED + b"0\r\n" + b"x: y\r\n" * 20_000,
        CHUNKED + b"5;" + b"x" * 100_000,
    ],
    ids=["head", "informations", "trailers", "chunk extension"],
)
async def test_bytes_outside_the_body_are_bounded(exchange: Connected, raw: bytes) -> None:
    for start in range(0, len(raw), 1_000):
        exchange.data_received(raw[start : start + 1_000])

    with pytest.raises(ExchangeError):
        await exchange.body()


# Reads with deadlines that share one timer


async def start(exchange: Connected, deadline: float) -> asyncio.Task[bytes]:
    task = asyncio.create_task(exchange.read(deadline))
    await asyncio.sleep(0)
    return task


async def give(exchange: Connected, task: asyncio.Task[bytes]) -> bytes:
    exchange.data_received(b"1\r\nx\r\n")
    return await task


@pytest.fixture
async def with_head(exchange: Connected) -> Connected:
    exchange.data_received(CHUNKED)
    return exchange


async def test_a_read_times_out_at_its_deadline(with_head: Connected) -> None:
    task = await start(with_head, 10.0)
    with_head.loop.advance(9.9)
    await asyncio.sleep(0)
    assert not task.done()
    with_head.loop.advance(10.0)

    with pytest.raises(TimeoutError):
        await task
    with pytest.raises(TimeoutError):  # later bytes are not returned
        await with_head.read(NO_DEADLINE)


async def test_many_reads_share_one_timer(with_head: Connected) -> None:
    for now in range(9):
        with_head.loop.now = float(now)
        assert await give(with_head, await start(with_head, now + 10.0)) == b"x"

    assert len(with_head.loop.timers) == 1


async def test_a_timer_that_fires_early_is_set_again(with_head: Connected) -> None:
    await give(with_head, await start(with_head, 10.0))
    task = await start(with_head, 15.0)
    with_head.loop.advance(10.0)
    await asyncio.sleep(0)
    assert not task.done()
    with_head.loop.advance(15.0)

    with pytest.raises(TimeoutError):
        await task


async def test_an_earlier_deadline_moves_the_timer(with_head: Connected) -> None:
    await give(with_head, await start(with_head, 100.0))
    task = await start(with_head, 5.0)
    with_head.loop.advance(5.0)

    with pytest.raises(TimeoutError):
        await task


async def test_no_deadline_applies_between_reads(with_head: Connected) -> None:
    await give(with_head, await start(with_head, 10.0))
    with_head.loop.advance(50.0)

    assert await give(with_head, await start(with_head, 60.0)) == b"x"


async def test_finish_cancels_the_timer(with_head: Connected) -> None:
    await give(with_head, await start(with_head, 10.0))
    (timer,) = with_head.loop.timers
    with_head.finish()
    with_head.finish()

    assert timer.is_cancelled
