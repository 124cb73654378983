"""Compressed frames of one chain reach many sockets, whose own windows inflate them.

The client is the one of websockets, whose decoder keeps the window that RFC 7692 describes. A frame
that refers to anything else is an error there, or another text.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
)

from api.compression.deflated_messages import KEY_EVERY
from api.readers.first_frame import BYTES_MAX
from api.transport.large_messages import CompressedMessage
from shared.config.settings import Settings
from shared.log.events import End, Token
from tailrace_client import AsyncTailrace
from tests.support.local_node import LocalNode, ManualWorker, serve_here
from tests.support.redis_server import RedisServer
from tests.support.wait import until

END = End(status="completed", finish_reason="stop")
KEY = "a-key-of-ann-that-is-long-enough"
CHAINED, LONE, PLAIN = "websocket-chained", "websocket-deflated", "websocket"
# Of a test that takes a second of CPU time for each; one finds a chain that refers to a lost frame.
SEEDS = 3 if os.environ.get("CI") else 1
LONG_EVENT = "流 and words, " * 60  # long enough to be compressed alone


@pytest.fixture
async def node(redis_server: RedisServer) -> AsyncIterator[LocalNode]:
    async with serve_here(Settings(redis_url=redis_server.url, ws_deflate="on")) as local:
        yield local


@pytest.fixture
def compressed(monkeypatch: pytest.MonkeyPatch) -> Counter[bool]:
    """Count the messages that clients receive, by whether they were compressed."""
    counted: Counter[bool] = Counter()
    decode = PerMessageDeflate.decode

    def count(self: PerMessageDeflate, frame: Any, *, max_size: int | None = None) -> Any:
        counted[frame.rsv1] += 1
        return decode(self, frame, max_size=max_size)

    monkeypatch.setattr(PerMessageDeflate, "decode", count)
    return counted


class Reader:
    """One socket, and the text of each generation as it came."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.texts: dict[str, str] = {}
        self.cursors: dict[str, str] = {}
        self.ended: set[str] = set()
        self.caught_up: set[str] = set()
        self.pongs = 0
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.socket:
            event = json.loads(message)
            if event["type"] == "pong":
                self.pongs += 1
                continue
            name = event["id"]
            if event["type"] == "token":
                self.texts[name] += event["text"]
            if "event_id" in event:
                self.cursors[name] = event["event_id"]
            if event["type"] == "end":
                self.ended.add(name)
            if event["type"] == "caught_up":
                self.caught_up.add(name)

    async def subscribe(self, name: str) -> None:
        """Read from the start, or on from the last event."""
        self.texts.setdefault(name, "")
        cursor = self.cursors.get(name)
        place = {"last_event_id": cursor} if cursor else {}
        await self.socket.send(json.dumps({"type": "subscribe", "id": name, **place}))

    async def unsubscribe(self, name: str) -> None:
        """Return once no event of `name` can come any more."""
        await self.socket.send(json.dumps({"type": "unsubscribe", "id": name}))
        pongs = self.pongs
        await self.socket.send('{"type":"ping"}')
        await until(lambda: self.pongs > pongs, 10, "a pong")

    async def follow(self, name: str) -> None:
        await self.subscribe(name)
        await until(lambda: name in self.caught_up, 10, "caught up")


async def opened(node: LocalNode, offer: ClientPerMessageDeflateFactory | None = None) -> Reader:
    url = node.url.replace("http", "ws") + "/v1/ws"
    extensions = [] if offer is None else [offer]
    return Reader(await connect(url, extensions=extensions, proxy=None))


def followers(node: LocalNode, name: str) -> dict[str, int]:
    groups = node.hub.relays[name]._broadcast_groups
    return {dialect: group.count for dialect, group in groups.items() if group.count}


async def test_all_sockets_with_a_context_follow_one_chain(
    node: LocalNode, compressed: Counter[bool]
) -> None:
    worker = await ManualWorker.take(node.node.store)
    name = worker.generation_id
    readers = [await opened(node, ClientPerMessageDeflateFactory()) for _ in range(5)]
    lone = await opened(node, ClientPerMessageDeflateFactory(server_no_context_takeover=True))
    narrow = await opened(node, ClientPerMessageDeflateFactory(server_max_window_bits=9))
    plain = Reader(
        await connect(node.url.replace("http", "ws") + "/v1/ws", compression=None, proxy=None)
    )
    everyone = [*readers, lone, narrow, plain]
    for reader in everyone:
        await reader.follow(name)
    text = ""
    for n in range(2 * KEY_EVERY):
        piece = LONG_EVENT if n == KEY_EVERY + 5 else f" 词{n}"
        await worker.append(Token(piece))
        text += piece
    await until(lambda: all(each.texts[name] == text for each in everyone), 10, "the texts")

    assert followers(node, name) == {CHAINED: 5, LONE: 2, PLAIN: 1}
    # The chain begins with the first token; of the others only the long frame is compressed.
    assert compressed[True] == 5 * 2 * KEY_EVERY + 2

    await worker.append(END)
    await until(lambda: all(each.ended for each in everyone), 10, "the ends")


async def test_a_second_generation_of_a_socket_is_plain_until_the_first_has_ended(
    node: LocalNode,
) -> None:
    first, second = [await ManualWorker.take(node.node.store) for _ in range(2)]
    reader = await opened(node, ClientPerMessageDeflateFactory())
    texts = {first.generation_id: "", second.generation_id: ""}
    for worker in (first, second):
        await reader.follow(worker.generation_id)

    async def grow(*workers: ManualWorker) -> None:
        for n in range(KEY_EVERY):
            for worker in workers:
                await worker.append(Token(f" {n}"))
                texts[worker.generation_id] += f" {n}"
        await until(lambda: reader.texts == texts, 10, "the texts")

    await grow(first, second)
    assert followers(node, first.generation_id) == {CHAINED: 1}
    assert followers(node, second.generation_id) == {PLAIN: 1}

    await first.append(END)
    await until(lambda: bool(reader.ended), 10, "the end")
    await second.append(END)
    await until(lambda: len(reader.ended) == 2, 10, "the end")
    assert reader.texts == texts


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_readers_that_come_and_go_get_every_text_exactly(
    node: LocalNode, compressed: Counter[bool], seed: int
) -> None:
    chance = random.Random(seed)
    workers = [await ManualWorker.take(node.node.store) for _ in range(3)]
    written = {worker.generation_id: "" for worker in workers}
    offers = [
        ClientPerMessageDeflateFactory(),
        ClientPerMessageDeflateFactory(server_max_window_bits=11),
        ClientPerMessageDeflateFactory(server_no_context_takeover=True),
    ]
    readers = [await opened(node, offers[n % 3] if n % 4 else offers[0]) for n in range(8)]
    for _ in range(220):
        worker = chance.choice(workers)
        pieces = [f" w{chance.randrange(99)}" for _ in range(chance.choice([1, 1, 1, 2, 6]))]
        pieces += [LONG_EVENT] * (chance.random() < 0.05)
        await worker.append(*map(Token, pieces))
        written[worker.generation_id] += "".join(pieces)
        reader, name = chance.choice(readers), chance.choice(workers).generation_id
        if chance.random() < 0.4:
            await reader.unsubscribe(name)
            if chance.random() < 0.7:
                await reader.subscribe(name)
    for worker in workers:
        await worker.append(END)
    for reader in readers:
        for name in written:
            if name not in reader.ended:
                await reader.unsubscribe(name)
                await reader.subscribe(name)
    await until(lambda: all(len(each.ended) == 3 for each in readers), 20, "the ends")

    assert [reader.texts for reader in readers] == [written] * len(readers)
    assert compressed[True] > 100


async def test_our_python_client_offers_compression_and_follows_a_chain(
    node: LocalNode, compressed: Counter[bool]
) -> None:
    worker = await ManualWorker.take(node.node.store)
    name = worker.generation_id
    async with AsyncTailrace(node.url, transport="websocket") as client:
        pieces: list[str] = []

        async def read() -> None:
            pieces.extend([piece async for piece in client.attach(name).text()])

        reading = asyncio.create_task(read())
        await until(lambda: name in node.hub.relays and bool(followers(node, name)), 10, "a reader")
        for n in range(KEY_EVERY):
            await worker.append(Token(f" 词{n}"))
        await worker.append(END)
        await reading

    assert "".join(pieces) == "".join(f" 词{n}" for n in range(KEY_EVERY))
    assert compressed[True] >= KEY_EVERY


async def test_a_long_catch_up_is_compressed_in_steps_and_then_follows_the_chain(
    node: LocalNode, compressed: Counter[bool]
) -> None:
    worker = await ManualWorker.take(node.node.store)
    name, pieces = worker.generation_id, [f" 词{n}" for n in range(5_000)]
    for n in range(0, len(pieces), 100):
        await worker.append(*map(Token, pieces[n : n + 100]))
    reader = await opened(node, ClientPerMessageDeflateFactory())
    await reader.follow(name)
    assert reader.texts[name] == "".join(pieces)
    assert compressed[True] > 0
    while not followers(node, name):
        pieces.append(" more")
        await worker.append(Token(" more"))
    await worker.append(END)
    await until(lambda: bool(reader.ended), 10, "the end")

    assert reader.texts[name] == "".join(pieces)
    assert len(pieces) <= 5_000 + 2 * KEY_EVERY


async def test_a_stranger_inflates_no_more_than_an_auth_frame(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket without credentials could otherwise cost a node 31 MiB and much of its time."""
    bounds: list[int] = []
    initialize = CompressedMessage.__init__

    def note(self: CompressedMessage, memory: Any, *, is_text: bool, bytes_max: int) -> None:
        bounds.append(bytes_max)
        initialize(self, memory, is_text=is_text, bytes_max=bytes_max)

    monkeypatch.setattr(CompressedMessage, "__init__", note)
    keyed = Settings(redis_url=redis_server.url, ws_deflate="on", api_keys=f"{KEY}:ann")
    offer = ClientPerMessageDeflateFactory()
    async with serve_here(keyed) as local:
        url = local.url.replace("http", "ws") + "/v1/ws"
        async with connect(url, extensions=[offer], proxy=None) as stranger:
            await stranger.send(json.dumps({"type": "auth", "token": "x" * 1_000_000}))
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    await stranger.recv()
        async with connect(url, extensions=[offer], proxy=None) as known:
            await known.send(json.dumps({"type": "auth", "token": KEY}))
            await known.send('{"type":"ping"}')
            await known.recv()

    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4501
    assert bounds == [BYTES_MAX, BYTES_MAX, keyed.body_bytes_max]
