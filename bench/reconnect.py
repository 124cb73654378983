"""All readers of a long answer come back at once, to a node that has never heard of it.

How long until each has all of it, and what does Redis feel of that? The answer is unfinished, as it
is when a node dies; the log is written by the bench. Beside it a bare loop that pours the same
bytes, resumable-stream, and the naive app.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from bench.support.answer import Answer, new_answers
from bench.support.bare import LAST_CHUNK, frames_of
from bench.support.load import Address, get, get_events
from bench.support.load_process import Ask
from bench.support.resumable import WHO, Resumable, unless_lost, why_missing
from bench.support.stage import Stage, address
from bench.support.system import System
from bench.support.table import Contest, Row, percentile
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
    readers: int
    tokens: int


FULL = Size(1_000, 3_000)
QUICK = Size(5, 200)


async def run(stage: Stage) -> list[Row]:
    size = QUICK if stage.is_quick else FULL
    fewer = replace(size, readers=max(1, size.readers // 10))  # all of them: minutes
    work = f"{size.readers:,} readers come back at once, {size.tokens:,} tokens behind"
    times = {
        "p50": Contest(f"{work}: until they have all of it, p50", "s", BARE),
        "p99": Contest(f"{work}: p99", "s", BARE, {OURS: P99_S_MAX}, is_goal_ratio=False),
    }
    reads = Contest(f"{work}: reads of Redis", "reads", goals={OURS: READS_MAX})
    for n in stage.rounds():
        _add(times, BARE, await _bare(stage, size))
        async with Writer(stage.system.server.url) as writer:
            (answer,) = new_answers(1, tokens=size.tokens)
            holder = await writer.begin()
            await writer.say(holder, answer.pieces())
            before = _reads(stage.system)
            async with stage.node(is_fresh=not stage.is_quick) as node:
                _add(times, OURS, await _come_back(stage, size, holder, answer, address(node)))
            reads.add(OURS, _reads(stage.system) - before)
            if n == 0:
                before = _reads(stage.system)
                async with stage.naive() as app:
                    _add(times, NAIVE, await _come_back(stage, fewer, holder, answer, app.address))
                reads.add(NAIVE, _reads(stage.system) - before)
                if not why_missing():
                    seen = await unless_lost(stage, by_resumable(stage, fewer))
                    _add(times, RESUMABLE, seen or [])
            await writer.end(holder, said=size.tokens)
    return [row for contest in (*times.values(), reads) for row in contest.rows()]


def _add(times: dict[str, Contest], who: str, seen: list[float]) -> None:
    for name, share in SHARES.items():
        if seen:
            times[name].add(who, percentile(seen, share))


async def _come_back(
    stage: Stage, size: Size, holder: Holder, answer: Answer, server: Address
) -> list[float]:
    """Seconds until each reader had the last token; it knows it by its text."""
    pieces = answer.pieces()
    ask = get_events("sse", holder.generation_id)
    return await _pour(stage, size, server, [ask] * size.readers, pieces)


async def _pour(
    stage: Stage, size: Size, server: Address, asks: list[Ask], pieces: list[str]
) -> list[float]:
    await stage.quiet()
    began_s = await stage.load.open(server, asks, end=f'{pieces[-1]}"}}'.encode())
    await stage.load.over(120)
    readings = await stage.load.report("sse", [pieces], [0] * size.readers)
    return [reading.times[-1] - began_s for reading in readings]


async def by_resumable(stage: Stage, size: Size) -> list[float]:
    """By resumable-stream: its producer is still there, and has all of it in memory."""
    (answer,) = new_answers(1, tokens=size.tokens)
    pieces, name = answer.pieces(), f"back{answer.number}"
    async with Resumable(stage.system.server.url) as app:
        await app.say(name, pieces, stays=True)
        asks = [get(f"/read/{name}")] * size.readers
        one = replace(size, readers=1)
        await _pour(stage, one, app.address, asks[:1], pieces)  # then all of it has been said
        return await _pour(stage, size, app.address, asks, pieces)


async def _bare(stage: Stage, size: Size) -> list[float]:
    (answer,) = new_answers(1, tokens=size.tokens)
    pieces = answer.pieces()
    body = b"".join(frames_of("sse", pieces)) + LAST_CHUNK
    async with asyncio.TaskGroup() as group:
        group.create_task(stage.bare.call("serve", body, size.readers))
        asks = [get(f"/{n}") for n in range(size.readers)]
        seen = await _pour(stage, size, stage.bare.address, asks, pieces)
    await stage.bare.call("close")
    return seen


def _reads(system: System) -> int:
    """How many reading commands Redis has run since it started."""
    stats: Any = system.redis.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in READS)
