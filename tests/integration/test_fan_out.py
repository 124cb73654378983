"""The fan-out over real sockets, uvicorn and a real Redis: what a fake cannot show."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from shared.config.settings import Settings
from shared.log.events import End, Token
from tests.support.deliveries import Delivery
from tests.support.history import check_log
from tests.support.local_node import LocalNode, ManualWorker, serve_here
from tests.support.redis_server import RedisServer
from tests.support.wait import until

END = End(status="completed", finish_reason="stop")
DEADLINE_S = 10.0
SOCKETS = 12  # in one row, which leave and are written to together


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
async def settings(redis_server: RedisServer) -> Settings:
    client = Redis.from_url(redis_server.url, protocol=2)
    await client.flushall()
    await client.aclose()
    return Settings(redis_url=redis_server.url, subscriber_bytes_max=100_000)


@pytest.fixture
async def node(settings: Settings) -> AsyncIterator[LocalNode]:
    async with serve_here(settings) as local_node:
        yield local_node


@pytest.fixture
async def web() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def lines_of(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.splitlines() if line]


async def whole(
    web: aiohttp.ClientSession, node: LocalNode, manual_worker: ManualWorker, **query: str
) -> bytes:
    """Read to the proper end of the body; a broken one raises."""
    url = f"{node.url}/v1/generations/{manual_worker.generation_id}/events"
    headers = {"Accept": "application/x-ndjson"}
    async with web.get(url, params=query, headers=headers) as response:
        assert response.status == 200
        return await response.read()


async def test_every_reader_of_two_nodes_gets_the_same_bytes(
    node: LocalNode, settings: Settings, web: aiohttp.ClientSession
) -> None:
    manual_worker = await ManualWorker.take(node.node.store)
    async with serve_here(settings, "n2") as other, asyncio.TaskGroup() as group:
        readings = []
        for n in range(40):
            readings.append(group.create_task(whole(web, (node, other)[n % 2], manual_worker)))
            await manual_worker.append(*(Token(f"{n}.{k} ") for k in range(n % 4 + 1)))
        await manual_worker.append(END)
    bodies = {reading.result() for reading in readings}

    assert len(bodies) == 1
    events = lines_of(bodies.pop())
    assert check_log([Delivery(e.pop("id"), e.pop("type"), e) for e in events]) == []


async def test_a_killed_live_connection_loses_nothing(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    manual_worker = await ManualWorker.take(node.node.store)
    reading = asyncio.create_task(whole(web, node, manual_worker))
    await until(lambda: node.hub.connections, DEADLINE_S)
    for n in range(20):
        await manual_worker.append(Token(f"{n} "))
        if n % 5 == 2:
            await node.node.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await manual_worker.append(END)
    events = lines_of(await asyncio.wait_for(reading, DEADLINE_S))

    assert "".join(e.get("text", "") for e in events) == "".join(f"{n} " for n in range(20))
    assert node.hub.statistics().reconnects >= 1
    await until(lambda: node.hub.is_live, DEADLINE_S)


async def test_a_reader_that_stops_reading_is_cut_and_resumes_exactly(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    manual_worker = await ManualWorker.take(node.node.store)
    other = asyncio.create_task(whole(web, node, manual_worker))
    reader = socket.create_connection(("127.0.0.1", node.port))
    reader.setblocking(False)
    path = f"/v1/generations/{manual_worker.generation_id}/events"
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(reader, request.encode())
    await until(lambda: len(node.hub.connections) == 2, DEADLINE_S)
    sent = await write_until_blocked(node, manual_worker)
    await until(lambda: node.hub.statistics().cuts == 1, DEADLINE_S)
    await manual_worker.append(END)
    got = await drain(reader)
    await other

    assert not got.endswith(b"0\r\n\r\n")  # the body was not finished
    head, _, body = got.partition(b"\r\n\r\n")
    lines = b"".join(chunks(body)).split(b"\n")[:-1]
    seen = json.loads(lines[-1])["id"]
    rest = lines_of(await whole(web, node, manual_worker, last_event_id=seen))
    ids = [json.loads(line)["id"] for line in lines] + [e["id"] for e in rest]
    assert ids == [f"1-{n}" for n in range(1, sent + 3)]


async def write_until_blocked(node: LocalNode, manual_worker: ManualWorker) -> int:
    """Write more than a socket and its reader's kernel can hold; return how many tokens."""
    sent = 0
    while not node.hub.blocked_sinks and sent < 2_000:
        await manual_worker.append(*(Token("x" * 8_000) for _ in range(8)))
        sent += 8
    await manual_worker.append(*(Token("x" * 8_000) for _ in range(40)))
    return sent + 40


async def drain(reader: socket.socket) -> bytes:
    got = b""
    try:
        while data := await asyncio.get_running_loop().sock_recv(reader, 65_536):
            got += data
    except ConnectionResetError:
        pass
    finally:
        reader.close()
    return got


def chunks(body: bytes) -> list[bytes]:
    """Take a chunked body apart, as far as it came."""
    found = []
    while True:
        size, has_size, rest = body.partition(b"\r\n")
        if not has_size or len(rest) < int(size, 16):
            return found + ([rest] if has_size else [])
        found.append(rest[: int(size, 16)])
        body = rest[int(size, 16) + 2 :]


async def test_a_reader_that_hangs_up_leaves_the_hub_at_once(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    manual_worker = await ManualWorker.take(node.node.store)
    url = f"{node.url}/v1/generations/{manual_worker.generation_id}/events"
    async with web.get(url) as response:
        assert response.status == 200
        await until(lambda: len(node.hub.connections) == 1, DEADLINE_S)
    await until(lambda: not node.hub.connections, DEADLINE_S)


async def test_a_drain_ends_a_response_without_its_last_chunk(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    manual_worker = await ManualWorker.take(node.node.store)
    await manual_worker.append(Token("a"))
    reading = asyncio.create_task(whole(web, node, manual_worker))
    await until(lambda: node.hub.connections, DEADLINE_S)
    await node.hub.drain(0.05)
    with pytest.raises(aiohttp.ClientPayloadError):
        await reading


async def test_repeated_long_polls_read_a_log_to_its_end(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    manual_worker = await ManualWorker.take(node.node.store)
    url = f"{node.url}/v1/generations/{manual_worker.generation_id}/events"
    cursor, events, done = "0-0", [], False
    for text in ("a", "b", None):
        await manual_worker.append(Token(text) if text else END)
        async with web.get(url, params={"wait": "5", "last_event_id": cursor}) as response:
            reply = await response.json()
        events += reply["events"]
        cursor, done = reply["last_event_id"], reply["done"]
    assert [e["type"] for e in events] == ["start", "token", "token", "end"]
    assert done
    async with web.get(url, params={"wait": "5", "last_event_id": cursor}) as response:
        assert await response.json() == {"events": [], "last_event_id": cursor, "done": True}


async def test_a_new_event_answers_a_waiting_long_poll(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    manual_worker = await ManualWorker.take(node.node.store)
    url = f"{node.url}/v1/generations/{manual_worker.generation_id}/events"

    async def poll(wait: str) -> Any:
        async with web.get(url, params={"wait": wait, "last_event_id": "1-1"}) as response:
            return await response.json()

    assert await poll("0") == {"events": [], "last_event_id": "1-1", "done": False}
    polling = asyncio.create_task(poll("30"))
    await until(lambda: node.hub.connections, DEADLINE_S)
    await manual_worker.append(Token("a"))
    reply = await asyncio.wait_for(polling, DEADLINE_S)
    assert [e["id"] for e in reply["events"]] == ["1-2"]


async def test_a_socket_streams_and_a_slow_one_is_broken_off(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    manual_worker = await ManualWorker.take(node.node.store)
    patience = aiohttp.ClientWSTimeout(ws_close=0.1)
    async with web.ws_connect(
        f"{node.url}/v1/ws", protocols=["tailrace.v1"], timeout=patience
    ) as ws:
        assert ws.protocol == "tailrace.v1"
        await ws.send_json({"type": "subscribe", "id": manual_worker.generation_id})
        assert [(await ws.receive_json())["type"] for _ in range(2)] == ["start", "caught_up"]
        await manual_worker.append(Token("a"))
        assert (await ws.receive_json())["text"] == "a"

        ws._reader._protocol.pause_reading()  # type: ignore[attr-defined]
        await write_until_blocked(node, manual_worker)
        await until(lambda: node.hub.statistics().cuts == 1, DEADLINE_S)
        await until(lambda: not node.hub.connections, DEADLINE_S)


async def test_the_live_connection_authenticates_with_redis(
    redis_server: RedisServer, settings: Settings
) -> None:
    admin = Redis.from_url(redis_server.url, protocol=2)
    await admin.execute_command("ACL", "SETUSER", "ann", "on", ">p@ss", "~*", "&*", "+@all")
    scheme, _, rest = redis_server.url.partition("://")
    try:
        async with serve_here(Settings(redis_url=f"{scheme}://ann:p%40ss@{rest}")) as local_node:
            manual_worker = await ManualWorker.take(local_node.node.store)
            async with local_node.hub.reading(await meta_of(local_node, manual_worker)) as relay:
                await manual_worker.append(Token("a"), END)
                await until(lambda: relay.feed.is_ended, DEADLINE_S)
    finally:
        await admin.execute_command("ACL", "DELUSER", "ann")
        await admin.aclose()


async def meta_of(local_node: LocalNode, manual_worker: ManualWorker) -> Any:
    meta = await local_node.node.store.meta(manual_worker.generation_id)
    assert meta is not None
    return meta


async def test_a_long_log_is_read_in_pages(node: LocalNode, web: aiohttp.ClientSession) -> None:
    manual_worker = await ManualWorker.take(node.node.store)
    for n in range(0, 3_000, 100):
        await manual_worker.append(*(Token(f"{n + k} ") for k in range(100)))
    await manual_worker.append(END)
    events = lines_of(await whole(web, node, manual_worker))
    assert "".join(e.get("text", "") for e in events) == "".join(f"{n} " for n in range(3_000))


# WebSockets that follow in a row


async def open_socket(
    web: aiohttp.ClientSession, node: LocalNode
) -> aiohttp.ClientWebSocketResponse:
    return await web.ws_connect(f"{node.url}/v1/ws", protocols=["tailrace.v1"])


async def subscribe(socket: aiohttp.ClientWebSocketResponse, manual_worker: ManualWorker) -> None:
    await socket.send_json({"type": "subscribe", "id": manual_worker.generation_id})


async def frames_to_end(socket: aiohttp.ClientWebSocketResponse) -> list[dict[str, Any]]:
    """Read up to `end`."""
    frames = []
    async with asyncio.timeout(DEADLINE_S):
        while not frames or frames[-1]["type"] != "end":
            frames.append(await socket.receive_json())
    return frames


def followers(node: LocalNode, manual_worker: ManualWorker) -> int:
    audiences = node.hub.relays[manual_worker.generation_id]._broadcast_groups.values()
    return sum(audience.count for audience in audiences)


def text_of(frames: list[dict[str, Any]]) -> str:
    return "".join(frame["text"] for frame in frames if frame["type"] == "token")


async def test_sockets_in_a_row_get_the_same_frames_as_other_sockets(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    manual_worker = await ManualWorker.take(node.node.store)
    await manual_worker.append(Token("before "))
    sockets = [await open_socket(web, node) for _ in range(SOCKETS)]
    for one in sockets:
        await subscribe(one, manual_worker)
    await until(lambda: followers(node, manual_worker) == SOCKETS, DEADLINE_S, "all follow")
    # Payloads on both sides of each of the three forms of a frame's length.
    sizes = [1, *range(20, 60), 65_350, 65_400, 65_450, 65_500, 70_000]
    async with asyncio.TaskGroup() as group:
        body = group.create_task(whole(web, node, manual_worker))
        reads = [group.create_task(frames_to_end(one)) for one in sockets]
        for size in sizes:
            await manual_worker.append(Token("é" * (size // 2) + "x" * (size % 2)))
        await manual_worker.append(END)
    expected = lines_of(body.result())
    for read in reads:
        frames = read.result()
        events = [
            {name: value for name, value in frame.items() if name != "event_id"}
            | {"id": frame["event_id"]}
            for frame in frames
            if "event_id" in frame
        ]
        assert [frame["type"] for frame in frames].count("caught_up") == 1
        assert events == expected
    assert followers(node, manual_worker) == 0
    for one in sockets:
        await one.send_json({"type": "ping"})
        assert (await one.receive_json())["type"] == "pong", "the socket lives on"
        await one.close()


async def test_a_socket_gets_no_frame_after_it_has_unsubscribed(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    left, kept = await ManualWorker.take(node.node.store), await ManualWorker.take(node.node.store)
    one = await open_socket(web, node)
    for manual_worker in (left, kept):
        await subscribe(one, manual_worker)
        await until(
            lambda manual_worker=manual_worker: followers(node, manual_worker) == 1,
            DEADLINE_S,
            "it follows",
        )
    await one.send_json({"type": "unsubscribe", "id": left.generation_id})
    await until(lambda: followers(node, left) == 0, DEADLINE_S, "it follows no more")

    await left.append(Token("not wanted"), END)
    await kept.append(Token("wanted"), END)

    frames = await frames_to_end(one)
    assert text_of(frames) == "wanted"
    await one.close()


async def test_a_closed_socket_leaves_its_row(node: LocalNode, web: aiohttp.ClientSession) -> None:
    manual_worker = await ManualWorker.take(node.node.store)
    one = await open_socket(web, node)
    await subscribe(one, manual_worker)
    await until(lambda: followers(node, manual_worker) == 1, DEADLINE_S, "it follows")
    async with asyncio.TaskGroup() as group:
        group.create_task(node.hub.drain(0.1))
        for n in range(20):
            await manual_worker.append(Token(f"{n} "))
    frames = []
    while (message := await one.receive()).type is aiohttp.WSMsgType.TEXT:
        frames.append(json.loads(message.data))

    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1012)
    assert text_of(frames) == "".join(f"{n} " for n in range(len(text_of(frames).split())))
    await manual_worker.append(END)


async def test_a_socket_that_stops_reading_leaves_its_row_and_misses_no_event(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    """The text that was sent before the pause and the text that is sent after it have no gap."""
    manual_worker = await ManualWorker.take(node.node.store)
    one, other = await open_socket(web, node), await open_socket(web, node)
    for socket_ in (one, other):
        await subscribe(socket_, manual_worker)
    await until(lambda: followers(node, manual_worker) == 2, DEADLINE_S, "they follow")
    transport = one._conn.transport  # type: ignore[union-attr]
    transport.pause_reading()  # type: ignore[union-attr]
    written = []
    while followers(node, manual_worker) == 2:
        written.append(f"{len(written)}:" + "x" * 20_000)
        await manual_worker.append(Token(written[-1]))
        assert len(written) < 2_000, "it never was full"
    transport.resume_reading()  # type: ignore[union-attr]
    await manual_worker.append(END)

    for socket_ in (one, other):
        assert text_of(await frames_to_end(socket_)) == "".join(written)
        await socket_.close()


async def test_a_socket_in_a_row_that_is_woken_gets_no_event_twice(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    """The hub's tick wakes a reader that had to wait for its position before it joined a row."""
    manual_worker = await ManualWorker.take(node.node.store)
    one = await open_socket(web, node)
    await subscribe(one, manual_worker)
    await until(lambda: followers(node, manual_worker) == 1, DEADLINE_S, "it follows")
    for n in range(5):
        await manual_worker.append(Token(f"{n} "))
        for reader in node.hub.relays[manual_worker.generation_id].readers:
            node.hub.await_place(reader)
        await until(lambda: not node.hub.unplaced_readers, DEADLINE_S, "the tick")
    await manual_worker.append(END)

    assert text_of(await frames_to_end(one)) == "0 1 2 3 4 "
    await one.close()
