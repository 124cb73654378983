"""Measures the delay of a token from the model's write to a reader's read, under steady load.

The delay includes the worker's socket, its gathering, Redis, the node and the node's write. So it
is more than the time from the append to the socket, and it is what a person notices. Every token of
the window counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.support.answer import new_answers
from bench.support.setup import Setup
from bench.support.table import Comparison, Row, percentile

GOALS_MS = {"p50": 5.0, "p99": 25.0}
SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a run; `first_s` is the pause before the first token."""

    streams: int
    per_s: int
    window_s: float
    first_s: float


FULL = Size(100, 50, 8.0, 1.5)
QUICK = Size(5, 50, 0.1, 0.1)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = QUICK if setup.is_quick else FULL
    comparison = Comparison(
        f"{size.streams * size.per_s:,} tokens/s, {size.streams} generations with 1 reader each:"
        " from the model's write to the reader's read",
        "ms",
        goals=GOALS_MS,
    )
    for _ in setup.rounds():
        async with setup.node() as node:
            tokens = setup.tokens(size.per_s, size.window_s)
            answers = new_answers(
                size.streams, tokens=tokens, per_s=size.per_s, first_s=size.first_s
            )
            measured_run = await setup.measured_run(
                node, answers, kind="sse", readers=1, window_s=size.window_s
            )
            latencies = measured_run.latencies_ms()
            for name, share in SHARES.items():
                comparison.add(name, percentile(latencies, share), joined=measured_run.joined)
    return comparison.rows()
