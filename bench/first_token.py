"""Measures the time to the first token of a streaming POST, compared with a direct request.

Requests alternate on open connections: one directly to the model server, one through Tailrace. The
model produces its first token at once, so the difference is the time that Tailrace adds. Measured
unloaded, and while many other answers stream through the same node, worker and model.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.support.answer import Answer, new_answers
from bench.support.load import ENDS, Address, post
from bench.support.setup import Setup, address
from bench.support.table import MS, Comparison, Row, percentile
from tests.support.processes import Role

DIRECT = "the model server, asked directly"
OURS = "added by Tailrace"
GOALS_MS = {"unloaded": (2.0, 10.0), "loaded": (4.0, 25.0)}  # p50, p99
FIRST_TEXT = (b'"content":"', b'"text":"')


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a run.

    Attributes:
        requests: number of first tokens that are measured.
        streams: other generations in the loaded run; each has `per_s` tokens per second.
    """

    requests: int
    streams: int
    per_s: int
    first_s: float


FULL = Size(400, 100, 20, 2.0)
QUICK = Size(5, 5, 20, 0.1)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = QUICK if setup.is_quick else FULL
    works = {
        "unloaded": "first token of a POST that streams",
        "loaded": f"the same beside {size.streams} generations at {size.per_s} tokens/s",
    }
    comparisons = {
        (name, share): Comparison(
            f"{work}: p{share}", "ms", goals={OURS: GOALS_MS[name][share == 99]}
        )
        for name, work in works.items()
        for share in (50, 99)
    }
    for _ in setup.rounds():
        async with setup.node() as node:
            await setup.quiet()
            _add(comparisons, "unloaded", await _compare(setup, node, size))
            await setup.quiet()
            async with _streams(setup, node, size):
                _add(comparisons, "loaded", await _compare(setup, node, size))
    return [row for comparison in comparisons.values() for row in comparison.rows()]


def _add(
    comparisons: dict[tuple[str, int], Comparison], name: str, seen: tuple[list[float], list[float]]
) -> None:
    direct, through = seen
    for share in (50, 99):
        alone = percentile(direct, share / 100)
        comparisons[name, share].add(DIRECT, alone)
        comparisons[name, share].add(OURS, percentile(through, share / 100) - alone)


async def _compare(setup: Setup, node: Role, size: Size) -> tuple[list[float], list[float]]:
    """Return milliseconds to the first token: direct requests, requests through Tailrace."""
    direct, through = [], []
    async with connected(("127.0.0.1", setup.upstream.port)) as model:
        async with connected(address(node)) as ours:
            for _ in range(size.requests):
                answer, again = new_answers(2, tokens=2)
                raw = post("/v1/chat/completions", answer.chat_body()).first
                direct.append(await first_token_ms(*model, raw, answer))
                raw = post("/v1/generations", again.body()).first
                through.append(await first_token_ms(*ours, raw, again))
                await setup.upstream.times([answer, again])
    return direct, through


async def first_token_ms(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, raw: bytes, answer: Answer
) -> float:
    """Send a request and read the whole answer; return the milliseconds to its first token.

    Raises:
        AssertionError: the text is not the expected one.
    """
    began_s, at_s = time.monotonic(), 0.0
    writer.write(raw)
    got = b""
    while ENDS["sse"] not in got:
        data = await reader.read(65_536)
        assert data, f"the connection was closed: {got[-200:]!r}"
        got += data
        if not at_s and any(answer.token(0).encode() in got and mark in got for mark in FIRST_TEXT):
            at_s = time.monotonic()
    texts = [got.find(answer.token(n).encode()) for n in range(answer.tokens)]
    assert min(texts) > 0 and texts == sorted(texts), got[-500:]
    return (at_s - began_s) * MS


@asynccontextmanager
async def connected(
    server: Address,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*server)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def _streams(setup: Setup, node: Role, size: Size) -> AsyncIterator[None]:
    """Keep other answers streaming until the context ends; then cancel them."""
    answers = new_answers(size.streams, tokens=100_000, per_s=size.per_s, first_s=0.05)
    requests = [post("/v1/generations", answer.body()) for answer in answers]
    await setup.load.open(address(node), requests, end=ENDS["sse"])
    await setup.load.opened()
    await asyncio.sleep(setup.settle_s)
    try:
        yield
    finally:
        await setup.system.cancel_all(node)
        await setup.load.over()
        await setup.load.close()
        await setup.upstream.times(answers)
