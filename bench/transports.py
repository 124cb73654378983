"""Compares SSE, WebSocket, NDJSON and long poll.

The same answers go to the same number of readers, one transport after the other on fresh nodes.
Measures the CPU of the node, the bytes in both directions, the memory of an idle reader, and the
delay of a token. A long poll sends a new request after each reply, and gets what came meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench import idle
from bench.support.answer import new_answers
from bench.support.load import KINDS
from bench.support.setup import Setup
from bench.support.table import Comparison, Row, percentile
from bench.support.writer import Writer
from tests.support.processes import Role

NAMES = {"sse": "SSE", "ws": "WebSocket", "ndjson": "NDJSON", "poll": "long poll"}
BASE = NAMES["sse"]


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a run; `idle` is the number of idle readers."""

    readers: int
    idle: int
    per_s: int
    window_s: float
    first_s: float


FULL = Size(100, 500, 20, 6.0, 1.0)
QUICK = Size(5, 20, 50, 0.1, 0.1)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = QUICK if setup.is_quick else FULL
    work = f"1 generation at {size.per_s} tokens/s, {size.readers} readers of each transport"
    comparisons = {
        "cpu": Comparison(f"{work}: CPU of the node per token", "µs", BASE),
        "down": Comparison(f"{work}: bytes to the reader per token", "bytes", BASE),
        "up": Comparison(f"{work}: bytes from the reader per token, its request too", "bytes"),
        "late": Comparison(f"{work}: from the model's write to the reader, p50", "ms", BASE),
        "memory": Comparison(f"{size.idle} idle readers: memory of the node for each", "kB", BASE),
    }
    for _ in setup.rounds():
        for kind in KINDS:
            async with setup.node() as node:
                await _memory(setup, node, kind, size, comparisons["memory"])
                await _stream(setup, node, kind, size, comparisons)
    return [row for comparison in comparisons.values() for row in comparison.rows()]


async def _memory(setup: Setup, node: Role, kind: str, size: Size, comparison: Comparison) -> None:
    """Measure memory first on this node, so that one-time allocations for readers are included."""
    async with Writer(setup.system.server.url) as writer:
        holder = await writer.begin()
        comparison.add(NAMES[kind], await idle.memory_kb(setup, node, kind, holder, size.idle))
        await writer.end(holder, tokens_before=0)


async def _stream(
    setup: Setup, node: Role, kind: str, size: Size, comparisons: dict[str, Comparison]
) -> None:
    tokens = setup.tokens(size.per_s, size.window_s)
    answers = new_answers(1, tokens=tokens, per_s=size.per_s, first_s=size.first_s)
    measured_run = await setup.measured_run(
        node, answers, kind=kind, readers=size.readers, window_s=size.window_s
    )
    who, count = NAMES[kind], tokens * size.readers
    comparisons["cpu"].add(who, measured_run.us_per_token("api"), joined=measured_run.joined)
    comparisons["down"].add(who, sum(r.wire_bytes for r in measured_run.readings) / count)
    comparisons["up"].add(who, sum(r.sent_bytes for r in measured_run.readings) / count)
    comparisons["late"].add(who, percentile(measured_run.latencies_ms(), 0.5))
