"""Measures many generations with one reader each: the CPU of a node per delivered token.

This is the usual case of a chat. No frame serves two readers, so the result is the cost of one
token from the live channel through the log to one socket. The bare loop sends what is due every
5 ms. The same runs also measure the CPU of the other processes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.support import naive
from bench.support.answer import Answer, new_answers
from bench.support.bare import LAST_CHUNK, frames_of
from bench.support.load import ENDS, get, get_events
from bench.support.setup import Setup
from bench.support.table import US, Comparison, Row, percentile

BASE = "bare send() loop, every 5 ms"
OURS = "Tailrace, SSE"
GOAL = 2.0


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a run; `per_s` is per generation."""

    streams: int
    per_s: int
    window_s: float
    first_s: float  # pause before the first token, in which readers connect


FULL = Size(300, 20, 6.0, 3.0)
QUICK = Size(5, 50, 0.1, 0.1)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = QUICK if setup.is_quick else FULL
    work = f"{size.streams} generations at {size.per_s} tokens/s, 1 reader each"
    comparison = Comparison(
        f"{work}: CPU of the node per token delivered", "µs/token", BASE, {OURS: GOAL}
    )
    others = Comparison(f"{work}: the other processes, and the way from the model", "µs/token")
    delays = Comparison(f"{work}: from the model's write to a reader", "ms")
    for n in setup.rounds():
        comparison.add(BASE, await bare(setup, size))
        await ours(setup, size, comparison, others, delays)
        if n == 0:
            comparison.add(naive.WHO, await by_naive(setup, size))
    return [row for each in (comparison, others, delays) for row in each.rows()]


async def bare(setup: Setup, size: Size) -> float:
    """Send the frames of Tailrace, each to its socket; return µs per delivered token."""
    await setup.quiet()
    answers = answers_of(setup, size)
    frames = [frames_of("sse", answer.pieces()) for answer in answers]
    requests = [get(f"/{n}") for n in range(size.streams)]
    await setup.load.open(setup.bare.address, requests, end=LAST_CHUNK)
    await setup.bare.call("accept", size.streams)
    await setup.load.opened()
    async with asyncio.TaskGroup() as group:
        group.create_task(setup.bare.call("many", frames, float(size.per_s)))
        begin_s = time.monotonic() + setup.settle_s
        window = await setup.watch({"bare": setup.bare.pid}, begin_s, size.window_s)
    await setup.load.over()
    readings = await setup.load.report("sse", [answer.pieces() for answer in answers])
    await setup.bare.call("close")
    return US * window.cpu_s["bare"] / window.tokens(readings)


async def ours(
    setup: Setup,
    size: Size,
    comparison: Comparison,
    others: Comparison,
    delays: Comparison,
) -> None:
    """Measure Tailrace. Each generation begins with a POST whose response is the stream."""
    async with setup.node() as node:
        answers = answers_of(setup, size)
        measured_run = await setup.measured_run(
            node, answers, kind="sse", readers=1, window_s=size.window_s
        )
    comparison.add(OURS, measured_run.us_per_token("api"), joined=measured_run.joined)
    for who in ("worker", "redis", "model"):
        others.add(who, measured_run.us_per_token(who))
    latencies = measured_run.latencies_ms()
    for share in (0.5, 0.99):
        delays.add(f"p{share * 100:.0f}", percentile(latencies, share))


async def by_naive(setup: Setup, size: Size) -> float:
    """Read the same logs with the naive app, one per reader; return µs per delivered token."""
    await setup.quiet()
    answers = answers_of(setup, size)
    async with setup.naive() as app, setup.node() as node:
        begin_s = time.monotonic() + size.first_s + setup.settle_s
        ids = await setup.system.start(node, answers)
        await setup.load.open(
            app.address,
            [get_events("sse", generation_id) for generation_id in ids],
            end=ENDS["sse"],
        )
        window = await setup.watch({"naive": app.pid}, begin_s, size.window_s)
        await setup.load.over(180)
        readings = await setup.load.report("sse", [answer.pieces() for answer in answers])
    return US * window.cpu_s["naive"] / window.tokens(readings)


def answers_of(setup: Setup, size: Size) -> Sequence[Answer]:
    """Return new answers that are long enough for the window."""
    tokens = setup.tokens(size.per_s, size.window_s)
    return new_answers(size.streams, tokens=tokens, per_s=size.per_s, first_s=size.first_s)
