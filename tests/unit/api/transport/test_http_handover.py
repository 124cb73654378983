"""Responses that go on after their handler has returned: real sockets, a real hub."""

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
from tests.support.hub_harness import END, GENERATION, HubHarness, settle
from tests.support.protocol_server import Peer, QuickHttpProtocol, connected, handshake, serving
from tests.support.raw_wire import dechunk, stopped_connection
from tests.support.wait import until

GET = b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n"
NEXT = b"GET /plain HTTP/1.1\r\nhost: x\r\n\r\n"
ENDED = b"\r\n0\r\n\r\n"


class App:
    """Streams one generation, with or without the handover; answers other paths at once."""

    def __init__(self, hub_harness: HubHarness, *, hands_over: bool = True) -> None:
        self.hub_harness = hub_harness
        self.hands_over = hands_over
        self.requests = 0
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
            scope["extensions"].pop("tailrace.handover", None)  # none in HTTP/1.0
        self.transport = scope["extensions"]["tailrace.transport"]
        await stream(
            self.hub_harness.hub, scope, receive, send,
            meta=self.hub_harness.log.known[GENERATION], dialect=NDJSON, begin=self._begin,
        )  # fmt: skip
        self.returned += 1

    async def _begin(self, relay: Relay) -> Beginning:
        self.requests += 1
        if self.held is not None:
            await self.held.wait()
        return Beginning(prefix=b"\n")

    @property
    def is_empty(self) -> bool:
        """Whether the hub has no reader."""
        hub = self.hub_harness.hub
        relay = hub.relays[GENERATION]
        left = [
            hub.connections,
            hub.blocked_sinks,
            relay.readers,
            relay.individual_readers,
            relay.holds,
        ]
        return not any(left) and not len(hub.heartbeats)


@contextlib.asynccontextmanager
async def streaming(
    *,
    hands_over: bool = True,
    protocol: type[QuickHttpProtocol] = QuickHttpProtocol,
    **settings: Any,
) -> AsyncIterator[tuple[App, int]]:
    async with HubHarness(**settings) as hub_harness:
        hub_harness.log.create()
        hub_harness.log.append(Start(1, "demo"))
        app = App(hub_harness, hands_over=hands_over)
        async with serving(app, protocol) as port:
            yield app, port
        if app.requests:
            await until(lambda: app.is_empty, 5, "the hub has no reader")


@pytest.fixture
async def local_node() -> AsyncIterator[tuple[App, int]]:
    async with streaming() as local_node:
        yield local_node


async def begin(app: App, peer: Peer, request: bytes = GET) -> bytes:
    """Send a request; return what was received up to the first entry of the log."""
    peer.say(request)
    return await peer.until(b'"demo"}\n\r\n')


async def test_the_handler_returns_while_the_response_goes_on(local_node: tuple[App, int]) -> None:
    app, port = local_node
    async with connected(port) as peer:
        head = await begin(app, peer)
        await until(lambda: app.returned, 5)
        assert not app.is_empty
        app.hub_harness.log.tokens("on")
        await peer.until(b'"on"}\n\r\n')
        app.hub_harness.log.append(END)

        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b'"end"' in await peer.until(ENDED)
        await until(lambda: app.is_empty, 5)
        # The connection accepts further requests.
        peer.say(NEXT)
        assert b" 200 " in await peer.until(b"ok")
        peer.say(GET)
        assert b'"end"' in await peer.until(ENDED)


async def test_after_the_handover_no_object_of_the_request_is_kept(
    local_node: tuple[App, int],
) -> None:
    app, port = local_node
    async with connected(port) as peer:
        await begin(app, peer)
        await until(lambda: app.returned, 5)
        protocol = app.transport.get_protocol()

        assert not vars(protocol)
        assert protocol.scope is protocol.headers is protocol.parser is None
        assert not protocol.tasks


@pytest.mark.parametrize("request_bytes", [GET, NEXT, GET[:9], handshake()])
async def test_a_closed_connection_is_freed_without_the_garbage_collector(
    request_bytes: bytes,
) -> None:
    protocols: list[weakref.ref[QuickHttpProtocol]] = []

    class Watched(QuickHttpProtocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            protocols.append(weakref.ref(self))

    async with streaming(protocol=Watched) as (app, port):
        gc.collect()
        gc.disable()
        try:
            async with connected(port) as peer:
                peer.say(request_bytes)
                if request_bytes != GET[:9]:
                    await peer.until(b"\r\n\r\n")
                await until(lambda: protocols, 5)
            app.transport = None
            await until(lambda: protocols[0]() is None, 5, "the protocol is freed")
        finally:
            gc.enable()


async def test_the_reader_of_a_disconnected_peer_is_removed(local_node: tuple[App, int]) -> None:
    app, port = local_node
    async with connected(port) as peer:
        await begin(app, peer)
        await until(lambda: app.returned, 5)
    await until(lambda: app.is_empty, 5)


async def test_the_reader_of_a_peer_that_disconnects_before_the_handover_is_removed(
    local_node: tuple[App, int],
) -> None:
    app, port = local_node
    app.held = asyncio.Event()
    async with connected(port) as peer:
        peer.say(GET)
        await until(lambda: app.requests, 5)
    await until(lambda: app.transport.is_closing(), 5)
    app.held.set()
    await until(lambda: app.returned, 5)
    await until(lambda: app.is_empty, 5)


async def test_the_reader_of_a_peer_that_disconnects_after_an_unread_body_is_removed(
    local_node: tuple[App, int],
) -> None:
    app, port = local_node
    app.held = asyncio.Event()
    async with connected(port) as peer:
        peer.say(GET[:-2] + b"content-length: 300000\r\n\r\n" + b"x" * 300_000)
        await until(lambda: app.requests and app.transport.get_protocol().flow.read_paused, 5)
        app.held.set()
        await until(lambda: app.returned, 5)
    await until(lambda: app.is_empty, 5)


@pytest.mark.parametrize("hands_over", [True, False])
async def test_a_websocket_handshake_during_an_answer_is_refused(hands_over: bool) -> None:
    async with streaming(hands_over=hands_over) as (app, port):
        async with connected(port) as peer:
            await begin(app, peer)
            await settle()
            peer.say(handshake())
            await settle()
            app.hub_harness.log.append(END)
            answer, refusal = (await peer.rest()).split(ENDED)

            assert b'"end"' in answer and refusal.startswith(b"HTTP/1.1 400 ")
            await until(lambda: app.is_empty, 5)


async def test_a_peer_that_closes_its_side_counts_as_disconnected(
    local_node: tuple[App, int],
) -> None:
    app, port = local_node
    async with connected(port) as peer:
        await begin(app, peer)
        peer.writer.write_eof()
        rest = await peer.rest()

        assert ENDED not in rest
        await until(lambda: app.is_empty, 5)


async def test_draining_aborts_the_connection(local_node: tuple[App, int]) -> None:
    app, port = local_node
    async with connected(port) as peer:
        await begin(app, peer)
        await app.hub_harness.hub.drain(0)

        assert await peer.rest() == b""
        assert app.is_empty


async def test_a_reader_that_takes_nothing_is_cut() -> None:
    async with streaming(subscriber_bytes_max=65_536) as (app, port):
        async with stopped_connection(f"http://127.0.0.1:{port}") as (reader, writer):
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(400):
                app.hub_harness.log.tokens("x" * 10_000)
                await settle(2)
                if app.hub_harness.hub.blocked_sinks:
                    break
            assert app.hub_harness.hub.blocked_sinks
            app.hub_harness.log.tokens("x" * 100_000)

            async def is_cut() -> bool:
                await app.hub_harness.pass_time(2)  # at first the kernel may take some more bytes
                return app.hub_harness.hub.counters.cuts == 1

            await until(is_cut, 5)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                while True:
                    await reader.readexactly(1024)
        await until(lambda: app.is_empty, 5)


async def test_an_end_with_a_full_write_buffer_comes_last(local_node: tuple[App, int]) -> None:
    """A slow peer gets all events, a finished body, and the answer to its next request."""
    app, port = local_node
    async with stopped_connection(f"http://127.0.0.1:{port}") as (reader, writer):
        writer.write(GET + NEXT)
        await until(lambda: app.returned, 5)
        app.hub_harness.log.tokens("x" * 3_000_000)
        await until(lambda: app.hub_harness.hub.blocked_sinks, 5)
        app.hub_harness.log.append(END)
        await settle()
        received = bytearray()
        async with asyncio.timeout(20):
            while not received.endswith(b"ok"):
                received += await reader.read(1_000_000)
    body, is_finished = dechunk(bytes(received))

    assert is_finished and body.count(b"x" * 3_000_000) == 1 and body.count(b'"end"') == 1
    assert received.count(ENDED) == 1


async def test_a_stopping_server_finishes_the_response_and_closes(
    local_node: tuple[App, int],
) -> None:
    app, port = local_node
    async with connected(port) as peer:
        await begin(app, peer)
        await until(lambda: app.returned, 5)
        app.transport.get_protocol().shutdown()
        app.hub_harness.log.append(END)

        assert (await peer.rest()).endswith(ENDED)


async def test_the_rest_of_a_body_has_a_deadline_after_the_response(
    local_node: tuple[App, int],
) -> None:
    app, port = local_node
    async with connected(port) as peer:
        await begin(app, peer, GET[:-2] + b"content-length: 9\r\n\r\n123")
        # A stream has no deadline for the rest of a body.
        await asyncio.sleep(2 * QuickHttpProtocol.head_s)  # the silence is the test
        peer.say(b"456")
        app.hub_harness.log.append(END)
        await peer.until(ENDED)

        assert await peer.rest() == b""


Step = bytes | Callable[[App], None]


def tokens(*texts: str) -> Step:
    return lambda app: app.hub_harness.log.tokens(*texts) and None


def end(app: App) -> None:
    app.hub_harness.log.append(END)


@pytest.mark.parametrize(
    "steps",
    [
        [GET, tokens("a"), end, NEXT],
        [GET + NEXT, tokens("a", "b"), end],
        [GET, NEXT + NEXT, tokens("a"), end],
        [GET, NEXT[:9], tokens("a"), end, NEXT[9:]],
        [GET, b"\r\n", tokens("a"), end, NEXT],
        [GET + GET + NEXT, tokens("a"), end],
        [b"HEAD" + GET[3:] + NEXT, end],
        [GET[:-2] + b"connection: close\r\n\r\n" + NEXT, tokens("a"), end],
        [GET.replace(b"1.1", b"1.0"), tokens("a"), end, NEXT],
        [GET[:-2] + b"content-length: 4\r\n\r\n12", tokens("a"), b"34" + NEXT, end],
        [GET[:-2] + b"content-length: 4\r\n\r\n12", tokens("a"), end, b"34" + NEXT],
        [GET[:-2] + b"transfer-encoding: chunked\r\n\r\n", tokens("a"), b"0\r\n\r\n" + NEXT, end],
        [GET[:-2] + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n", tokens("a"), NEXT, end],
        [GET, tokens("a"), b"\0\0\0\r\n\r\n", end],
        [GET + b"\0\0\0\r\n\r\n", tokens("a"), end],
        [GET[:-2] + b"expect: 100-continue\r\ncontent-length: 1\r\n\r\n", b"1", end, NEXT],
    ],
)
async def test_the_bytes_are_the_same_with_and_without_the_handover(steps: list[Step]) -> None:
    with_handover, without_handover = await asyncio.gather(
        transcript(steps, hands_over=True), transcript(steps, hands_over=False)
    )

    assert with_handover == without_handover
    assert with_handover.startswith(b"HTTP/1.1 ")


async def transcript(steps: list[Step], *, hands_over: bool) -> bytes:
    """Run the steps on one connection; return all received bytes until the server closes."""
    async with streaming(hands_over=hands_over) as (app, port), connected(port) as peer:
        for step in steps:
            if isinstance(step, bytes):
                peer.say(step)
            else:
                step(app)
            if step == steps[0]:
                await until(lambda: app.requests, 5)
            await settle()  # so that the server reads each step alone
        with contextlib.suppress(OSError):  # closed by the server
            peer.writer.write_eof()
        return await peer.rest()
