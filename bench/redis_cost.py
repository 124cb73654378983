"""Measures what a token costs Redis: commands, CPU, and bytes in the log.

Many generations pass through a real worker to one reader each, so every frame has a subscriber.
Measured twice: with few fast generations, whose tokens leave two at a time, and with many slow
ones, where each token is one append. Only commands of clients count, not calls inside scripts.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from redis import Redis

from bench.support.answer import Answer, new_answers
from bench.support.setup import Setup
from bench.support.table import Comparison, Row
from shared.redis import keys
from tests.support.processes import Role

GOALS = {"commands sent to it": 0.7, "its CPU, µs": 6.0, "bytes kept in the log": 70.0}


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a run; `per_s` is per generation."""

    streams: int
    per_s: int
    window_s: float
    first_s: float


FULL = (Size(50, 200, 6.0, 2.0), Size(200, 50, 6.0, 2.0))
QUICK = (Size(5, 50, 0.15, 0.1),)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    comparisons = {size: Comparison(_work(size), "", goals=GOALS) for size in _sizes(setup)}
    for _ in setup.rounds():
        async with setup.node() as node:
            for size, comparison in comparisons.items():
                await _cost(setup, node, size, comparison)
                await _sent(setup, node, size, comparison)
    return [row for comparison in comparisons.values() for row in comparison.rows()]


def _sizes(setup: Setup) -> tuple[Size, ...]:
    return QUICK if setup.is_quick else FULL


def _work(size: Size) -> str:
    shape = f"{size.streams} generations of {size.per_s} each"
    return f"Redis at {size.streams * size.per_s:,} tokens/s, {shape}: per token"


async def _cost(setup: Setup, node: Role, size: Size, comparison: Comparison) -> None:
    redis = setup.system.redis
    answers = _answers(setup, size, size.window_s)
    measured_run = await setup.measured_run(
        node,
        answers,
        kind="sse",
        readers=1,
        window_s=size.window_s,
        probe=lambda: _counters(redis),
    )
    seen, tokens = measured_run.window.seen, sum(answer.tokens for answer in answers)
    comparison.add("its CPU, µs", measured_run.us_per_token("redis"), joined=measured_run.joined)
    comparison.add("its CPU in scripts, µs", seen["usec"] / measured_run.tokens)
    comparison.add("commands run, inside scripts too", seen["run"] / measured_run.tokens)
    usages: Any = [
        redis.memory_usage(keys.log(generation_id), samples=0)
        for generation_id in setup.system.newest(size.streams)
    ]
    comparison.add("bytes kept in the log", sum(usages) / tokens)


def _counters(redis: Redis) -> dict[str, float]:
    stats: Any = redis.info("commandstats")
    scripts = [row["usec"] for name, row in stats.items() if "eval" in name]
    return {"run": float(sum(row["calls"] for row in stats.values())), "usec": sum(scripts)}


async def _sent(setup: Setup, node: Role, size: Size, comparison: Comparison) -> None:
    """Count the commands of clients, in a separate run: MONITOR itself costs CPU."""
    window_s = size.window_s / 3
    async with Monitor(setup.system.server.port) as monitor:
        measured_run = await setup.measured_run(
            node,
            _answers(setup, size, window_s),
            kind="sse",
            readers=1,
            window_s=window_s,
            probe=lambda: {"sent": float(monitor.sent)},
        )
    comparison.add("commands sent to it", measured_run.window.seen["sent"] / measured_run.tokens)


class Monitor:
    """Counts the commands of clients with Redis's MONITOR. Use `async with`."""

    def __init__(self, port: int) -> None:
        self.sent = 0
        self._port = port

    async def __aenter__(self) -> Monitor:
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(b"MONITOR\r\n")
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._group.create_task(self._count(reader))
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self._writer.close()  # also ends `_count`
        await self._group.__aexit__(*exc)
        await self._writer.wait_closed()

    async def _count(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(1 << 20):
            # One line per command. A call of a script has `lua` in place of an address.
            self.sent += data.count(b"\n") - data.count(b" lua] ")


def _answers(setup: Setup, size: Size, window_s: float) -> list[Answer]:
    tokens = setup.tokens(size.per_s, window_s)
    return new_answers(size.streams, tokens=tokens, per_s=size.per_s, first_s=size.first_s)
