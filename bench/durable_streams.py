"""Compares the streams of a node with the reference server of Durable Streams, by the same client.

The reference is one Node.js process that keeps everything in its memory and stores nothing. A node
answers an append when Redis has it. Only wall time is compared, because the two do
not run the same processes. npm installs the reference on the first run.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.support.setup import Setup
from bench.support.table import MS, Comparison, Row, percentile
from tests.support.npm import run as npm
from tests.support.npm import tool
from tests.support.redis_server import free_port

REFERENCE = "@durable-streams/server@0.3.7"
CACHE = Path("~/.cache/tailrace-durable-streams").expanduser()
PROGRAM = """
import { DurableStreamTestServer } from "@durable-streams/server"
await new DurableStreamTestServer({ port: Number(process.argv[2]) }).start()
console.log("ready")
"""
OURS, THEIRS = "Tailrace", "reference (memory)"
TEXT = {"content-type": "text/plain"}
BODY = b"x" * 100
ZERO = "0000000000000000_0000000000000000"  # of both servers


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a run."""

    trips: int
    appends: int
    at_once: int
    readers: int
    events: int


FULL = Size(300, 3_000, 32, 200, 100)
QUICK = Size(3, 8, 2, 2, 3)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = QUICK if setup.is_quick else FULL
    trip = Comparison("append of 100 bytes to the answer of a long poll: p50", "ms", THEIRS)
    rate = Comparison(f"appends to one stream, {size.at_once} at once", "1/s", THEIRS)
    fan = Comparison(
        f"{size.events} appends until {size.readers} SSE readers have all of them", "s", THEIRS
    )
    async with reference() as theirs:
        for _ in setup.rounds():
            async with setup.node(is_fresh=True) as node:
                for who, base in ((THEIRS, theirs), (OURS, f"{node.url}/ds")):
                    connector = aiohttp.TCPConnector(limit=0)
                    async with aiohttp.ClientSession(connector=connector) as http:
                        await setup.quiet()
                        trip.add(who, await _trip_ms(http, base, size))
                        rate.add(who, await _rate(http, base, size))
                        fan.add(who, await _fan_out_s(http, base, size))
    return [*trip.rows(), *rate.rows(), *fan.rows()]


@contextlib.asynccontextmanager
async def reference() -> AsyncIterator[str]:
    """Run the reference server; yield its base URL."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if not (CACHE / "node_modules").exists():
        await asyncio.to_thread(npm, CACHE, "install", "--no-audit", "--no-fund", REFERENCE)
    (CACHE / "reference.mjs").write_text(PROGRAM)
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        tool("node"), "reference.mjs", str(port), cwd=CACHE, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


async def _new_stream(http: aiohttp.ClientSession, base: str) -> str:
    url = f"{base}/v1/stream/bench-{secrets.token_hex(6)}"
    async with http.put(url, headers=TEXT) as response:
        assert response.status == 201, response.status
    return url


async def _append(http: aiohttp.ClientSession, url: str) -> None:
    async with http.post(url, data=BODY, headers=TEXT) as response:
        assert response.status == 204, response.status


async def _trip_ms(http: aiohttp.ClientSession, base: str, size: Size) -> float:
    url, offset, took_ms = await _new_stream(http, base), ZERO, []
    for _ in range(size.trips):
        polling = asyncio.create_task(_poll(http, url, offset))
        await asyncio.sleep(0.003)  # the poll waits at the server before the append comes
        begun_s = time.perf_counter()
        await _append(http, url)
        offset, ended_s = await polling
        took_ms.append(MS * (ended_s - begun_s))
    return percentile(took_ms, 0.5)


async def _poll(http: aiohttp.ClientSession, url: str, offset: str) -> tuple[str, float]:
    params = {"offset": offset, "live": "long-poll"}
    async with http.get(url, params=params) as response:
        assert await response.read() == BODY
        return response.headers["stream-next-offset"], time.perf_counter()


async def _rate(http: aiohttp.ClientSession, base: str, size: Size) -> float:
    url = await _new_stream(http, base)

    async def append_many() -> None:
        for _ in range(size.appends // size.at_once):
            await _append(http, url)

    begun_s = time.perf_counter()
    await asyncio.gather(*(append_many() for _ in range(size.at_once)))
    return size.appends // size.at_once * size.at_once / (time.perf_counter() - begun_s)


async def _fan_out_s(http: aiohttp.ClientSession, base: str, size: Size) -> float:
    url = await _new_stream(http, base)
    ready = asyncio.Semaphore(0)

    async def read() -> None:
        events = 0
        async with http.get(url, params={"offset": "now", "live": "sse"}) as response:
            ready.release()
            async for line in response.content:
                events += line == b"event: data\n"
                if events == size.events:
                    return

    reading = [asyncio.create_task(read()) for _ in range(size.readers)]
    for _ in reading:
        await ready.acquire()
    begun_s = time.perf_counter()
    for _ in range(size.events):
        await _append(http, url)
    await asyncio.gather(*reading)
    return time.perf_counter() - begun_s
