"""Measures what the timelines of generations cost: the first token, and the scripts of Redis.

Two systems of one Redis, one worker and one node each, alike but for `TAILRACE_TIMELINE`, with one
model server. Requests alternate on open connections. The scripts are counted for short answers and
for answers of many tokens: a token must cost none.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

from bench.first_token import connected, first_token_ms
from bench.support.answer import new_answers
from bench.support.load import post
from bench.support.setup import Setup, address
from bench.support.system import System
from bench.support.table import Comparison, Row, percentile
from tests.support.processes import Role

OFF, ON = "without timelines", "with timelines"
SETTINGS = {OFF: "off", ON: ""}
REQUESTS, REQUESTS_QUICK = 400, 5
COUNTED, COUNTED_QUICK = 60, 3
SHORT, LONG = 2, 200  # tokens of the answers whose scripts are counted
GOAL_MS = 0.1
SETTLE_S = 2.5  # for the moments of the last answer, which are written in the background
SCRIPTS = ("cmdstat_evalsha",)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    times = Comparison(
        "first token of a POST that streams, p50", "ms", goals={"added by timelines": GOAL_MS}
    )
    scripts = {
        tokens: Comparison(f"scripts of Redis for an answer of {tokens} tokens", "scripts")
        for tokens in (SHORT, LONG)
    }
    for _ in setup.rounds():
        await setup.quiet()
        async with AsyncExitStack() as stack:
            systems = {}
            for who, timeline in SETTINGS.items():
                system = System(setup.upstream.base_url, timeline=timeline)
                await stack.enter_async_context(system)
                systems[who] = system, await stack.enter_async_context(system.node())
            seen = await _measure(setup, {who: node for who, (_, node) in systems.items()})
            times.add(OFF, percentile(seen[OFF], 0.5))
            # Each difference is of two requests, one directly after the other. The difference
            # removes the load that both requests share; the median removes outliers.
            added = [on - off for on, off in zip(seen[ON], seen[OFF], strict=True)]
            times.add("added by timelines", percentile(added, 0.5))
            for tokens, comparison in scripts.items():
                for who, (system, node) in systems.items():
                    comparison.add(who, await _scripts(setup, system, node, tokens))
    return [*times.rows(), *(row for each in scripts.values() for row in each.rows())]


async def _measure(setup: Setup, nodes: dict[str, Role]) -> dict[str, list[float]]:
    """Return the milliseconds to each first token, with and without."""
    seen: dict[str, list[float]] = {who: [] for who in nodes}
    async with AsyncExitStack() as stack:
        connections = {
            who: await stack.enter_async_context(connected(address(node)))
            for who, node in nodes.items()
        }
        for _ in range(REQUESTS_QUICK if setup.is_quick else REQUESTS):
            answers = new_answers(len(nodes), tokens=2)
            pairs = list(zip(answers, connections.items(), strict=True))
            random.shuffle(pairs)  # the first request may warm caches for the second
            for answer, (who, connection) in pairs:
                raw = post("/v1/generations", answer.body()).first
                seen[who].append(await first_token_ms(*connection, raw, answer))
            await setup.upstream.times(answers)
    return seen


async def _scripts(setup: Setup, system: System, node: Role, tokens: int) -> float:
    """Return how many scripts Redis runs for an answer, without those that an idle system runs."""
    count = COUNTED_QUICK if setup.is_quick else COUNTED
    async with connected(address(node)) as connection:
        loop = asyncio.get_running_loop()
        began_s, before = loop.time(), _calls(system)
        for answer in new_answers(count, tokens=tokens):
            raw = post("/v1/generations", answer.body()).first
            await first_token_ms(*connection, raw, answer)
            await setup.upstream.times([answer])
        await asyncio.sleep(0.1 if setup.is_quick else SETTLE_S)
        took_s, after = loop.time() - began_s, _calls(system)
        await asyncio.sleep(took_s)
        idle = _calls(system) - after
    return (after - before - idle) / count


def _calls(system: System) -> float:
    stats: Any = system.redis.info("commandstats")
    return float(sum(stats.get(name, {}).get("calls", 0) for name in SCRIPTS))
