"""Measures a mass reconnect: all readers of a long answer resume at once, at a node new to it.

Measures the time until each reader has everything, and the reads of Redis. The answer is
unfinished, as when a node dies; the benchmark writes its log. Compared with a bare loop that sends
the same bytes, with resumable-stream, and with the naive app.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from bench.support.answer import Answer, new_answers
from bench.support.bare import LAST_CHUNK, frames_of
from bench.support.load import Address, get, get_events
from bench.support.load_process import ReaderRequest
from bench.support.resumable import WHO, Resumable, unless_lost, why_missing
from bench.support.setup import Setup, address
from bench.support.system import System
from bench.support.table import Comparison, Row, percentile
from bench.support.writer import Writer
from tests.support.generation import Holder

OURS = "Tailrace, SSE"
NAIVE = "sse-starlette, a tenth of them"
RESUMABLE = f"{WHO}, a tenth of them"
BARE = "bare loop of the same bytes"
SHARES = {"p50": 0.5, "p99": 0.99}
P99_S_MAX, READS_MAX = 0.6, 30.0
READS = (
    *("xrange", "xrevrange", "xread", "xlen", "xinfo|stream"),
    *("get", "mget", "exists", "hget", "hmget", "hgetall", "zrange", "zscore", "zcount"),
)


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a run; `tokens` is the number that each reader is behind."""

    readers: int
    tokens: int


FULL = Size(1_000, 3_000)
QUICK = Size(5, 200)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = QUICK if setup.is_quick else FULL
    fewer = replace(size, readers=max(1, size.readers // 10))  # with all readers it takes minutes
    work = f"{size.readers:,} readers come back at once, {size.tokens:,} tokens behind"
    times = {
        "p50": Comparison(f"{work}: until they have all of it, p50", "s", BARE),
        "p99": Comparison(f"{work}: p99", "s", BARE, {OURS: P99_S_MAX}, is_goal_ratio=False),
    }
    reads = Comparison(f"{work}: reads of Redis", "reads", goals={OURS: READS_MAX})
    for n in setup.rounds():
        _add(times, BARE, await _bare(setup, size))
        async with Writer(setup.system.server.url) as writer:
            (answer,) = new_answers(1, tokens=size.tokens)
            holder = await writer.begin()
            await writer.say(holder, answer.pieces())
            before = _reads(setup.system)
            async with setup.node(is_fresh=not setup.is_quick) as node:
                _add(times, OURS, await _come_back(setup, size, holder, answer, address(node)))
            reads.add(OURS, _reads(setup.system) - before)
            if n == 0:
                before = _reads(setup.system)
                async with setup.naive() as app:
                    _add(
                        times,
                        NAIVE,
                        await _come_back(setup, fewer, holder, answer, app.address),
                    )
                reads.add(NAIVE, _reads(setup.system) - before)
                if not why_missing():
                    seen = await unless_lost(setup, by_resumable(setup, fewer))
                    _add(times, RESUMABLE, seen or [])
            await writer.end(holder, tokens_before=size.tokens)
    return [row for comparison in (*times.values(), reads) for row in comparison.rows()]


def _add(times: dict[str, Comparison], who: str, seen: list[float]) -> None:
    for name, share in SHARES.items():
        if seen:
            times[name].add(who, percentile(seen, share))


async def _come_back(
    setup: Setup, size: Size, holder: Holder, answer: Answer, server: Address
) -> list[float]:
    """Return the seconds until each reader had the last token."""
    pieces = answer.pieces()
    request = get_events("sse", holder.generation_id)
    return await _pour(setup, size, server, [request] * size.readers, pieces)


async def _pour(
    setup: Setup,
    size: Size,
    server: Address,
    requests: list[ReaderRequest],
    pieces: list[str],
) -> list[float]:
    """Connect all readers at once; return the seconds until each had the last token."""
    await setup.quiet()
    began_s = await setup.load.open(server, requests, end=f'{pieces[-1]}"}}'.encode())
    await setup.load.over(120)
    readings = await setup.load.report("sse", [pieces], [0] * size.readers)
    return [reading.times[-1] - began_s for reading in readings]


async def by_resumable(setup: Setup, size: Size) -> list[float]:
    """Measure resumable-stream. Its producer still runs and has the whole answer in memory."""
    (answer,) = new_answers(1, tokens=size.tokens)
    pieces, name = answer.pieces(), f"back{answer.number}"
    async with Resumable(setup.system.server.url) as app:
        await app.say(name, pieces, stays=True)
        requests = [get(f"/read/{name}")] * size.readers
        single = replace(size, readers=1)
        # When one reader has everything, the producer has sent everything.
        await _pour(setup, single, app.address, requests[:1], pieces)
        return await _pour(setup, size, app.address, requests, pieces)


async def _bare(setup: Setup, size: Size) -> list[float]:
    (answer,) = new_answers(1, tokens=size.tokens)
    pieces = answer.pieces()
    body = b"".join(frames_of("sse", pieces)) + LAST_CHUNK
    async with asyncio.TaskGroup() as group:
        group.create_task(setup.bare.call("serve", body, size.readers))
        requests = [get(f"/{n}") for n in range(size.readers)]
        seen = await _pour(setup, size, setup.bare.address, requests, pieces)
    await setup.bare.call("close")
    return seen


def _reads(system: System) -> int:
    """Return how many read commands Redis has executed since it started."""
    stats: Any = system.redis.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in READS)
