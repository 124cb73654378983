"""Measures how much later the first token of a streaming POST comes with credentials and limits.

Requests alternate on open connections to three nodes with one worker and one model server: a node
without credentials, a node with a key, and a node with a key whose owner has every limit. The
limits are never reached, so each prompt is counted and none is refused.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from bench.first_token import connected, first_token_ms
from bench.support.answer import new_answers
from bench.support.load import post
from bench.support.setup import Setup, address
from bench.support.table import Comparison, Row, percentile

PLAIN = "without credentials"
KEY = "key-of-the-bench-0123456789"
MANY = str(2**39)
NODES: dict[str, dict[str, str]] = {
    PLAIN: {},
    "added by a key": {"api_keys": f"{KEY}:alice"},
    "added by a key and every limit": {
        "api_keys": f"{KEY}:alice",
        "owner_active_max": MANY,
        "owner_connections_max": MANY,
        "owner_prompts_per_min": MANY,
        "owner_tokens_per_min": MANY,
        "owner_tokens_per_day": MANY,
    },
}
REQUESTS, REQUESTS_QUICK = 400, 5
GOAL_MS = 0.15


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    times = Comparison(
        "first token of a POST that streams, p50", "ms",
        goals=dict.fromkeys(list(NODES)[1:], GOAL_MS),
    )  # fmt: skip
    for _ in setup.rounds():
        await setup.quiet()
        seen = await _measure(setup)
        base = percentile(seen[PLAIN], 0.5)
        for who, values in seen.items():
            times.add(who, percentile(values, 0.5) - (0.0 if who == PLAIN else base))
    return times.rows()


async def _measure(setup: Setup) -> dict[str, list[float]]:
    """Return the milliseconds to each first token, by node."""
    seen: dict[str, list[float]] = {who: [] for who in NODES}
    async with AsyncExitStack() as stack:
        connections = {}
        for who, settings in NODES.items():
            node = await stack.enter_async_context(setup.node(is_fresh=True, **settings))
            connections[who] = await stack.enter_async_context(connected(address(node)))
        for _ in range(REQUESTS_QUICK if setup.is_quick else REQUESTS):
            answers = new_answers(len(NODES), tokens=2)
            for answer, (who, connection) in zip(answers, connections.items(), strict=True):
                raw = _with_key(post("/v1/generations", answer.body()).first)
                seen[who].append(await first_token_ms(*connection, raw, answer))
            await setup.upstream.times(answers)
    return seen


def _with_key(raw: bytes) -> bytes:
    credentials = f"\r\nauthorization: Bearer {KEY}\r\naccept:".encode()
    return raw.replace(b"\r\naccept:", credentials, 1)
