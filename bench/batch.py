"""Measures a batch: its rate, its memory, and how much it delays interactive requests.

The lines use the demo model at full speed, so the model is not the bottleneck. Then the time to the
first token of a streaming POST is measured twice: on an idle system, and beside a batch that takes
all slots that batches may have, with thousands of lines waiting. This benchmark starts its own
nodes, worker, jobs role and Redis.
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
from bench.support.setup import Setup
from bench.support.table import MS, US, Comparison, Row, percentile
from tests.support.batch import demo_line, encoded, ended, submit
from tests.support.processes import Deployment
from tests.support.sdk import sdk
from tests.support.wait import until

MB = 1_048_576
ALONE, BESIDE = "nothing else", "a full batch"
RATE, MEMORY = "lines done in a second", "memory"


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a run.

    Attributes:
        lines: of the batch that is measured.
        waiting: lines of the batch in the background; each takes two seconds.
        requests: number of first tokens that are measured.
    """

    lines: int
    waiting: int
    requests: int


FULL = Size(10_000, 10_000, 200)
QUICK = Size(200, 500, 5)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = QUICK if setup.is_quick else FULL
    work = f"a batch of {size.lines:,} lines, demo model, one worker, one jobs role"
    comparisons = {
        "rate": Comparison(f"{work}: rate", "lines/s"),
        "cpu": Comparison(f"{work}: CPU of a line", "µs"),
        "memory": Comparison(f"{work}: memory", "MB"),
        "p50": Comparison("first token of a POST that streams: p50", "ms", ALONE, {BESIDE: 2.0}),
        "p99": Comparison("first token of a POST that streams: p99", "ms", ALONE, {BESIDE: 3.0}),
    }
    for _ in setup.rounds():
        async with Deployment(api=1, workers=1, jobs=1, lease_s=3) as deployment:
            async with sdk(f"{deployment.urls[0]}/v1") as client:
                await setup.quiet()
                await _done(deployment, client, size, comparisons)
                await setup.quiet()
                for who, waits in ((ALONE, 0), (BESIDE, size.waiting)):
                    async with _batch_of(client, waits):
                        took = [await _first_token_ms(client) for _ in range(size.requests)]
                    comparisons["p50"].add(who, percentile(took, 0.5))
                    comparisons["p99"].add(who, percentile(took, 0.99))
    return [row for comparison in comparisons.values() for row in comparison.rows()]


async def _done(
    deployment: Deployment,
    client: openai.AsyncOpenAI,
    size: Size,
    comparisons: dict[str, Comparison],
) -> None:
    """Run one batch to its end; record its rate, CPU and memory."""
    assert deployment.server is not None and deployment.server.process is not None
    pids = {
        "the jobs role": deployment.jobs[0].pid,
        "the worker": deployment.workers[0].pid,
        "Redis": deployment.server.process.pid,
    }
    async with contextlib.aclosing(deployment.redis()) as redis:
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
    comparisons["rate"].add(RATE, size.lines / took_s)
    for who, pid in pids.items():
        comparisons["cpu"].add(who, US * (cpu_s(pid) - spent_s[who]) / size.lines)
    comparisons["memory"].add("the jobs role, at most", peak_bytes(deployment.jobs[0].pid) / MB)
    comparisons["memory"].add("Redis, at most, beyond an empty one", (peak - before) / MB)


@contextlib.asynccontextmanager
async def _batch_of(client: openai.AsyncOpenAI, lines: int) -> AsyncIterator[None]:
    """Keep a batch of this many lines running until the context ends."""
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
    """Send one streaming request; return the milliseconds to its first token."""
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
    assert took_ms, "an answer without a token"
    await asyncio.sleep(0.02)  # a pause, because people do not send requests back to back
    return took_ms
