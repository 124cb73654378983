"""A batch: how fast its lines go through, what it keeps in memory, and what people notice of it.

Lines of the demo model that are said all at once, so that what is measured is the way and not the
model; then the first token of a POST that streams, on a system that has nothing else to do, and
beside a batch whose lines take all the slots that lines may have, with thousands waiting.
The nodes, the worker, the jobs role and Redis are of this bench's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import openai

from bench.support.cpu import cpu_s, peak_bytes
from bench.support.stage import Stage
from bench.support.table import MS, US, Contest, Row, percentile
from tests.support.batch import demo_line, encoded, ended, submit
from tests.support.processes import Cluster
from tests.support.sdk import sdk
from tests.support.wait import until

MB = 1_048_576
ALONE, BESIDE = "nothing else", "a full batch"
RATE, MEMORY = "lines done in a second", "memory"


@dataclass(frozen=True, slots=True)
class Size:
    """How much.

    Attributes:
        lines: of the batch that is to be done.
        waiting: of the batch that is in the way; its lines take two seconds each.
        asks: first tokens.
    """

    lines: int
    waiting: int
    asks: int


FULL = Size(10_000, 10_000, 200)
QUICK = Size(200, 500, 5)


async def run(stage: Stage) -> list[Row]:
    size = QUICK if stage.is_quick else FULL
    whole = f"a batch of {size.lines:,} lines, demo model, one worker, one jobs role"
    contests = {
        "rate": Contest(f"{whole}: rate", "lines/s"),
        "cpu": Contest(f"{whole}: CPU of a line", "µs"),
        "memory": Contest(f"{whole}: memory", "MB"),
        "p50": Contest("first token of a POST that streams: p50", "ms", ALONE, {BESIDE: 2.0}),
        "p99": Contest("first token of a POST that streams: p99", "ms", ALONE, {BESIDE: 3.0}),
    }
    for _ in stage.rounds():
        async with Cluster(api=1, workers=1, jobs=1, lease_s=3) as cluster:
            async with sdk(f"{cluster.urls[0]}/v1") as client:
                await stage.quiet()
                await _done(cluster, client, size, contests)
                await stage.quiet()
                for who, waits in ((ALONE, 0), (BESIDE, size.waiting)):
                    async with _batch_of(client, waits):
                        took = [await _first_token_ms(client) for _ in range(size.asks)]
                    contests["p50"].add(who, percentile(took, 0.5))
                    contests["p99"].add(who, percentile(took, 0.99))
    return [row for contest in contests.values() for row in contest.rows()]


async def _done(
    cluster: Cluster, client: openai.AsyncOpenAI, size: Size, contests: dict[str, Contest]
) -> None:
    """Run one batch to its end, from its creation on."""
    assert cluster.server is not None and cluster.server.process is not None
    pids = {
        "the jobs role": cluster.jobs[0].pid,
        "the worker": cluster.workers[0].pid,
        "Redis": cluster.server.process.pid,
    }
    async with contextlib.aclosing(cluster.redis()) as redis:
        before = (await redis.info("memory"))["used_memory"]
        spent_s = {who: cpu_s(pid) for who, pid in pids.items()}
        began_s = time.monotonic()
        content = encoded(demo_line(n, tokens=20) for n in range(size.lines))
        made = await submit(client, content)
        batch = await ended(client, made.id, 600)
        took_s = time.monotonic() - began_s
        assert batch.request_counts is not None
        assert batch.request_counts.completed == size.lines, batch
        peak = (await redis.info("memory"))["used_memory_peak"]
    contests["rate"].add(RATE, size.lines / took_s)
    for who, pid in pids.items():
        contests["cpu"].add(who, US * (cpu_s(pid) - spent_s[who]) / size.lines)
    contests["memory"].add("the jobs role, at most", peak_bytes(cluster.jobs[0].pid) / MB)
    contests["memory"].add("Redis, at most, beyond an empty one", (peak - before) / MB)


@contextlib.asynccontextmanager
async def _batch_of(client: openai.AsyncOpenAI, lines: int) -> AsyncIterator[None]:
    """Lines that wait, and as many that run as may, for as long as this is open."""
    if not lines:
        yield
        return
    content = encoded(demo_line(n, tokens=40, per_s=20) for n in range(lines))
    made = await submit(client, content)

    async def is_full() -> Any:
        counts = (await client.batches.retrieve(made.id)).request_counts
        return counts is not None and counts.completed >= 1

    await until(is_full, 60, "the first lines")
    try:
        yield
    finally:
        await client.batches.cancel(made.id)
        await ended(client, made.id, 30)


async def _first_token_ms(client: openai.AsyncOpenAI) -> float:
    began_s = time.monotonic()
    stream = await client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "tell me"}],
        stream=True,
        extra_body={"demo": {"tokens": 2, "tokens_per_s": 0, "first_token_s": 0}},
    )
    took_ms = 0.0
    async for chunk in stream:
        if not took_ms and chunk.choices and chunk.choices[0].delta.content:
            took_ms = (time.monotonic() - began_s) * MS
    assert took_ms, "an answer without a word"
    await asyncio.sleep(0.02)  # people do not ask in the same moment
    return took_ms
