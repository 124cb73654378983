"""The live connection against a server that answers as the test says."""

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
Talk = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The server's side of one connection."""

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


class Heard:
    """A listener that notes what it is told."""

    def __init__(self) -> None:
        self.notes: list[tuple[bytes, ...]] = []

    def subscribed(self, channel: bytes) -> None:
        self.notes.append((b"subscribed", channel))

    def message(self, channel: bytes, payload: bytes) -> None:
        self.notes.append((b"message", channel, payload))

    def disconnected(self) -> None:
        self.notes.append((b"disconnected",))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RECONNECT_PAUSE_S", (0.001, 0.002))


@contextlib.asynccontextmanager
async def connected(
    *talks: Talk, login: str = ""
) -> AsyncIterator[tuple[LiveConnection, Heard, list[Peer]]]:
    """Run a connection to a server that holds the nth talk on the nth connection."""
    peers: list[Peer] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(Peer(reader, writer))
        with contextlib.suppress(ConnectionError):
            await talks[min(len(peers), len(talks)) - 1](peers[-1])
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    heard = Heard()
    connection = LiveConnection(f"redis://{login}127.0.0.1:{port}/0", heard)
    running = asyncio.create_task(connection.run())
    try:
        yield connection, heard, peers
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


async def test_what_is_wanted_in_one_tick_is_asked_for_in_order_and_together() -> None:
    async def talk(peer: Peer) -> None:
        await greet(peer)
        await peer.expect(b"SUBSCRIBE", b"a", b"b")
        peer.say(confirmation(b"a") + b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n")
        await peer.expect(b"SUBSCRIBE", b"c")
        await peer.expect(b"UNSUBSCRIBE", b"a")

    async with connected(talk) as (connection, heard, _):
        connection.subscribe(b"a")
        connection.subscribe(b"b")
        await until(lambda: len(heard.notes) == 2, DEADLINE_S)
        assert heard.notes == [(b"subscribed", b"a"), (b"message", b"a", b"hi")]
        connection.subscribe(b"c")
        connection.unsubscribe(b"a")


@pytest.mark.parametrize("is_next_wanted", [True, False])
async def test_an_unsubscribe_leaves_with_what_is_wanted_next_or_after_a_moment(
    is_next_wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "UNSUBSCRIBE_DELAY_S", DEADLINE_S * 10 if is_next_wanted else 0.0)

    async def talk(peer: Peer) -> None:
        await greet(peer)
        await peer.expect(b"SUBSCRIBE", b"a")
        peer.say(confirmation(b"a"))
        await peer.expect(b"UNSUBSCRIBE", b"a")
        if is_next_wanted:
            await peer.expect(b"SUBSCRIBE", b"b")
        peer.say(confirmation(b"b"))

    async with connected(talk) as (connection, heard, _):
        connection.subscribe(b"a")
        await until(lambda: heard.notes == [(b"subscribed", b"a")], DEADLINE_S)
        connection.unsubscribe(b"a")
        for _ in range(10):
            await asyncio.sleep(0)
        if is_next_wanted:
            assert len(heard.notes) == 1
            connection.subscribe(b"b")
        await until(lambda: heard.notes[1:] == [(b"subscribed", b"b")], DEADLINE_S)


async def test_after_a_loss_everything_wanted_is_subscribed_and_confirmed_again() -> None:
    async def talk(peer: Peer) -> None:
        await greet(peer)
        await peer.expect(b"SUBSCRIBE", b"a")
        peer.say(confirmation(b"a"))

    async with connected(talk) as (connection, heard, peers):
        connection.subscribe(b"a")
        await until(lambda: heard.notes == [(b"subscribed", b"a")], DEADLINE_S)
        peers[0].writer.transport.abort()
        await until(lambda: len(heard.notes) == 3, DEADLINE_S)
        assert heard.notes[1:] == [(b"disconnected",), (b"subscribed", b"a")]
        assert connection.reconnects == 1


@pytest.mark.parametrize("answer", [b"-NOAUTH Authentication required.\r\n", b"!nonsense\r\n", b""])
async def test_a_refusal_is_tried_again(answer: bytes) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.expect(b"PING")
        peer.say(answer)
        if not answer:
            peer.writer.close()

    async with connected(refuse, refuse, greet) as (connection, heard, peers):
        await until(lambda: connection.is_connected, DEADLINE_S)
        assert len(peers) == 3
        assert heard.notes == []


async def test_it_logs_in_before_anything_else() -> None:
    async def talk(peer: Peer) -> None:
        await peer.expect(b"AUTH", b"ann", b"p@ss")
        peer.say(b"+OK\r\n")
        await greet(peer)

    async with connected(talk, login="ann:p%40ss@") as (connection, _, _peers):
        await until(lambda: connection.is_connected, DEADLINE_S)


async def test_a_dropped_connection_is_made_anew() -> None:
    async with connected(greet) as (connection, heard, peers):
        await until(lambda: connection.is_connected, DEADLINE_S)
        connection.drop()
        await until(lambda: len(peers) == 2 and connection.is_connected, DEADLINE_S)
        assert heard.notes == [(b"disconnected",)]
