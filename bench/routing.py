"""Measures how much later the first token of a streaming POST comes where the model is a route.

Requests alternate on open connections to one node with one worker and one model server: a model
that is a backend itself, and routes over two tables of this model server. No backend fails. Also
counted: the scripts that Redis runs for each prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from bench.first_token import connected, first_token_ms
from bench.support.answer import MODEL, Answer, new_answers
from bench.support.load import post
from bench.support.setup import Setup, address
from bench.support.table import Comparison, Row, percentile
from tests.support.processes import Role

PLAIN = "a backend itself"
MODELS = {
    PLAIN: MODEL,
    "added by a route": "route-order",
    "added by a route with `prefix`": "route-prefix",
    "added by a route that hedges": "route-hedge",
}
REQUESTS, REQUESTS_QUICK = 400, 5
GOAL_MS = 0.1
SCRIPTS = ("cmdstat_evalsha", "cmdstat_fcall")


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    times = Comparison(
        "first token of a POST that streams, p50", "ms",
        goals=dict.fromkeys(list(MODELS)[1:], GOAL_MS),
    )  # fmt: skip
    scripts = Comparison("scripts of Redis for a prompt", "scripts")
    for _ in setup.rounds():
        await setup.quiet()
        async with setup.node() as node:
            seen = await _measure(setup, node)
            base = percentile(seen[PLAIN], 0.5)
            for who, values in seen.items():
                times.add(who, percentile(values, 0.5) - (0.0 if who == PLAIN else base))
            for who in MODELS:
                scripts.add(who.replace("added by ", ""), await _scripts(setup, node, who))
    return [*times.rows(), *scripts.rows()]


async def _measure(setup: Setup, node: Role) -> dict[str, list[float]]:
    """Return the milliseconds to each first token, by model."""
    seen: dict[str, list[float]] = {who: [] for who in MODELS}
    async with AsyncExitStack() as stack:
        connections = {
            who: await stack.enter_async_context(connected(address(node))) for who in MODELS
        }
        for _ in range(REQUESTS_QUICK if setup.is_quick else REQUESTS):
            answers = [_answer(who) for who in MODELS]
            for answer, (who, connection) in zip(answers, connections.items(), strict=True):
                raw = post("/v1/generations", answer.body()).first
                seen[who].append(await first_token_ms(*connection, raw, answer))
            await setup.upstream.times(answers)
    return seen


async def _scripts(setup: Setup, node: Role, who: str) -> float:
    """Return how many scripts Redis runs for a prompt to a model."""
    count = REQUESTS_QUICK if setup.is_quick else REQUESTS
    answers = [_answer(who) for _ in range(count)]
    async with connected(address(node)) as connection:
        before = _scripts_run(setup)
        for answer in answers:
            await first_token_ms(*connection, post("/v1/generations", answer.body()).first, answer)
        found = (_scripts_run(setup) - before) / count
    await setup.upstream.times(answers)
    return found


def _scripts_run(setup: Setup) -> int:
    stats: Any = setup.system.redis.info("commandstats")
    return sum(stats.get(name, {}).get("calls", 0) for name in SCRIPTS)


def _answer(who: str) -> Answer:
    found: Sequence[Answer] = new_answers(1, tokens=2, model=MODELS[who])
    return found[0]
