"""Peers that drip, stop, or say nothing: each is let go in its time, and everybody else is served.

A node in this process, with the product's time limits made short; many peers of every kind at once.
That a head has 10 s in a real process is tests/conformance/test_rest.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable

import pytest

import api.intake.arriving_body
from api.transport.http import HttpProtocol
from shared.config.settings import Settings
from tests.support.footprint import descriptors
from tests.support.local_node import LocalNode, ManualWorker, serve_here
from tests.support.raw_client import RawClient
from tests.support.raw_wire import frame, handshake, raw_connection
from tests.support.redis_server import RedisServer
from tests.support.wait import until

HEAD_S, BODY_S, HEARTBEAT_S = 1.0, 1.5, 0.5
LATE_S = 2.0  # what a busy machine may add
OF_EACH = 5
POST = b"POST /v1/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
DRIP_S = 0.1

# What each says at once, then piece by piece, and by when it must be gone, s.
Peer = tuple[Callable[[str], bytes], bytes, float]
PEERS: dict[str, Peer] = {
    "says nothing": (lambda url: b"", b"", HEAD_S),
    "TLS": (lambda url: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"", HEAD_S),
    "line stops": (lambda url: b"GET /liv", b"", HEAD_S),
    "line drips": (lambda url: b"GET /", b"a", HEAD_S),
    "head stops": (lambda url: POST, b"", HEAD_S),
    "head drips": (lambda url: POST + b"X: ", b"y", HEAD_S),
    "headers drip": (lambda url: POST, b"X: y\r\n", HEAD_S),
    "blank lines drip": (lambda url: b"\r\n", b"\r\n", HEAD_S),
    "handshake stops": (lambda url: handshake(url)[:-2], b"", HEAD_S),
    "handshake drips": (lambda url: handshake(url)[:-2], b"X: y\r\n", HEAD_S),
    "next head stops": (
        lambda url: b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET",
        b"",
        HEAD_S,
    ),
    "body stops": (lambda url: POST + b"Content-Length: 99\r\n\r\n{", b"", BODY_S + HEAD_S),
    "body drips": (lambda url: POST + b"Content-Length: 999\r\n\r\n{", b" ", BODY_S + HEAD_S),
    "chunks drip": (
        lambda url: POST + b"Transfer-Encoding: chunked\r\n\r\n",
        b"1\r\n \r\n",
        BODY_S + HEAD_S,
    ),
    "chunk size drips": (
        lambda url: POST + b"Transfer-Encoding: chunked\r\n\r\n",
        b"0",
        BODY_S + HEAD_S,
    ),
    "trailer drips": (
        lambda url: POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX: ",
        b"y",
        BODY_S + HEAD_S,
    ),
    "a body that nobody asked for": (
        lambda url: b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n",
        b" ",
        HEAD_S,
    ),
    "a body for what is not there": (
        lambda url: POST.replace(b"generations", b"nothing") + b"Content-Length: 999\r\n\r\n",
        b" ",
        HEAD_S,
    ),
    "socket says nothing": (lambda url: handshake(url), b"", 2 * HEARTBEAT_S + 1),
    "frame stops": (lambda url: handshake(url) + b"\x81", b"", 2 * HEARTBEAT_S + 1),
    "frame drips": (lambda url: handshake(url) + b"\x81\xfe\x0f\xff", b"x", 2 * HEARTBEAT_S + 1),
    "fragments drip": (
        lambda url: handshake(url) + frame(b"{", fin=False),
        frame(b" ", opcode=0, fin=False),
        2 * HEARTBEAT_S + 1,
    ),
}


@pytest.fixture
async def local_node(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[LocalNode]:
    monkeypatch.setattr(HttpProtocol, "head_s", HEAD_S)
    monkeypatch.setattr(api.intake.arriving_body, "BODY_S", BODY_S)
    settings = Settings(redis_url=redis_server.url, heartbeat_s=HEARTBEAT_S)
    async with serve_here(settings) as local_node:
        yield local_node


async def held(url: str, peer: Peer) -> float:
    """Be that peer; return after how many seconds the node had enough."""
    start, piece, _ = peer
    async with raw_connection(url) as (reader, writer):
        began = time.monotonic()
        writer.write(start(url))
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DRIP_S):
                        await reader.read(65_536)
                writer.write(piece)
                await writer.drain()
        return time.monotonic() - began


async def test_slow_and_silent_clients_are_closed_and_others_are_served(
    local_node: LocalNode,
) -> None:
    async with RawClient(local_node.url) as raw_client:
        assert (await raw_client.get("/livez")).status == 200
        tasks, files = len(asyncio.all_tasks()), descriptors(os.getpid())
        manual_worker = await ManualWorker.take(local_node.node.store)

        async with asyncio.TaskGroup() as group:
            crowd = {
                name: [group.create_task(held(local_node.url, peer)) for _ in range(OF_EACH)]
                for name, peer in PEERS.items()
            }
            async with raw_client.stream(manual_worker.generation_id) as response:
                assert response.status == 200
                waiting = {task for tasks in crowd.values() for task in tasks}
                while waiting:
                    async with asyncio.timeout(LATE_S):
                        assert (await raw_client.get("/livez")).status == 200
                    _, waiting = await asyncio.wait(waiting, timeout=DRIP_S)

        for name, (_, _, limit_s) in PEERS.items():
            longest = max(task.result() for task in crowd[name])
            assert longest < limit_s + LATE_S, f"{name}: {longest:.1f} s"
        await until(lambda: len(asyncio.all_tasks()) <= tasks, 5, "no task is left")
        await until(lambda: descriptors(os.getpid()) <= files + 1, 5, "no descriptor is left")
