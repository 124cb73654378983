"""Readers that stop: what do they cost the others? The delay of a token, with and without them.

One log, written by the bench itself: a long history, and then a token at a time. Most readers
follow it from the end of the history. The stopped ones ask for all of it and read nothing; each is
cut after about a second, and others come in its place. Both runs alternate on one node, and the
ratio is taken within each repetition. Tokens of the first moments do not count: the node has the
history still to read then.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from bench.support.load import ENDS, get_events
from bench.support.load_process import Ask
from bench.support.stage import Stage, address, open_stage
from bench.support.table import MS, Contest, Row, percentile, show
from bench.support.writer import Writer
from tests.support.generation import Holder
from tests.support.processes import Role
from tests.support.raw_wire import stopped_connection

ALONE = "Tailrace, nobody stops"
BESIDE = "Tailrace, with readers that stop"
GOAL = 1.5  # of the largest delays; the median is not to move at all
SHARES = {"p50": 0.5, "p99": 0.99}
RETURN_S = 1.5  # a stopped reader has been cut by then, and another one comes


@dataclass(frozen=True, slots=True)
class Size:
    readers: int
    stopped: int
    history: int
    tokens: int
    per_s: float
    skipped: int  # the first tokens


FULL = Size(50, 5, 60_000, 500, 50, 150)
QUICK = Size(5, 1, 1_000, 20, 100, 5)


async def run(stage: Stage) -> list[Row]:
    size = QUICK if stage.is_quick else FULL
    work = f"{size.readers} readers of one log at {size.per_s:g} tokens/s, {size.stopped} more stop"
    contests = {name: Contest(f"{work}: {name}", "ms", ALONE, {BESIDE: GOAL}) for name in SHARES}
    cuts = Contest(f"{work}: readers cut", "")
    for n in stage.rounds():
        async with stage.node() as node, Writer(stage.system.server.url) as writer:
            # Who goes first takes turns, too: the second run meets a warmer node.
            for who in (ALONE, BESIDE) if n % 2 == 0 else (BESIDE, ALONE):
                before = await cuts_of(node)
                stopped = size.stopped if who == BESIDE else 0
                delays_ms = await _delays_ms(stage, node, writer, size, stopped)
                for name, share in SHARES.items():
                    contests[name].add(who, percentile(delays_ms, share))
                cuts.add(who, await cuts_of(node) - before)
    return [row for contest in (*contests.values(), cuts) for row in contest.rows()]


async def _delays_ms(
    stage: Stage, node: Role, writer: Writer, size: Size, stopped: int
) -> list[float]:
    """From the append of each token to each reader's read of it."""
    holder = await writer.begin()
    history = [f" past {n:06}" for n in range(size.history)]
    await writer.say(holder, history)
    last = f"{holder.attempt}-{holder.seq + size.history}"
    await stage.quiet()
    pieces = [f" now {n:06}" for n in range(size.tokens)]
    follow = _after(get_events("sse", holder.generation_id), last)
    async with _stopped(node, holder.generation_id, stopped):
        await stage.load.open(address(node), [follow] * size.readers, end=ENDS["sse"])
        await stage.load.opened()
        said = await _say_slowly(writer, holder, pieces, size)
        await writer.end(holder, said=size.history + size.tokens)
        await stage.load.over()
    readings = await stage.load.report("sse", [pieces], [0] * size.readers)
    return [
        (reading.times[n] - said[n]) * MS
        for reading in readings
        for n in range(size.skipped, size.tokens)
    ]


async def _say_slowly(
    writer: Writer, holder: Holder, pieces: list[str], size: Size
) -> array[float]:
    """Append one token after the other; return when each was."""
    said: array[float] = array("d")
    began = time.monotonic()
    for n, piece in enumerate(pieces):
        await asyncio.sleep(max(0.0, began + n / size.per_s - time.monotonic()))
        said.append(time.monotonic())
        await writer.say(holder, [piece], said=size.history + n)
    return said


@asynccontextmanager
async def _stopped(node: Role, generation_id: str, count: int) -> AsyncIterator[None]:
    """So many who ask for everything and read nothing, all the time."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_stop(node, generation_id)) for _ in range(count)]
        yield
        for task in tasks:
            task.cancel()


async def _stop(node: Role, generation_id: str) -> None:
    while True:
        async with stopped_connection(node.url) as (_, writer):
            writer.write(get_events("sse", generation_id).first)
            await asyncio.sleep(RETURN_S)


def _after(ask: Ask, cursor: str) -> Ask:
    head, end = ask.first[:-2], ask.first[-2:]
    return ask._replace(first=head + f"last-event-id: {cursor}\r\n".encode() + end)


async def cuts_of(node: Role) -> float:
    """How many readers the node has cut so far."""
    async with aiohttp.ClientSession() as http, http.get(f"{node.url}/metrics") as reply:
        lines = (await reply.text()).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("tailrace_hub_cuts"))


async def main() -> None:
    """Run it alone: `python -m bench.stalled_reader`."""
    async with open_stage(is_quick=False, repeats=5, patience_s=8.0) as stage:
        print(show(await run(stage)))


if __name__ == "__main__":
    asyncio.run(main())
