"""Measures a burst: many tokens at once to many readers, in tokens per CPU second of the node.

Joining matters here: entries that wait for a socket leave as one write. The benchmark writes the
log itself, one entry for each token, so nothing is joined before the node. A second run sends the
same burst through a real worker.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench.support.answer import Answer, new_answers
from bench.support.bare import LAST_CHUNK, frames_of
from bench.support.cpu import cpu_s
from bench.support.load import ENDS, get, get_events
from bench.support.nchan import END, Nchan, why_missing
from bench.support.nchan import WHO as NCHAN
from bench.support.setup import Setup, address, joined
from bench.support.table import Comparison, Row
from bench.support.wire import ReaderResult
from bench.support.writer import Writer

BARE = "bare send() loop"
OURS = "Tailrace, SSE"
WITH_WORKER = "Tailrace, SSE, through a worker"
GOAL = 30.0


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a run."""

    readers: int
    tokens: int
    first_s: float  # pause before the first token, in which readers connect; only with a worker


FULL = Size(500, 2_000, 2.5)
QUICK = Size(10, 200, 0.15)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = QUICK if setup.is_quick else FULL
    work = f"burst of {size.tokens:,} tokens to {size.readers} readers"
    rate = Comparison(
        f"{work}: tokens delivered per CPU second of the node", "/s", NCHAN, {OURS: GOAL}, True
    )
    took = Comparison(f"{work}: until the last reader has all of it", "s")
    for _ in setup.rounds():
        if not why_missing():
            await _nchan(setup, size, rate, took)
        await _bare(setup, size, rate, took)
        await _ours(setup, size, rate, took)
        await _with_worker(setup, size, rate, took)
    return [*rate.rows(), *took.rows()]


@dataclass(slots=True)
class _Run:
    """One run, from the first token until all readers have the end; measures one process."""

    setup: Setup
    who: str
    pid: int
    rate: Comparison
    took: Comparison
    answer: Answer
    readers: int
    began_s: float = 0.0
    spent_s: float = 0.0

    def begin(self) -> None:
        """Note the time and the CPU at the first token."""
        self.began_s, self.spent_s = time.monotonic(), cpu_s(self.pid)

    async def end(self, *, is_joined: bool = False) -> None:
        """Wait until all readers have the end; add the results."""
        await self.setup.load.over(120)
        spent_s = cpu_s(self.pid) - self.spent_s
        pieces = self.answer.pieces()
        readings: list[ReaderResult] = await self.setup.load.report(
            "sse", [pieces], [0] * self.readers
        )
        together = joined(readings) if is_joined else 0.0
        self.rate.add(self.who, self.readers * len(pieces) / spent_s, joined=together)
        self.took.add(self.who, max(r.times[-1] for r in readings) - self.began_s)


async def _bare(setup: Setup, size: Size, rate: Comparison, took: Comparison) -> None:
    await setup.quiet()
    (answer,) = new_answers(1, tokens=size.tokens)
    requests = [get(f"/{n}") for n in range(size.readers)]
    await setup.load.open(setup.bare.address, requests, end=LAST_CHUNK)
    await setup.bare.call("accept", size.readers)
    await setup.load.opened()
    run = _Run(setup, BARE, setup.bare.pid, rate, took, answer, size.readers)
    frames = frames_of("sse", answer.pieces())
    run.begin()
    await setup.bare.call("fan_out", frames, 0.0)
    await run.end()
    await setup.bare.call("close")


async def _ours(setup: Setup, size: Size, rate: Comparison, took: Comparison) -> None:
    await setup.quiet()
    (answer,) = new_answers(1, tokens=size.tokens)
    async with setup.node() as node, Writer(setup.system.server.url) as writer:
        holder = await writer.begin()
        requests = [get_events("sse", holder.generation_id)] * size.readers
        await setup.load.open(address(node), requests, end=ENDS["sse"])
        await setup.load.opened()
        run = _Run(setup, OURS, node.pid, rate, took, answer, size.readers)
        run.begin()
        await writer.say(holder, answer.pieces())
        await writer.end(holder, tokens_before=size.tokens)
        await run.end(is_joined=True)


async def _with_worker(setup: Setup, size: Size, rate: Comparison, took: Comparison) -> None:
    await setup.quiet()
    (answer,) = new_answers(1, tokens=size.tokens, first_s=size.first_s)
    async with setup.node() as node:
        (generation_id,) = await setup.system.start(node, [answer])
        requests = [get_events("sse", generation_id)] * size.readers
        await setup.load.open(address(node), requests, end=ENDS["sse"])
        await setup.load.opened()
        run = _Run(setup, WITH_WORKER, node.pid, rate, took, answer, size.readers)
        run.begin()
        await setup.load.over(120)
        run.began_s = (await setup.upstream.times([answer]))[0][0]
        await run.end(is_joined=True)


async def _nchan(setup: Setup, size: Size, rate: Comparison, took: Comparison) -> None:
    await setup.quiet()
    (answer,) = new_answers(1, tokens=size.tokens)
    async with Nchan(setup.system.server.port) as nchan:
        channel = f"burst{answer.number}"
        requests = [get(f"/read/{channel}")] * size.readers
        await setup.load.open(nchan.address, requests, end=END)
        await setup.load.opened()
        run = _Run(setup, NCHAN, nchan.pid, rate, took, answer, size.readers)
        run.begin()
        for piece in answer.pieces():
            await nchan.say(channel, b'{"text":"%b"}' % piece.encode())
        await nchan.say(channel, END)
        await run.end()
