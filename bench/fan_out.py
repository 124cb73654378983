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
from bench.support.stage import Stage
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


async def run(stage: Stage) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = QUICK if stage.is_quick else FULL
    comparisons = {kind: _comparison(kind, size) for kind in OURS}
    followers = replace(size, readers=max(1, size.readers // 3))  # with more it falls behind
    delays = Comparison(
        f"{_work(size)}: from the model's write to a reader",
        "ms",
        goals={"Tailrace, SSE, p50": MEDIAN_MS_MAX},
    )
    for n in stage.rounds():
        for kind, comparison in comparisons.items():
            comparison.add(BASE, await bare(stage, kind, size))
            async with stage.node() as node:
                await ours(stage, node, kind, size, comparison, delays)
        if not why_missing():
            comparisons["sse"].add(NCHAN, await by_nchan(stage, size))
        if n == 0:  # only once: these runs take long, and the results are far apart
            if not resumable.why_missing():
                us = await resumable.unless_lost(stage, by_resumable(stage, followers))
                if us is not None:
                    comparisons["sse"].add(RESUMABLE, us)
            comparisons["sse"].add(naive.WHO, await by_naive(stage, size))
    return [row for comparison in (*comparisons.values(), delays) for row in comparison.rows()]


def _work(size: Size) -> str:
    return f"1 generation at {size.per_s} tokens/s, {size.readers} readers"


def _comparison(kind: str, size: Size) -> Comparison:
    name = {"sse": "SSE", "ndjson": "NDJSON", "ws": "WebSocket"}[kind]
    work = f"{_work(size)} over {name}: CPU of the node per token delivered"
    return Comparison(work, "µs/token", base=BASE, goals={OURS[kind]: GOALS[kind]})


async def bare(stage: Stage, kind: str, size: Size) -> float:
    """Send the frames of Tailrace to each socket in turn; return µs per delivered token."""
    await stage.quiet()
    pieces = _answer(stage, size).pieces()
    requests = [get(f"/{n}") for n in range(size.readers)]
    await stage.load.open(stage.bare.address, requests, end=LAST_CHUNK)
    await stage.bare.call("accept", size.readers)
    await stage.load.opened()
    async with asyncio.TaskGroup() as group:
        group.create_task(stage.bare.call("fan_out", frames_of(kind, pieces), float(size.per_s)))
        begin_s = time.monotonic() + stage.settle_s
        window = await stage.watch({"bare": stage.bare.pid}, begin_s, size.window_s)
    await stage.load.over()
    readings = await stage.load.report(kind, [pieces], [0] * size.readers)
    await stage.bare.call("close")
    return US * window.cpu_s["bare"] / window.tokens(readings)


async def ours(
    stage: Stage, node: Role, kind: str, size: Size, comparison: Comparison, delays: Comparison
) -> None:
    """Measure Tailrace: CPU per delivered token, and for SSE also the delays."""
    answers = [_answer(stage, size)]
    play = await stage.play(node, answers, kind=kind, readers=size.readers, window_s=size.window_s)
    comparison.add(OURS[kind], play.us_per_token("api"), joined=play.joined)
    if kind == "sse":
        latencies = play.latencies_ms()
        for share in (0.5, 0.99):
            delays.add(f"{OURS[kind]}, p{share * 100:.0f}", percentile(latencies, share))


async def by_nchan(stage: Stage, size: Size) -> float:
    """Publish the same tokens to nchan at the same pace; return µs of the readers' server."""
    await stage.quiet()
    answer = _answer(stage, size)
    async with Nchan(stage.system.server.port) as nchan:
        channel = f"fan{answer.number}"
        requests = [get(f"/read/{channel}")] * size.readers
        await stage.load.open(nchan.address, requests, end=END)
        await stage.load.opened()
        pieces = answer.pieces()

        async def say() -> None:
            began = time.monotonic()
            for n, piece in enumerate(pieces):
                await asyncio.sleep(began + n / size.per_s - time.monotonic())
                await nchan.say(channel, b'{"text":"%b"}' % piece.encode())
            await nchan.say(channel, END)

        async with asyncio.TaskGroup() as group:
            group.create_task(say())
            begin_s = time.monotonic() + stage.settle_s
            window = await stage.watch({"nchan": nchan.pid}, begin_s, size.window_s)
        await stage.load.over()
        readings = await stage.load.report("sse", [pieces], [0] * size.readers)
    return US * window.cpu_s["nchan"] / window.tokens(readings)


async def by_resumable(stage: Stage, size: Size) -> float:
    """Produce the same tokens with resumable-stream at the same pace; return µs of its process."""
    await stage.quiet()
    answer = _answer(stage, size)
    pieces, name = answer.pieces(), f"fan{answer.number}"
    async with Resumable(stage.system.server.url) as app:
        await app.say(name, pieces, per_s=size.per_s, first_s=size.first_s)
        begin_s = time.monotonic() + size.first_s + stage.settle_s
        await stage.load.open(app.address, [get(f"/read/{name}")] * size.readers, end=ENDS["sse"])
        window = await stage.watch({"app": app.pid}, begin_s, size.window_s)
        await stage.load.over(180)
        readings = await stage.load.report("sse", [pieces], [0] * size.readers)
    return US * window.cpu_s["app"] / window.tokens(readings)


async def by_naive(stage: Stage, size: Size) -> float:
    """Read the same log with the naive app; return µs. Waits for the app if it falls behind."""
    await stage.quiet()
    answer = _answer(stage, size)
    async with (
        stage.naive() as app,
        stage.node() as node,
    ):
        (generation_id,) = await stage.system.start(node, [answer])
        requests = [get_events("sse", generation_id)] * size.readers
        begin_s = time.monotonic() + size.first_s + stage.settle_s
        await stage.load.open(app.address, requests, end=ENDS["sse"])
        window = await stage.watch({"naive": app.pid}, begin_s, size.window_s)
        await stage.load.over(180)
        readings = await stage.load.report("sse", [answer.pieces()], [0] * size.readers)
    return US * window.cpu_s["naive"] / window.tokens(readings)


def _answer(stage: Stage, size: Size) -> Answer:
    tokens = stage.tokens(size.per_s, size.window_s)
    (answer,) = new_answers(1, tokens=tokens, per_s=size.per_s, first_s=size.first_s)
    return answer
