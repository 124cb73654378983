"""Measures what partitions of the queue cost on one Redis: first token, Redis's CPU, idle workers.

The same prompts go, one after the other, to a system whose queue has one partition and to one with
eight. The prompt finds an idle worker, which waits on all partitions.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from bench.first_token import connected, first_token_ms
from bench.support.answer import new_answers
from bench.support.cpu import cpu_s
from bench.support.load import post
from bench.support.setup import Setup, address
from bench.support.system import System
from bench.support.table import US, Comparison, Row, percentile

COUNTS = (1, 8)


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a run.

    Attributes:
        warm: prompts before the measurement.
        idle_s: how long the CPU of an idle system is measured.
    """

    prompts: int
    warm: int
    idle_s: float


FULL = Size(400, 20, 5.0)
QUICK = Size(5, 1, 0.1)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size, base = QUICK if setup.is_quick else FULL, _who(COUNTS[0])
    first = Comparison("first token of a POST, idle worker: p50", "ms", base=base)
    prompt = Comparison("Redis: CPU of one prompt of two tokens", "µs", base=base)
    idle = Comparison("Redis: CPU beside an idle worker and node, each second", "µs", base=base)
    for _ in setup.rounds():
        for count in COUNTS:
            await setup.quiet()
            async with System(setup.upstream.base_url, queue_partitions=str(count)) as system:
                idle_us, prompt_us, took_ms = await _measure(setup, system, size)
            first.add(_who(count), percentile(took_ms, 0.5))
            prompt.add(_who(count), prompt_us)
            idle.add(_who(count), idle_us)
    return [row for comparison in (first, prompt, idle) for row in comparison.rows()]


def _who(count: int) -> str:
    return f"{count} partitions" if count > 1 else "1 partition"


async def _measure(setup: Setup, system: System, size: Size) -> tuple[float, float, list[float]]:
    """Return µs per idle second, µs per prompt, and milliseconds to each first token."""
    async with system.node() as node, connected(address(node)) as (reader, writer):
        answers = new_answers(size.warm + size.prompts, tokens=2)
        began_s = used_s = 0.0
        took_ms: list[float] = []
        for n, answer in enumerate(answers):
            if n == size.warm:
                began_s, used_s = time.monotonic(), cpu_s(system.redis_pid)
                took_ms.clear()
            raw = post("/v1/generations", answer.body()).first
            took_ms.append(await first_token_ms(reader, writer, raw, answer))
        busy_s, lasted_s = cpu_s(system.redis_pid) - used_s, time.monotonic() - began_s
        await setup.upstream.times(answers)
        used_s = cpu_s(system.redis_pid)
        await asyncio.sleep(size.idle_s)
        idle_share = (cpu_s(system.redis_pid) - used_s) / size.idle_s
    return US * idle_share, US * (busy_s - idle_share * lasted_s) / size.prompts, took_ms
