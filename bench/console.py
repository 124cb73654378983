"""Measures what an open console costs: its first picture, commands to Redis, CPU of its node.

Redis holds as many generations as the goals name: running ones, which stand-ins for workers report
each second, waiting ones, and kept ones that have ended. What the node and the workers cost without
a console is measured first, and subtracted.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from redis.asyncio import Redis

from bench.support.setup import Setup, address
from bench.support.table import MS, Comparison, Row, percentile
from shared.console.board import report_worker, watch_command
from shared.console.reports import LiveRun
from shared.log.ids import new_generation_id
from shared.queue.presence import Presence
from shared.redis import keys
from shared.redis.client import clock_ms
from shared.redis.pipeline import ClientPipeline
from tests.support.processes import Role

OWNERS = 20
RUNS_OF_WORKER = 100
REPORT_S = 1.0
AT_ONCE = 1_000  # commands of one pipeline
FIRST_MS_MAX, COMMANDS_MAX, CPU_PERCENT_MAX = 500.0, 20.0, 1.0


# Of the stand-ins, 350 a second: on a busy machine they change more than a console costs.
_sent: Counter[str] = Counter()
COMMANDS_OF_REPORT = 7  # a clock, five of `report_worker`, and one that says that a console is open


@dataclass(frozen=True, slots=True)
class Size:
    """How many generations there are, how many pages are opened, and for how long each waits, s."""

    running: int
    waiting: int
    kept: int
    opened: int
    window_s: float


FULL = Size(5_000, 1_000, 50_000, 20, 30.0)
QUICK = Size(100, 10, 50, 1, 0.2)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = QUICK if setup.is_quick else FULL
    first = Comparison(
        f"first picture with {size.running:,} running and {size.kept:,} kept generations", "ms",
        goals={"the first page of a node, slowest": FIRST_MS_MAX},
    )  # fmt: skip
    commands = Comparison(
        "commands to Redis of open consoles", "1/s", goals={"1 page": COMMANDS_MAX}
    )
    cpu = Comparison("CPU of a node with open consoles", "%", goals={"1 page": CPU_PERCENT_MAX})
    for _ in setup.rounds():
        await setup.quiet()
        async with _filled(setup, size) as redis, setup.node(is_fresh=True) as node:
            anew = [await _first_s(node) * MS for _ in range(size.opened)]
            first.add("the first page of a node, p50", percentile(anew, 0.5))
            first.add("the first page of a node, slowest", max(anew))
            async with _pages(node, 1):
                beside = [await _first_s(node) * MS for _ in range(size.opened)]
            first.add("a page beside another, slowest", max(beside))
            base = await _costs(setup, redis, node, size)
            for number in (1, 10):
                async with _pages(node, number):
                    await asyncio.sleep(setup.settle_s)
                    seen = await _costs(setup, redis, node, size)
                who = f"{number} page" + "s" * (number > 1)
                commands.add(who, max(0.0, seen[0] - base[0]))
                cpu.add(who, max(0.0, seen[1] - base[1]))
            cpu.add("the node without a console", base[1])
    return [*first.rows(), *commands.rows(), *cpu.rows()]


async def _costs(setup: Setup, redis: Redis, node: Role, size: Size) -> tuple[float, float]:
    """Return commands per second of all but the stand-ins, and the CPU of the node in percent."""
    before, own = await redis.info("stats"), _sent["commands"]
    window = await setup.watch({"api": node.pid}, time.monotonic(), size.window_s)
    after, own = await redis.info("stats"), _sent["commands"] - own
    sent = after["total_commands_processed"] - before["total_commands_processed"] - own
    return sent / window.took_s, 100 * window.cpu_s["api"] / window.took_s


async def _first_s(node: Role) -> float:
    """Open a console, and return how long its table of generations took, s."""
    began_s = time.monotonic()
    async with _opened(node) as response:
        async for line in response.content:
            if line.startswith(b"event: rows"):
                return time.monotonic() - began_s
    raise AssertionError("the console ended without a picture")


@asynccontextmanager
async def _opened(node: Role) -> AsyncIterator[aiohttp.ClientResponse]:
    host, port = address(node)
    async with (
        aiohttp.ClientSession(read_bufsize=2**22) as http,
        http.get(f"http://{host}:{port}/v1/console") as response,
    ):
        assert response.status == 200, await response.text()
        yield response


@asynccontextmanager
async def _pages(node: Role, number: int) -> AsyncIterator[None]:
    """Hold open pages that read what they are sent."""

    async def read(response: aiohttp.ClientResponse) -> None:
        async for _ in response.content.iter_any():
            pass

    async with AsyncExitStack() as stack:
        responses = [await stack.enter_async_context(_opened(node)) for _ in range(number)]
        reading = [asyncio.create_task(read(response)) for response in responses]
        try:
            yield
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)


@asynccontextmanager
async def _filled(setup: Setup, size: Size) -> AsyncIterator[Redis]:
    """Put the generations into an empty Redis, and report those that run until the end."""
    redis = Redis.from_url(setup.system.server.url, protocol=2)
    try:
        ids = await _put(redis, size)
        running = ids[: size.running]
        parts = [running[n : n + RUNS_OF_WORKER] for n in range(0, len(running), RUNS_OF_WORKER)]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_report(redis, f"stand-in-{n}", part))
                for n, part in enumerate(parts)
            ]
            yield redis
            for task in tasks:
                task.cancel()
        await _remove(redis, ids, size)
    finally:
        await redis.aclose()


def owner_of(n: int) -> str:
    return f"bench-owner-{n % OWNERS}"


async def _put(redis: Redis, size: Size) -> list[str]:
    ids = [new_generation_id() for _ in range(size.running + size.waiting + size.kept)]
    now_ms = await clock_ms(redis)
    # In the future, so that the janitor and the workers leave the generations alone.
    later_ms = now_ms + 3_600_000
    commands: list[Any] = []
    for n, name in enumerate(ids):
        owner, status = owner_of(n), "completed"
        if n < size.running:
            status = "running"
            commands.append(("ZADD", keys.running(), later_ms, name))
        elif n < size.running + size.waiting:
            status = "queued"
            commands.append(("ZADD", keys.waiting("interactive"), later_ms, name))
        members = {
            "status": status,
            "owner": owner,
            "model": "m",
            "created": now_ms - n,
            "attempt": 1,
        }
        words = [word for pair in members.items() for word in pair]
        lease = ("lease" if status == "running" else "waiting", later_ms)
        commands.append(("HSET", keys.meta(name), *words, *lease))
        commands.append(("ZADD", keys.owner(owner), now_ms - n, name))
    commands += [("ZADD", keys.USAGE_OWNERS, now_ms, owner_of(n)) for n in range(OWNERS)]
    for start in range(0, len(commands), AT_ONCE):
        await ClientPipeline(redis).run(commands[start : start + AT_ONCE])
    return ids


async def _remove(redis: Redis, ids: list[str], size: Size) -> None:
    del size
    names = [keys.meta(name) for name in ids] + [keys.owner(owner_of(n)) for n in range(OWNERS)]
    names += [keys.running(), keys.waiting("interactive"), keys.USAGE_OWNERS, keys.WORKER_RUNS]
    for start in range(0, len(names), AT_ONCE):
        await redis.unlink(*names[start : start + AT_ONCE])
    for worker in await redis.hkeys(keys.WORKERS):  # type: ignore[misc]
        if worker.startswith(b"stand-in-"):
            await redis.hdel(keys.WORKERS, worker)  # type: ignore[misc]


async def _report(redis: Redis, worker: str, ids: list[str]) -> None:
    """Report the runs of a stand-in for a worker each second, with and without a console."""
    await asyncio.sleep(random.random() * REPORT_S)
    tokens = 0
    while True:
        now_ms = await clock_ms(redis)
        tokens += 40
        presence = Presence(worker, now_ms, len(ids), len(ids), False, {"tokens": float(tokens)})
        runs = [
            LiveRun(name, owner_of(n), "m", "openai", "interactive", now_ms - n, 1, tokens, 20)
            for n, name in enumerate(ids)
        ]
        await report_worker(redis, presence, runs)
        await ClientPipeline(redis).run([watch_command()])
        _sent["commands"] += COMMANDS_OF_REPORT
        await asyncio.sleep(REPORT_S)
