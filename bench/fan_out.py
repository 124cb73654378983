"""Measures fan-out: the CPU of a node per delivered token, for one generation with many readers.

The model server produces tokens at a steady pace; they pass through the real worker and Redis. The
readers are sockets in another process. The same repetition also measures the bare loop, nginx with
nchan and Redis, resumable-stream, and a typical self-written app.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

from bench.support import naive, resumable
from bench.support.answer import Answer, new_answers
from bench.support.bare import LAST_CHUNK, frames_of
from bench.support.load import ENDS, get, get_events
from bench.support.nchan import END, Nchan, why_missing
from bench.support.nchan import WHO as NCHAN
from bench.support.resumable import Resumable
from bench.support.setup import Setup
from bench.support.table import US, Comparison, Row, percentile
from tests.support.processes import Role

BASE = "bare send() loop"
OURS = {"sse": "Tailrace, SSE", "ndjson": "Tailrace, NDJSON", "ws": "Tailrace, WebSocket"}
GOALS = {"sse": 1.2, "ndjson": 1.4, "ws": 1.4}
MEDIAN_MS_MAX = 40.0
RESUMABLE = f"{resumable.WHO}, a third of them"


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a run."""

    readers: int
    per_s: int
    window_s: float
    first_s: float  # pause before the first token, in which readers connect


FULL = Size(900, 50, 6.0, 2.5)
QUICK = Size(10, 50, 0.1, 0.15)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = QUICK if setup.is_quick else FULL
    comparisons = {kind: _comparison(kind, size) for kind in OURS}
    followers = replace(size, readers=max(1, size.readers // 3))  # with more it falls behind
    delays = Comparison(
        f"{_work(size)}: from the model's write to a reader",
        "ms",
        goals={"Tailrace, SSE, p50": MEDIAN_MS_MAX},
    )
    for n in setup.rounds():
        for kind, comparison in comparisons.items():
            comparison.add(BASE, await bare(setup, kind, size))
            async with setup.node() as node:
                await ours(setup, node, kind, size, comparison, delays)
        if not why_missing():
            comparisons["sse"].add(NCHAN, await by_nchan(setup, size))
        if n == 0:  # only once: these runs take long, and the results are far apart
            if not resumable.why_missing():
                us = await resumable.unless_lost(setup, by_resumable(setup, followers))
                if us is not None:
                    comparisons["sse"].add(RESUMABLE, us)
            comparisons["sse"].add(naive.WHO, await by_naive(setup, size))
    return [row for comparison in (*comparisons.values(), delays) for row in comparison.rows()]


def _work(size: Size) -> str:
    return f"1 generation at {size.per_s} tokens/s, {size.readers} readers"


def _comparison(kind: str, size: Size) -> Comparison:
    name = {"sse": "SSE", "ndjson": "NDJSON", "ws": "WebSocket"}[kind]
    work = f"{_work(size)} over {name}: CPU of the node per token delivered"
    return Comparison(work, "µs/token", base=BASE, goals={OURS[kind]: GOALS[kind]})


async def bare(setup: Setup, kind: str, size: Size) -> float:
    """Send the frames of Tailrace to each socket in turn; return µs per delivered token."""
    await setup.quiet()
    pieces = _answer(setup, size).pieces()
    requests = [get(f"/{n}") for n in range(size.readers)]
    await setup.load.open(setup.bare.address, requests, end=LAST_CHUNK)
    await setup.bare.call("accept", size.readers)
    await setup.load.opened()
    async with asyncio.TaskGroup() as group:
        group.create_task(setup.bare.call("fan_out", frames_of(kind, pieces), float(size.per_s)))
        begin_s = time.monotonic() + setup.settle_s
        window = await setup.watch({"bare": setup.bare.pid}, begin_s, size.window_s)
    await setup.load.over()
    readings = await setup.load.report(kind, [pieces], [0] * size.readers)
    await setup.bare.call("close")
    return US * window.cpu_s["bare"] / window.tokens(readings)


async def ours(
    setup: Setup,
    node: Role,
    kind: str,
    size: Size,
    comparison: Comparison,
    delays: Comparison,
) -> None:
    """Measure Tailrace: CPU per delivered token, and for SSE also the delays."""
    answers = [_answer(setup, size)]
    measured_run = await setup.measured_run(
        node, answers, kind=kind, readers=size.readers, window_s=size.window_s
    )
    comparison.add(OURS[kind], measured_run.us_per_token("api"), joined=measured_run.joined)
    if kind == "sse":
        latencies = measured_run.latencies_ms()
        for share in (0.5, 0.99):
            delays.add(f"{OURS[kind]}, p{share * 100:.0f}", percentile(latencies, share))


async def by_nchan(setup: Setup, size: Size) -> float:
    """Publish the same tokens to nchan at the same pace; return µs of the readers' server."""
    await setup.quiet()
    answer = _answer(setup, size)
    async with Nchan(setup.system.server.port) as nchan:
        channel = f"fan{answer.number}"
        requests = [get(f"/read/{channel}")] * size.readers
        await setup.load.open(nchan.address, requests, end=END)
        await setup.load.opened()
        pieces = answer.pieces()

        async def say() -> None:
            began = time.monotonic()
            for n, piece in enumerate(pieces):
                await asyncio.sleep(began + n / size.per_s - time.monotonic())
                await nchan.say(channel, b'{"text":"%b"}' % piece.encode())
            await nchan.say(channel, END)

        async with asyncio.TaskGroup() as group:
            group.create_task(say())
            begin_s = time.monotonic() + setup.settle_s
            window = await setup.watch({"nchan": nchan.pid}, begin_s, size.window_s)
        await setup.load.over()
        readings = await setup.load.report("sse", [pieces], [0] * size.readers)
    return US * window.cpu_s["nchan"] / window.tokens(readings)


async def by_resumable(setup: Setup, size: Size) -> float:
    """Produce the same tokens with resumable-stream at the same pace; return µs of its process."""
    await setup.quiet()
    answer = _answer(setup, size)
    pieces, name = answer.pieces(), f"fan{answer.number}"
    async with Resumable(setup.system.server.url) as app:
        await app.say(name, pieces, per_s=size.per_s, first_s=size.first_s)
        begin_s = time.monotonic() + size.first_s + setup.settle_s
        await setup.load.open(app.address, [get(f"/read/{name}")] * size.readers, end=ENDS["sse"])
        window = await setup.watch({"app": app.pid}, begin_s, size.window_s)
        await setup.load.over(180)
        readings = await setup.load.report("sse", [pieces], [0] * size.readers)
    return US * window.cpu_s["app"] / window.tokens(readings)


async def by_naive(setup: Setup, size: Size) -> float:
    """Read the same log with the naive app; return µs. Waits for the app if it falls behind."""
    await setup.quiet()
    answer = _answer(setup, size)
    async with (
        setup.naive() as app,
        setup.node() as node,
    ):
        (generation_id,) = await setup.system.start(node, [answer])
        requests = [get_events("sse", generation_id)] * size.readers
        begin_s = time.monotonic() + size.first_s + setup.settle_s
        await setup.load.open(app.address, requests, end=ENDS["sse"])
        window = await setup.watch({"naive": app.pid}, begin_s, size.window_s)
        await setup.load.over(180)
        readings = await setup.load.report("sse", [answer.pieces()], [0] * size.readers)
    return US * window.cpu_s["naive"] / window.tokens(readings)


def _answer(setup: Setup, size: Size) -> Answer:
    tokens = setup.tokens(size.per_s, size.window_s)
    (answer,) = new_answers(1, tokens=tokens, per_s=size.per_s, first_s=size.first_s)
    return answer
