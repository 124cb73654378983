"""Answers that go on without their handler: on real sockets, with a real hub."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from api.dialects.native.fold import NDJSON
from api.hub.relay import Relay
from api.readers.http_stream import Beginning, stream
from shared.log.events import Start
from tests.support.bench import END, GENERATION, Bench, settle
from tests.support.protocol_server import Peer, Quick, connected, handshake, serving
from tests.support.raw_wire import dechunk, stopped_connection
from tests.support.wait import until

GET = b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n"
NEXT = b"GET /plain HTTP/1.1\r\nhost: x\r\n\r\n"
ENDED = b"\r\n0\r\n\r\n"


class App:
    """Streams the one generation, with or without the extension; answers anything else at once."""

    def __init__(self, bench: Bench, *, hands_over: bool = True) -> None:
        self.bench = bench
        self.hands_over = hands_over
        self.begun = 0
        self.returned = 0
        self.held: asyncio.Event | None = None  # before the stream begins
        self.transport: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass
            return
        if scope["path"] == "/plain":
            headers = [(b"content-length", b"2")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"ok"})
            return
        if not self.hands_over:
            del scope["extensions"]["tailrace.handover"]
        self.transport = scope["extensions"]["tailrace.transport"]
        await stream(
            self.bench.hub, scope, receive, send,
            meta=self.bench.log.known[GENERATION], dialect=NDJSON, begin=self._begin,
        )  # fmt: skip
        self.returned += 1

    async def _begin(self, relay: Relay) -> Beginning:
        self.begun += 1
        if self.held is not None:
            await self.held.wait()
        return Beginning(prefix=b"\n")

    @property
    def is_empty(self) -> bool:
        """Whether the hub knows of no reader any more."""
        hub = self.bench.hub
        relay = hub.relays[GENERATION]
        left = [hub.connections, hub.blocked, relay.readers, relay.scattered, relay.holds]
        return not any(left) and not len(hub.heartbeats)


@contextlib.asynccontextmanager
async def streaming(
    *, hands_over: bool = True, protocol: type[Quick] = Quick, **settings: Any
) -> AsyncIterator[tuple[App, int]]:
    async with Bench(**settings) as bench:
        bench.log.create()
        bench.log.append(Start(1, "demo"))
        app = App(bench, hands_over=hands_over)
        async with serving(app, protocol) as port:
            yield app, port
        if app.begun:
            await until(lambda: app.is_empty, 5, "nobody left in the hub")


@pytest.fixture
async def served() -> AsyncIterator[tuple[App, int]]:
    async with streaming() as served:
        yield served


async def begun(app: App, peer: Peer, request: bytes = GET) -> bytes:
    """Send a request; return what was received up to the first entry of the log."""
    peer.say(request)
    return await peer.until(b'"demo"}\n\r\n')


async def test_the_handler_goes_while_the_answer_goes_on(served: tuple[App, int]) -> None:
    app, port = served
    async with connected(port) as peer:
        head = await begun(app, peer)
        await until(lambda: app.returned, 5)
        assert not app.is_empty
        app.bench.log.tokens("on")
        await peer.until(b'"on"}\n\r\n')
        app.bench.log.append(END)

        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b'"end"' in await peer.until(ENDED)
        await until(lambda: app.is_empty, 5)
        # The connection is as good as new.
        peer.say(NEXT)
        assert b" 200 " in await peer.until(b"ok")
        peer.say(GET)
        assert b'"end"' in await peer.until(ENDED)


async def test_what_is_kept_is_no_request(served: tuple[App, int]) -> None:
    app, port = served
    async with connected(port) as peer:
        await begun(app, peer)
        await until(lambda: app.returned, 5)
        protocol = app.transport.get_protocol()

        assert not vars(protocol)
        assert protocol.scope is protocol.headers is protocol.parser is None
        assert not protocol.tasks


@pytest.mark.parametrize("request_bytes", [GET, NEXT, GET[:9], handshake()])
async def test_a_connection_goes_when_it_is_closed(request_bytes: bytes) -> None:
    """And not when the garbage collector comes by."""
    seen: list[weakref.ref[Quick]] = []

    class Watched(Quick):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            seen.append(weakref.ref(self))

    async with streaming(protocol=Watched) as (app, port):
        gc.collect()
        gc.disable()
        try:
            async with connected(port) as peer:
                peer.say(request_bytes)
                if request_bytes != GET[:9]:
                    await peer.until(b"\r\n\r\n")
                await until(lambda: seen, 5)
            app.transport = None
            await until(lambda: seen[0]() is None, 5, "it is gone")
        finally:
            gc.enable()


async def test_a_peer_that_leaves_is_forgotten(served: tuple[App, int]) -> None:
    app, port = served
    async with connected(port) as peer:
        await begun(app, peer)
        await until(lambda: app.returned, 5)
    await until(lambda: app.is_empty, 5)


async def test_a_peer_that_leaves_before_the_handover_is_forgotten(
    served: tuple[App, int],
) -> None:
    app, port = served
    app.held = asyncio.Event()
    async with connected(port) as peer:
        peer.say(GET)
        await until(lambda: app.begun, 5)
    await until(lambda: app.transport.is_closing(), 5)
    app.held.set()
    await until(lambda: app.returned, 5)
    await until(lambda: app.is_empty, 5)


async def test_a_peer_that_leaves_after_a_body_that_nobody_reads_is_forgotten(
    served: tuple[App, int],
) -> None:
    app, port = served
    app.held = asyncio.Event()
    async with connected(port) as peer:
        peer.say(GET[:-2] + b"content-length: 300000\r\n\r\n" + b"x" * 300_000)
        await until(lambda: app.begun and app.transport.get_protocol().flow.read_paused, 5)
        app.held.set()
        await until(lambda: app.returned, 5)
    await until(lambda: app.is_empty, 5)


@pytest.mark.parametrize("hands_over", [True, False])
async def test_a_socket_cannot_be_had_in_the_middle_of_an_answer(hands_over: bool) -> None:
    async with streaming(hands_over=hands_over) as (app, port):
        async with connected(port) as peer:
            await begun(app, peer)
            await settle()
            peer.say(handshake())
            await settle()
            app.bench.log.append(END)
            answer, refusal = (await peer.rest()).split(ENDED)

            assert b'"end"' in answer and refusal.startswith(b"HTTP/1.1 400 ")
            await until(lambda: app.is_empty, 5)


async def test_a_peer_that_ends_its_side_has_left(served: tuple[App, int]) -> None:
    app, port = served
    async with connected(port) as peer:
        await begun(app, peer)
        peer.writer.write_eof()
        rest = await peer.rest()

        assert ENDED not in rest
        await until(lambda: app.is_empty, 5)


async def test_draining_breaks_off(served: tuple[App, int]) -> None:
    app, port = served
    async with connected(port) as peer:
        await begun(app, peer)
        await app.bench.hub.drain(0)

        assert await peer.rest() == b""
        assert app.is_empty


async def test_a_reader_that_takes_nothing_is_cut() -> None:
    async with streaming(subscriber_bytes_max=65_536) as (app, port):
        async with stopped_connection(f"http://127.0.0.1:{port}") as (reader, writer):
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(400):
                app.bench.log.tokens("x" * 10_000)
                await settle(2)
                if app.bench.hub.blocked:
                    break
            assert app.bench.hub.blocked
            app.bench.log.tokens("x" * 100_000)

            async def is_cut() -> bool:
                await app.bench.pass_time(2)  # the kernel may have taken some more at first
                return app.bench.hub.counters.cuts == 1

            await until(is_cut, 5)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                while True:
                    await reader.readexactly(1024)
        await until(lambda: app.is_empty, 5)


async def test_an_end_that_waits_for_room_comes_last(served: tuple[App, int]) -> None:
    """A peer that takes its time gets all, a finished body, and the answer to its next request."""
    app, port = served
    async with stopped_connection(f"http://127.0.0.1:{port}") as (reader, writer):
        writer.write(GET + NEXT)
        await until(lambda: app.returned, 5)
        app.bench.log.tokens("x" * 3_000_000)
        await until(lambda: app.bench.hub.blocked, 5)
        app.bench.log.append(END)
        await settle()
        received = bytearray()
        async with asyncio.timeout(20):
            while not received.endswith(b"ok"):
                received += await reader.read(1_000_000)
    body, is_finished = dechunk(bytes(received))

    assert is_finished and body.count(b"x" * 3_000_000) == 1 and body.count(b'"end"') == 1
    assert received.count(ENDED) == 1


async def test_a_server_that_stops_lets_the_answer_end_and_closes(served: tuple[App, int]) -> None:
    app, port = served
    async with connected(port) as peer:
        await begun(app, peer)
        await until(lambda: app.returned, 5)
        app.transport.get_protocol().shutdown()
        app.bench.log.append(END)

        assert (await peer.rest()).endswith(ENDED)


async def test_the_rest_of_a_body_is_owed_once_the_answer_is_over(
    served: tuple[App, int],
) -> None:
    app, port = served
    async with connected(port) as peer:
        await begun(app, peer, GET[:-2] + b"content-length: 9\r\n\r\n123")
        await asyncio.sleep(2 * Quick.head_s)  # a stream has no deadline: the silence is the test
        peer.say(b"456")
        app.bench.log.append(END)
        await peer.until(ENDED)

        assert await peer.rest() == b""


Step = bytes | Callable[[App], None]


def says(*texts: str) -> Step:
    return lambda app: app.bench.log.tokens(*texts) and None


def ends(app: App) -> None:
    app.bench.log.append(END)


@pytest.mark.parametrize(
    "steps",
    [
        [GET, says("a"), ends, NEXT],
        [GET + NEXT, says("a", "b"), ends],
        [GET, NEXT + NEXT, says("a"), ends],
        [GET, NEXT[:9], says("a"), ends, NEXT[9:]],
        [GET, b"\r\n", says("a"), ends, NEXT],
        [GET + GET + NEXT, says("a"), ends],
        [b"HEAD" + GET[3:] + NEXT, ends],
        [GET[:-2] + b"connection: close\r\n\r\n" + NEXT, says("a"), ends],
        [GET.replace(b"1.1", b"1.0"), says("a"), ends, NEXT],
        [GET[:-2] + b"content-length: 4\r\n\r\n12", says("a"), b"34" + NEXT, ends],
        [GET[:-2] + b"content-length: 4\r\n\r\n12", says("a"), ends, b"34" + NEXT],
        [GET[:-2] + b"transfer-encoding: chunked\r\n\r\n", says("a"), b"0\r\n\r\n" + NEXT, ends],
        [GET[:-2] + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n", says("a"), NEXT, ends],
        [GET, says("a"), b"\0\0\0\r\n\r\n", ends],
        [GET + b"\0\0\0\r\n\r\n", says("a"), ends],
        [GET[:-2] + b"expect: 100-continue\r\ncontent-length: 1\r\n\r\n", b"1", ends, NEXT],
    ],
)
async def test_the_bytes_are_those_of_a_handler_that_waits(steps: list[Step]) -> None:
    handed, waited = await asyncio.gather(
        transcript(steps, hands_over=True), transcript(steps, hands_over=False)
    )

    assert handed == waited
    assert handed.startswith(b"HTTP/1.1 ")


async def transcript(steps: list[Step], *, hands_over: bool) -> bytes:
    """All that comes back, until the last answer or the connection has ended."""
    async with streaming(hands_over=hands_over) as (app, port), connected(port) as peer:
        for step in steps:
            if isinstance(step, bytes):
                peer.say(step)
            else:
                step(app)
            if step == steps[0]:
                await until(lambda: app.begun, 5)
            await settle()  # each reaches the server by itself
        with contextlib.suppress(OSError):  # closed by the server
            peer.writer.write_eof()
        return await peer.rest()
