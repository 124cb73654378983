"""The live connection against a server whose replies each test scripts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import hiredis
import pytest

from api.hub import live_connection as live
from api.hub.live_connection import LiveConnection
from tests.support.wait import until

DEADLINE_S = 5.0
SocketClient = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The server's end of one connection.

    Attributes:
        is_served: its function has returned, so every command that it expects has come.
    """

    is_served = False

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.parser = hiredis.Reader()
        self.reader, self.writer = reader, writer

    async def expect(self, *words: bytes) -> None:
        while (command := self.parser.gets()) is False:
            data = await self.reader.read(4_096)
            assert data, "the connection was closed"
            self.parser.feed(data)
        assert command == list(words)

    def say(self, reply: bytes) -> None:
        self.writer.write(reply)


class RecordingListener:
    """A listener that notes each call."""

    def __init__(self) -> None:
        self.notes: list[tuple[bytes, ...]] = []

    def subscribed(self, channel: bytes) -> None:
        self.notes.append((b"subscribed", channel))

    def message(self, channel: bytes, payload: bytes) -> None:
        self.notes.append((b"message", channel, payload))

    def disconnected(self) -> None:
        self.notes.append((b"disconnected",))


@pytest.fixture(autouse=True)
def short_reconnect_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RECONNECT_PAUSES_S", (0.001, 0.002))


@contextlib.asynccontextmanager
async def connected(
    *talks: SocketClient, login: str = ""
) -> AsyncIterator[tuple[LiveConnection, RecordingListener, list[Peer]]]:
    """Run a connection to a server; the nth function serves the nth accepted socket."""
    peers: list[Peer] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(Peer(reader, writer))
        with contextlib.suppress(ConnectionError):
            peer = peers[-1]
            await talks[min(len(peers), len(talks)) - 1](peer)
            peer.is_served = True
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    listener = RecordingListener()
    connection = LiveConnection(f"redis://{login}127.0.0.1:{port}/0", listener)
    running = asyncio.create_task(connection.run())
    try:
        yield connection, listener, peers
    finally:
        running.cancel()
        await asyncio.wait([running])
        server.close()
        await server.wait_closed()


async def greet(peer: Peer) -> None:
    await peer.expect(b"PING")
    peer.say(b"+PONG\r\n")


def confirmation(channel: bytes) -> bytes:
    return b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%b\r\n:1\r\n" % (len(channel), channel)


async def test_subscribes_of_one_loop_iteration_leave_as_one_command_in_order() -> None:
    async def socket_client(peer: Peer) -> None:
        await greet(peer)
        await peer.expect(b"SUBSCRIBE", b"a", b"b")
        peer.say(confirmation(b"a") + b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n")
        await peer.expect(b"SUBSCRIBE", b"c")
        await peer.expect(b"UNSUBSCRIBE", b"a")

    async with connected(socket_client) as (connection, listener, peers):
        connection.subscribe(b"a")
        connection.subscribe(b"b")
        await until(lambda: len(listener.notes) == 2, DEADLINE_S)
        assert listener.notes == [(b"subscribed", b"a"), (b"message", b"a", b"hi")]
        connection.subscribe(b"c")
        connection.unsubscribe(b"a")
        # The end of the block closes the socket, which may overtake the last commands.
        await until(lambda: peers[-1].is_served, DEADLINE_S)


@pytest.mark.parametrize("has_next_subscribe", [True, False])
async def test_an_unsubscribe_leaves_with_the_next_subscribe_or_after_its_delay(
    has_next_subscribe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "UNSUBSCRIBE_DELAY_S", DEADLINE_S * 10 if has_next_subscribe else 0.0)

    async def socket_client(peer: Peer) -> None:
        await greet(peer)
        await peer.expect(b"SUBSCRIBE", b"a")
        peer.say(confirmation(b"a"))
        await peer.expect(b"UNSUBSCRIBE", b"a")
        if has_next_subscribe:
            await peer.expect(b"SUBSCRIBE", b"b")
        peer.say(confirmation(b"b"))

    async with connected(socket_client) as (connection, listener, _):
        connection.subscribe(b"a")
        await until(lambda: listener.notes == [(b"subscribed", b"a")], DEADLINE_S)
        connection.unsubscribe(b"a")
        for _ in range(10):
            await asyncio.sleep(0)
        if has_next_subscribe:
            assert len(listener.notes) == 1
            connection.subscribe(b"b")
        await until(lambda: listener.notes[1:] == [(b"subscribed", b"b")], DEADLINE_S)


async def test_after_a_loss_all_channels_are_subscribed_and_confirmed_again() -> None:
    async def socket_client(peer: Peer) -> None:
        await greet(peer)
        await peer.expect(b"SUBSCRIBE", b"a")
        peer.say(confirmation(b"a"))

    async with connected(socket_client) as (connection, listener, peers):
        connection.subscribe(b"a")
        await until(lambda: listener.notes == [(b"subscribed", b"a")], DEADLINE_S)
        peers[0].writer.transport.abort()
        await until(lambda: len(listener.notes) == 3, DEADLINE_S)
        assert listener.notes[1:] == [(b"disconnected",), (b"subscribed", b"a")]
        assert connection.reconnects == 1


@pytest.mark.parametrize("answer", [b"-NOAUTH Authentication required.\r\n", b"!nonsense\r\n", b""])
async def test_a_refused_connection_is_opened_again(answer: bytes) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.expect(b"PING")
        peer.say(answer)
        if not answer:
            peer.writer.close()

    async with connected(refuse, refuse, greet) as (connection, listener, peers):
        await until(lambda: connection.is_connected, DEADLINE_S)
        assert len(peers) == 3
        assert listener.notes == []


async def test_the_login_is_the_first_command() -> None:
    async def socket_client(peer: Peer) -> None:
        await peer.expect(b"AUTH", b"ann", b"p@ss")
        peer.say(b"+OK\r\n")
        await greet(peer)

    async with connected(socket_client, login="ann:p%40ss@") as (connection, _, _peers):
        await until(lambda: connection.is_connected, DEADLINE_S)


async def test_a_dropped_connection_is_opened_again() -> None:
    async with connected(greet) as (connection, listener, peers):
        await until(lambda: connection.is_connected, DEADLINE_S)
        connection.drop()
        await until(lambda: len(peers) == 2 and connection.is_connected, DEADLINE_S)
        assert listener.notes == [(b"disconnected",)]
