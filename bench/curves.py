"""Measures curves: CPU and memory over the number of readers, delay over the tokens per second.

docs/plots shows them. Each point is a shorter run of `fan_out`, `append_to_socket` or `idle`.
Because there are many points, this benchmark runs only if it is named.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from bench import fan_out, idle
from bench.support.answer import new_answers
from bench.support.cpu import rss_bytes
from bench.support.load import get_events
from bench.support.nchan import WHO as NCHAN
from bench.support.nchan import why_missing
from bench.support.setup import Setup, WindowMissed, address
from bench.support.table import Comparison, Row, percentile
from bench.support.writer import Writer

CPU, DELAY, MEMORY = "readers and CPU", "tokens per second and delay", "readers and memory"
SHARES = {"p50": 0.5, "p99": 0.99}
MB = 1_000_000
FAN_OUT_PER_S = 50


@dataclass(frozen=True, slots=True)
class Size:
    """The values on the x axes.

    Attributes:
        idle: numbers of idle readers, rising.
    """

    readers: tuple[int, ...]
    rates: tuple[int, ...]
    idle: tuple[int, ...]
    streams: int
    window_s: float
    first_s: float


FULL = Size(
    readers=(10, 50, 100, 300, 900),
    rates=(500, 1_000, 2_500, 5_000, 8_000),
    idle=(0, 250, 500, 1_000, 2_000),
    streams=100,
    window_s=4.0,
    first_s=2.0,
)
QUICK = Size((2,), (100,), (0, 5), streams=5, window_s=0.1, first_s=0.1)

Points = dict[int, Comparison]


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = QUICK if setup.is_quick else FULL
    cpu = {n: _cpu_at(n) for n in size.readers}
    delay = {rate: _delay_at(rate, size.streams) for rate in size.rates}
    memory = {n: _memory_at(n) for n in size.idle}
    for _ in setup.rounds():
        for n, comparison in cpu.items():
            await _cpu(setup, size, n, comparison)
        for rate, comparison in delay.items():
            await _delay(setup, size, rate, comparison)
        for kind in ("sse", "ws"):
            await _memory(setup, kind, memory)
    return [
        row for points in (cpu, delay, memory) for each in points.values() for row in each.rows()
    ]


def _cpu_at(readers: int) -> Comparison:
    work = f"1 generation at {FAN_OUT_PER_S} tokens/s, {readers} readers over SSE"
    work += ": CPU of the node per token delivered"
    return Comparison(work, "µs/token", fan_out.BASE, curve=CPU, at=readers)


def _delay_at(rate: int, streams: int) -> Comparison:
    work = f"{rate:,} tokens/s of {streams} generations, 1 reader each: from the model's write"
    return Comparison(f"{work} to the reader's read", "ms", curve=DELAY, at=rate)


def _memory_at(readers: int) -> Comparison:
    return Comparison(
        f"{readers:,} idle readers: memory of the node", "MB", curve=MEMORY, at=readers
    )


async def _cpu(setup: Setup, size: Size, readers: int, comparison: Comparison) -> None:
    """Measure one point of each compared system."""
    point = fan_out.Size(readers, FAN_OUT_PER_S, size.window_s, size.first_s)
    try:
        comparison.add(fan_out.BASE, await fan_out.bare(setup, "sse", point))
        async with setup.node() as node:
            await fan_out.ours(setup, node, "sse", point, comparison, Comparison("", "ms"))
        if not why_missing():
            comparison.add(NCHAN, await fan_out.by_nchan(setup, point))
    except WindowMissed as exc:  # measure the other points anyway
        print(f"{comparison.work}: {exc}", file=sys.stderr)


async def _delay(setup: Setup, size: Size, rate: int, comparison: Comparison) -> None:
    """Measure one point: all generations together produce `rate` tokens per second."""
    per_s = rate / size.streams
    tokens = setup.tokens(per_s, size.window_s)
    answers = new_answers(size.streams, tokens=tokens, per_s=per_s, first_s=size.first_s)
    async with setup.node() as node:
        measured_run = await setup.measured_run(
            node, answers, kind="sse", readers=1, window_s=size.window_s
        )
    latencies = measured_run.latencies_ms()
    for name, share in SHARES.items():
        comparison.add(
            f"Tailrace, SSE, {name}", percentile(latencies, share), joined=measured_run.joined
        )


async def _memory(setup: Setup, kind: str, points: Points) -> None:
    """Measure all points on one fresh node, with more and more readers of a silent generation."""
    is_fresh = not setup.is_quick
    async with (
        Writer(setup.system.server.url) as writer,
        setup.node(is_fresh=is_fresh) as node,
    ):
        holder = await writer.begin()
        request = get_events(kind, holder.generation_id)
        await idle.warm(setup, address(node), request, max(1, max(points) // 20))
        before = 0
        for readers, comparison in points.items():
            await idle.connect(setup, address(node), request, readers - before)
            comparison.add(fan_out.OURS[kind], rss_bytes(node.pid) / MB)
            before = readers
        await setup.load.close()
        await writer.end(holder, tokens_before=0)
