"""Measures the CPU of a worker per token, from the model's socket to the log, with leases.

First at a pace below its limit: many answers, with one chunk and one write of the model for each
token. Then above its limit: how many tokens per second one core carries. Real readers read the logs
back and check the texts. At last the paced run with each kind of backend, beside `openai`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from bench import many_streams
from bench.support.answer import MODEL, Answer, new_answers
from bench.support.cpu import cpu_s
from bench.support.load import ENDS, get_events
from bench.support.model_wires import OPENAI, WIRES, ModelWire
from bench.support.setup import Setup, address
from bench.support.table import Comparison, Row
from tests.support.processes import Role

BASE = many_streams.BASE
OURS = "Tailrace's worker"
GOAL = 6.0
PER_CORE_MIN = 25_000.0
KIND_GOAL = 1.5  # times the cost of the kind `openai`


@dataclass(frozen=True, slots=True)
class Flood:
    """A load that is more than one core can carry.

    Attributes:
        per_s: tokens per second of each stream.
    """

    streams: int
    tokens: int
    per_s: int
    first_s: float


FULL = Flood(500, 600, 200, 3.0)
QUICK = Flood(5, 100, 1_000, 0.1)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = many_streams.QUICK if setup.is_quick else many_streams.FULL
    flood = QUICK if setup.is_quick else FULL
    paced = Comparison(
        f"worker, {size.streams} answers at {size.per_s} tokens/s: CPU per token to Redis",
        "µs/token",
        BASE,
        {OURS: GOAL},
    )
    maximum = Comparison(
        f"worker, {flood.streams} answers at {flood.per_s} tokens/s, more than it can do",
        "tokens/s",
        goals={"per core": PER_CORE_MIN},
        is_more_better=True,
    )
    kinds = Comparison(
        f"worker, {size.streams} answers at {size.per_s} tokens/s: CPU per token, by kind",
        "µs/token",
        OPENAI.backend,
        {wire.backend: KIND_GOAL for wire in WIRES if wire is not OPENAI},
    )
    for _ in setup.rounds():
        paced.add(BASE, await many_streams.bare(setup, size))
        async with setup.node() as node:
            await _paced(setup, node, size, paced)
            await _flooded(setup, node, flood, maximum)
            for wire in WIRES:
                await _kind(setup, node, size, kinds, wire)
    return [*paced.rows(), *maximum.rows(), *kinds.rows()]


async def _paced(setup: Setup, node: Role, size: many_streams.Size, comparison: Comparison) -> None:
    answers = many_streams.answers_of(setup, size)
    measured_run = await setup.measured_run(
        node, answers, kind="sse", readers=1, window_s=size.window_s
    )
    comparison.add(OURS, measured_run.us_per_token("worker"), joined=measured_run.joined)


async def _kind(
    setup: Setup, node: Role, size: many_streams.Size, comparison: Comparison, wire: ModelWire
) -> None:
    """Run answers of one kind of backend."""
    model = MODEL if wire is OPENAI else wire.backend
    answers = [replace(answer, model=model) for answer in many_streams.answers_of(setup, size)]
    measured_run = await setup.measured_run(
        node, answers, kind="sse", readers=1, window_s=size.window_s
    )
    used = measured_run.us_per_token("worker")
    comparison.add(wire.backend, used, joined=measured_run.joined)


async def _flooded(setup: Setup, node: Role, flood: Flood, comparison: Comparison) -> None:
    """Run the flood without readers: the worker has a core of its own."""
    setup.pin_measured(setup.system.worker.pid)
    answers = new_answers(
        flood.streams, tokens=flood.tokens, per_s=flood.per_s, first_s=flood.first_s
    )
    await setup.quiet()
    began_s, spent = time.monotonic(), cpu_s(setup.system.worker.pid)
    ids = await setup.system.start(node, answers)
    await setup.system.all_ended(120)
    took_s = time.monotonic() - began_s - flood.first_s
    spent = cpu_s(setup.system.worker.pid) - spent
    setup.system.unpin()
    await _check(setup, node, ids, answers)
    tokens = flood.streams * flood.tokens
    comparison.add("per core", tokens / spent)
    comparison.add("reached, with what was left of the machine", tokens / took_s)


async def _check(setup: Setup, node: Role, ids: list[str], answers: list[Answer]) -> None:
    requests = [get_events("sse", generation_id) for generation_id in ids]
    await setup.load.open(address(node), requests, end=ENDS["sse"])
    await setup.load.over()
    await setup.load.report("sse", [answer.pieces() for answer in answers])
    await setup.upstream.times(answers)
