"""Bounds on what one WebSocket peer can make the server keep, over real sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import api.transport.websocket
import api.transport.websocket_bounds
from api.transport.websocket import PING, WebSocketProtocol
from api.transport.websocket_bounds import SLICE_BYTES
from tests.support.hub_harness import settle
from tests.support.protocol_server import Echo, Peer, connected, frame, handshake, serving
from tests.support.raw_wire import stopped_connection
from tests.support.wait import until


class Watched(WebSocketProtocol):
    """Keeps all instances, so that a test can inspect them."""

    instances: list[WebSocketProtocol] = []

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        Watched.instances.append(self)


@pytest.fixture(autouse=True)
def no_instances() -> None:
    Watched.instances.clear()


async def opened(peer: Peer) -> WebSocketProtocol:
    peer.say(handshake())
    await peer.until(b"\r\n\r\n")
    return Watched.instances[-1]


async def test_a_flood_of_messages_is_parsed_one_slice_at_a_time() -> None:
    app = Echo()
    app.start.clear()
    flood = b"".join(frame(1, b"%d" % n) for n in range(20_000))
    async with serving(app, socket_protocol=Watched) as port:
        async with connected(port) as peer:
            protocol = await opened(peer)
            peer.say(flood)
            await until(lambda: not protocol.queue.empty(), 5)
            async with connected(port) as other:
                other.say(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                assert b" 200 " in await other.until(b"ok")

            assert len(protocol.queue) <= SLICE_BYTES // 7
            app.start.set()
            async with asyncio.timeout(20):
                while len(app.received) < 20_000:
                    await peer.reader.read(65_536)
    assert app.received == [str(n) for n in range(20_000)]


async def test_a_message_across_slices_is_complete() -> None:
    app = Echo()
    text = b"x" * 900
    many = b"".join(frame(1, text) for _ in range(50))
    async with serving(app, socket_protocol=Watched) as port, connected(port) as peer:
        await opened(peer)
        peer.say(many[:-5])
        await until(lambda: len(app.received) == 49, 5)
        peer.say(many[-5:])
        await until(lambda: len(app.received) == 50, 5)

    assert app.received == [text.decode()] * 50


async def test_empty_fragments_are_not_kept() -> None:
    app = Echo()
    async with serving(app, socket_protocol=Watched) as port, connected(port) as peer:
        protocol = await opened(peer)
        peer.say(frame(1, b"a", fin=False) + frame(0, b"", fin=False) * 10_000 + frame(9, b"p"))
        await peer.until(b"p")
        assert len(protocol.frames) == 1
        peer.say(frame(0, b"", fin=False) + frame(0, b"b", fin=False) + frame(0, b""))
        await peer.until(b"ab")

    assert app.received == ["ab"]


async def fill_with_pongs(peer: Peer, protocol: WebSocketProtocol) -> None:
    """Send pings until the server's write buffer is full of pongs."""
    while protocol.writable.is_set():
        peer.say(frame(9, b"x" * 125) * 200)
        await asyncio.sleep(0)


async def test_a_peer_that_reads_no_pongs_gets_one_pong_later() -> None:
    app = Echo()
    async with (
        serving(app, socket_protocol=Watched) as port,
        stopped_connection(f"http://127.0.0.1:{port}") as (reader, writer),
    ):
        peer = Peer(reader, writer)
        protocol = await opened(peer)
        await fill_with_pongs(peer, protocol)
        unsent = protocol.transport.get_write_buffer_size()
        peer.say(frame(9, b"y" * 125) * 500 + frame(9, b"last"))

        await until(lambda: b"last" in protocol._owed_pong, 5)
        assert protocol.transport.get_write_buffer_size() <= unsent
        async with asyncio.timeout(20):
            received = b""
            while not received.endswith(b"\x8a\x04last"):
                received = received[-100:] + await reader.read(65_536)
        peer.say(frame(1, b"alive"))
        assert await peer.until(b"alive")


@pytest.mark.parametrize("last", [frame(8, b"\x03\xe8"), b""], ids=["close frame", "half closed"])
async def test_a_closing_connection_whose_peer_takes_nothing_is_aborted(
    last: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.transport.websocket_bounds, "CLOSING_STALL_S", 0.2)
    app = Echo()
    async with (
        serving(app, socket_protocol=Watched) as port,
        stopped_connection(f"http://127.0.0.1:{port}") as (reader, writer),
    ):
        peer = Peer(reader, writer)
        protocol = await opened(peer)
        await fill_with_pongs(peer, protocol)
        if last:
            peer.say(last)
        else:
            writer.write_eof()

        await until(lambda: protocol.disconnected, 5)


async def test_an_unparsed_pong_excuses_a_missing_pong() -> None:
    """The application is busy with one message; a second message and the pongs are unparsed."""
    app = Echo()
    app.start.clear()
    async with serving(app, socket_protocol=Watched) as port:
        async with connected(port) as peer:
            protocol = await opened(peer)
            peer.say(frame(1, b"one") + frame(1, b"two"))
            await until(lambda: protocol.is_behind, 5, "the second message is unparsed")
            for _ in range(4):
                protocol.beat()
                await peer.until(PING)

            app.start.set()
            assert await peer.until(b"two")
    assert app.received == ["one", "two"]


@pytest.mark.parametrize("is_behind", [True, False])
async def test_a_peer_without_pongs_is_closed(
    is_behind: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Echo()
    if is_behind:
        app.start.clear()
    async with serving(app, socket_protocol=Watched) as port:
        async with connected(port) as peer:
            protocol = await opened(peer)
            peer.say(frame(1, b"one") + frame(1, b"two"))
            await until(lambda: protocol.is_behind == is_behind and protocol.frames == [], 5)
            protocol.beat()
            assert protocol.close_sent is False
            if is_behind:
                protocol.beat()  # the pong may be unparsed
                assert protocol.close_sent is False
                monkeypatch.setattr(api.transport.websocket, "PONG_EXCUSE_S", 0.0)
            protocol.beat()

            rest = await peer.rest()
    assert (4008).to_bytes(2, "big") + b"no pong in two heartbeats" in rest


OURS = frame(10, PING[2:])


@pytest.mark.parametrize(
    ("before", "pong", "after", "is_noted"),
    [
        (b"", OURS, b"", True),
        (b"", OURS + frame(1, b"x"), b"", True),
        (frame(2, b"y" * 20)[:7], OURS, frame(2, b"y" * 20)[17:], False),
        (frame(1, b"y", fin=False), OURS, frame(0, b"y"), True),
        (b"", frame(10, b"else"), b"", False),
        (b"", frame(10, b""), b"", False),
        (b"", frame(9, PING[2:]), b"", False),
    ],
    ids="alone first inside between another empty ping".split(),
)
async def test_only_the_pong_for_our_ping_is_noted(
    before: bytes, pong: bytes, after: bytes, is_noted: bool
) -> None:
    """With and without the parser; the shortcut is used only between two frames."""
    app = Echo()
    async with serving(app, socket_protocol=Watched) as port, connected(port) as peer:
        protocol = await opened(peer)
        protocol.beat()
        await peer.until(PING)
        for piece in filter(None, (before, pong, after)):
            peer.say(piece)
            await settle()  # so that the server reads each piece alone
        peer.say(frame(1, b"last"))
        await peer.until(b"last")

        assert protocol._awaits_pong is not is_noted
        assert (b"last" in app.received[-1].encode()) and not app.disconnects


async def test_the_pong_of_an_idle_peer_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when an upgrade of websockets disables the shortcut for pongs."""
    async with serving(Echo(), socket_protocol=Watched) as port, connected(port) as peer:
        protocol = await opened(peer)
        monkeypatch.setattr(protocol, "parse_slice", None)
        protocol.beat()
        await peer.until(PING)
        peer.say(OURS)

        await until(lambda: not protocol._awaits_pong, 5)


async def test_no_ping_follows_a_close_frame() -> None:
    async with serving(Echo(), socket_protocol=Watched) as port, connected(port) as peer:
        protocol = await opened(peer)
        peer.say(frame(3, b"wrong"))
        await until(lambda: protocol.close_sent, 5)
        protocol.beat()

        assert PING not in await peer.rest()
