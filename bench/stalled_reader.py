"""Measures what stalled readers cost the others: the delay of a token, with and without them.

The benchmark writes one log: a long history, and then one token at a time. Most readers follow from
the end of the history. The stalled readers request everything and read nothing; the node cuts each
after about a second, and a new one connects. Both runs use the same node, and the ratio is computed
within each repetition. The first tokens do not count, because the node still reads the history.
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
from bench.support.load_process import ReaderRequest
from bench.support.setup import Setup, address, open_setup
from bench.support.table import MS, Comparison, Row, percentile, show
from bench.support.writer import Writer
from tests.support.generation import Holder
from tests.support.processes import Role
from tests.support.raw_wire import stopped_connection

ALONE = "Tailrace, nobody stops"
BESIDE = "Tailrace, with readers that stop"
GOAL = 1.5  # ratio of the delays; the median should not change at all
SHARES = {"p50": 0.5, "p99": 0.99}
RETURN_S = 1.5  # by then the node has cut a stalled reader: connect a new one


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a run.

    Attributes:
        stopped: readers that read nothing.
        history: tokens in the log before the measurement.
    """

    readers: int
    stopped: int
    history: int
    tokens: int
    per_s: float
    skipped: int  # first tokens that do not count


FULL = Size(50, 5, 60_000, 500, 50, 150)
QUICK = Size(5, 1, 1_000, 20, 100, 5)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = QUICK if setup.is_quick else FULL
    work = f"{size.readers} readers of one log at {size.per_s:g} tokens/s, {size.stopped} more stop"
    comparisons = {
        name: Comparison(f"{work}: {name}", "ms", ALONE, {BESIDE: GOAL}) for name in SHARES
    }
    cuts = Comparison(f"{work}: readers cut", "")
    for n in setup.rounds():
        async with setup.node() as node, Writer(setup.system.server.url) as writer:
            # The order alternates, because the second run has a warmer node.
            for who in (ALONE, BESIDE) if n % 2 == 0 else (BESIDE, ALONE):
                before = await cuts_of(node)
                stopped = size.stopped if who == BESIDE else 0
                delays_ms = await _delays_ms(setup, node, writer, size, stopped)
                for name, share in SHARES.items():
                    comparisons[name].add(who, percentile(delays_ms, share))
                cuts.add(who, await cuts_of(node) - before)
    return [row for comparison in (*comparisons.values(), cuts) for row in comparison.rows()]


async def _delays_ms(
    setup: Setup, node: Role, writer: Writer, size: Size, stopped: int
) -> list[float]:
    """Return the delays from the append of each token to each reader's read."""
    holder = await writer.begin()
    history = [f" past {n:06}" for n in range(size.history)]
    await writer.say(holder, history)
    last = f"{holder.attempt}-{holder.seq + size.history}"
    await setup.quiet()
    pieces = [f" now {n:06}" for n in range(size.tokens)]
    follow = _after(get_events("sse", holder.generation_id), last)
    async with _stopped(node, holder.generation_id, stopped):
        await setup.load.open(address(node), [follow] * size.readers, end=ENDS["sse"])
        await setup.load.opened()
        appended_at = await _say_slowly(writer, holder, pieces, size)
        await writer.end(holder, tokens_before=size.history + size.tokens)
        await setup.load.over()
    readings = await setup.load.report("sse", [pieces], [0] * size.readers)
    return [
        (reading.times[n] - appended_at[n]) * MS
        for reading in readings
        for n in range(size.skipped, size.tokens)
    ]


async def _say_slowly(
    writer: Writer, holder: Holder, pieces: list[str], size: Size
) -> array[float]:
    """Append one token at a time; return when each was appended."""
    appended_at: array[float] = array("d")
    began = time.monotonic()
    for n, piece in enumerate(pieces):
        await asyncio.sleep(max(0.0, began + n / size.per_s - time.monotonic()))
        appended_at.append(time.monotonic())
        await writer.say(holder, [piece], tokens_before=size.history + n)
    return appended_at


@asynccontextmanager
async def _stopped(node: Role, generation_id: str, count: int) -> AsyncIterator[None]:
    """Keep `count` readers connected that request everything and read nothing."""
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


def _after(request: ReaderRequest, cursor: str) -> ReaderRequest:
    head, end = request.first[:-2], request.first[-2:]
    return request._replace(first=head + f"last-event-id: {cursor}\r\n".encode() + end)


async def cuts_of(node: Role) -> float:
    """Return how many readers the node has cut so far."""
    async with aiohttp.ClientSession() as http, http.get(f"{node.url}/metrics") as reply:
        lines = (await reply.text()).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("tailrace_hub_cuts"))


async def main() -> None:
    """Run this benchmark alone: `python -m bench.stalled_reader`."""
    async with open_setup(is_quick=False, repeats=5, patience_s=8.0) as setup:
        print(show(await run(setup)))


if __name__ == "__main__":
    asyncio.run(main())
