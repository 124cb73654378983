"""Rounds of everything hostile at once: a node's memory and its readers are as they were.

The first rounds fill what is filled once (caches, allocator, code that is imported late); what
grows after them grows for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import struct
from collections.abc import Awaitable, Callable

from tests.support.footprint import MB, rss_bytes
from tests.support.processes import Role
from tests.support.raw_client import RawClient
from tests.support.raw_wire import frame, handshake, raw_connection, stopped_connection
from tests.support.wait import until

WARM_UP, ROUNDS, AT_ONCE = 3, 4, 25
GROWTH_MAX = 6 * MB
CHUNKED = (
    b"POST /v1/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
RUNNING = {"prompt": "x", "params": {"demo": {"tokens": 10_000, "tokens_per_s": 5}}}


class Crowd:
    """Hostile clients, each with another attack. In one round each of them attacks once."""

    def __init__(self, api: RawClient, running: str) -> None:
        self.api = api
        self.running = running
        self.random = random.Random(1)
        self.number = itertools.count()

    async def round(self) -> None:
        ways: dict[Callable[[], Awaitable[None]], int] = {
            self.bad_body: 120,
            self.large_body: 2,
            self.bad_cursor: 60,
            self.unknown_path: 60,
            self.any_session: 40,
            self.accepted: 10,
            self.rubbish: 40,
            self.too_many_headers: 10,
            self.half_head: 30,
            self.endless_trailers: 3,
            self.pipeline: 3,
            self.reader_that_leaves: 20,
            self.bad_frames: 30,
            self.broken_frames: 30,
            self.frame_flood: 2,
            self.ping_flood: 2,
            self.subscriptions: 5,
            self.half_frame: 10,
        }
        calls = [way for way, count in ways.items() for _ in range(count)]
        self.random.shuffle(calls)
        for start in range(0, len(calls), AT_ONCE):
            async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                for way in calls[start : start + AT_ONCE]:
                    group.create_task(way())

    # Requests

    async def bad_body(self) -> None:
        raw = self.random.choice(
            [b"{", b"[" * 2_000, b"\xff", b'{"prompt":1}', b'{"prompt":"\\ud800"}', b"{}", b"1e999"]
        )
        answer = await self.api.post(raw=raw, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status < 500

    async def large_body(self) -> None:
        answer = await self.api.post({"prompt": "x", "messages": "y" * 1_000_000})
        assert answer.status == 422

    async def bad_cursor(self) -> None:
        accept = self.random.choice(["text/event-stream", "application/x-ndjson"])
        answer = await self.api.events(self.running, f"x{next(self.number)}", accept)
        assert answer.status == 400

    async def unknown_path(self) -> None:
        assert (await self.api.get(f"/{next(self.number)}/x")).status == 404

    async def any_session(self) -> None:
        assert (await self.api.get(f"/v1/sessions/s{next(self.number)}")).status == 200

    async def accepted(self) -> None:
        body = {"prompt": "x", "params": {"demo": {"tokens": 1}}}
        key = {"Idempotency-Key": f"k{next(self.number)}"}
        await self.api.start(body, headers=key)

    # Connections

    async def send(self, raw: bytes, *, wants_answer: bool = True) -> None:
        async with raw_connection(self.api.url) as (reader, writer):
            writer.write(raw)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
                if wants_answer:
                    await reader.read(1_000)

    async def rubbish(self) -> None:
        await self.send(self.random.randbytes(200) + b"\r\n\r\n")

    async def too_many_headers(self) -> None:
        await self.send(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10_000 + b"\r\n")

    async def half_head(self) -> None:
        await self.send(b"GET / HTTP/1.1\r\nX: " + b"y" * 2_000, wants_answer=False)

    async def endless_trailers(self) -> None:
        await self.send(CHUNKED + b"1\r\n{\r\n0\r\n" + b"x: y\r\n" * 100_000)

    async def pipeline(self) -> None:
        first = f"GET /v1/generations/{self.running}/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await self.send(first.encode() + b"GET / HTTP/1.1\r\n\r\n" * 5_000)

    async def reader_that_leaves(self) -> None:
        await self.send(f"GET /v1/generations/{self.running}/events HTTP/1.1\r\n\r\n".encode())

    # Sockets

    async def socket(self, *frames: bytes) -> None:
        async with raw_connection(self.api.url) as (reader, writer):
            writer.write(handshake(self.api.url))
            await reader.readuntil(b"\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                for one in frames:
                    writer.write(one)
                    await writer.drain()
                await reader.read(1_000)

    async def bad_frames(self) -> None:
        texts = [b"{", b"[]", b'{"type":"x"}', b'{"type":"subscribe","id":1}', b"[" * 2_000]
        await self.socket(*(frame(text) for text in texts))

    async def broken_frames(self) -> None:
        raw = self.random.choice(
            [frame(b"\xff"), frame(b"x", opcode=2), frame(b"x", reserved=1), frame(b"x", opcode=0)]
        )
        await self.socket(raw)

    async def half_frame(self) -> None:
        await self.socket(frame(b'"' + b"x" * 50_000, fin=False), frame(b"", opcode=9))

    async def subscriptions(self) -> None:
        one = {"type": "subscribe", "id": self.running}
        nobody = [{"type": "subscribe", "id": f"gen_{next(self.number):08}"} for _ in range(20)]
        await self.socket(*(frame(json.dumps(said).encode()) for said in [one, *nobody]))

    async def frame_flood(self) -> None:
        await self.flood(frame(b"{}") * 20_000)

    async def ping_flood(self) -> None:
        await self.flood(frame(b"x" * 125, opcode=9) * 5_000)

    async def flood(self, raw: bytes) -> None:
        """Much at once from somebody who reads nothing, and then says goodbye."""
        async with stopped_connection(self.api.url) as (reader, writer):
            writer.write(handshake(self.api.url))
            await reader.readuntil(b"\r\n\r\n")
            writer.write(raw + frame(struct.pack("!H", 1000), opcode=8))
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(1):
                    await writer.drain()


async def test_a_node_under_fire_keeps_its_size(node: Role, api: RawClient) -> None:
    running = await api.start(RUNNING)
    crowd = Crowd(api, running)
    for _ in range(WARM_UP):
        await crowd.round()
    await at_rest(api)
    memory = rss_bytes(node.pid)

    sizes = []
    for _ in range(ROUNDS):
        await crowd.round()
        sizes.append(rss_bytes(node.pid) - memory)
    await at_rest(api)

    growth = rss_bytes(node.pid) - memory
    assert growth < GROWTH_MAX, [round(size / MB, 1) for size in [*sizes, growth]]
    await api.call("POST", f"/v1/generations/{running}/cancel")


async def at_rest(api: RawClient) -> None:
    """Return once nobody reads any more, as the node itself says."""

    async def is_at_rest() -> bool:
        lines = (await api.get("/metrics")).body.decode().splitlines()
        readers = [line for line in lines if line.startswith("tailrace_subscribers")]
        return all(line.endswith(" 0.0") for line in readers)

    await until(is_at_rest, 20, "no reader is left")
