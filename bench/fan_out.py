"""One generation, many readers: what does a node spend on each token that it delivers?

Tokens come at a steady pace from the model server through the real worker and Redis; readers are
sockets in another process. Beside it, in the same repetition: the bare loop, nginx with nchan and
Redis, resumable-stream, and the app that most people write.
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
from bench.support.table import US, Contest, Row, percentile
from tests.support.processes import Role

BASE = "bare send() loop"
OURS = {"sse": "Tailrace, SSE", "ndjson": "Tailrace, NDJSON", "ws": "Tailrace, WebSocket"}
GOALS = {"sse": 1.2, "ndjson": 1.4, "ws": 1.4}
MEDIAN_MS_MAX = 40.0
RESUMABLE = f"{resumable.WHO}, a third of them"


@dataclass(frozen=True, slots=True)
class Size:
    readers: int
    per_s: int
    window_s: float
    first_s: float  # readers connect before the first token


FULL = Size(900, 50, 6.0, 2.5)
QUICK = Size(10, 50, 0.1, 0.15)


async def run(stage: Stage) -> list[Row]:
    size = QUICK if stage.is_quick else FULL
    contests = {kind: _contest(kind, size) for kind in OURS}
    followers = replace(size, readers=max(1, size.readers // 3))  # more, and it falls behind
    delays = Contest(
        f"{_work(size)}: from the model's write to a reader",
        "ms",
        goals={"Tailrace, SSE, p50": MEDIAN_MS_MAX},
    )
    for n in stage.rounds():
        for kind, contest in contests.items():
            contest.add(BASE, await bare(stage, kind, size))
            async with stage.node() as node:
                await ours(stage, node, kind, size, contest, delays)
        if not why_missing():
            contests["sse"].add(NCHAN, await by_nchan(stage, size))
        if n == 0:  # it takes its time, and nothing is close to it
            if not resumable.why_missing():
                us = await resumable.unless_lost(stage, by_resumable(stage, followers))
                if us is not None:
                    contests["sse"].add(RESUMABLE, us)
            contests["sse"].add(naive.WHO, await by_naive(stage, size))
    return [row for contest in (*contests.values(), delays) for row in contest.rows()]


def _work(size: Size) -> str:
    return f"1 generation at {size.per_s} tokens/s, {size.readers} readers"


def _contest(kind: str, size: Size) -> Contest:
    name = {"sse": "SSE", "ndjson": "NDJSON", "ws": "WebSocket"}[kind]
    work = f"{_work(size)} over {name}: CPU of the node per token delivered"
    return Contest(work, "µs/token", base=BASE, goals={OURS[kind]: GOALS[kind]})


async def bare(stage: Stage, kind: str, size: Size) -> float:
    """The frames of Tailrace, sent to each socket in turn; µs per token delivered."""
    await stage.quiet()
    pieces = _answer(stage, size).pieces()
    asks = [get(f"/{n}") for n in range(size.readers)]
    await stage.load.open(stage.bare.address, asks, end=LAST_CHUNK)
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
    stage: Stage, node: Role, kind: str, size: Size, contest: Contest, delays: Contest
) -> None:
    answers = [_answer(stage, size)]
    play = await stage.play(node, answers, kind=kind, readers=size.readers, window_s=size.window_s)
    contest.add(OURS[kind], play.us_per_token("api"), joined=play.joined)
    if kind == "sse":
        latencies = play.latencies_ms()
        for share in (0.5, 0.99):
            delays.add(f"{OURS[kind]}, p{share * 100:.0f}", percentile(latencies, share))


async def by_nchan(stage: Stage, size: Size) -> float:
    """The same tokens, published to nchan at the same pace; µs of the worker with the readers."""
    await stage.quiet()
    answer = _answer(stage, size)
    async with Nchan(stage.system.server.port) as nchan:
        channel = f"fan{answer.number}"
        asks = [get(f"/read/{channel}")] * size.readers
        await stage.load.open(nchan.address, asks, end=END)
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
    """The same tokens, said by its producer at the same pace; µs of producer and readers' ends."""
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
    """The same log, read by the naive app; it may fall behind, and is waited for."""
    await stage.quiet()
    answer = _answer(stage, size)
    async with (
        stage.naive() as app,
        stage.node() as node,
    ):
        (generation_id,) = await stage.system.start(node, [answer])
        asks = [get_events("sse", generation_id)] * size.readers
        begin_s = time.monotonic() + size.first_s + stage.settle_s
        await stage.load.open(app.address, asks, end=ENDS["sse"])
        window = await stage.watch({"naive": app.pid}, begin_s, size.window_s)
        await stage.load.over(180)
        readings = await stage.load.report("sse", [answer.pieces()], [0] * size.readers)
    return US * window.cpu_s["naive"] / window.tokens(readings)


def _answer(stage: Stage, size: Size) -> Answer:
    tokens = stage.tokens(size.per_s, size.window_s)
    (answer,) = new_answers(1, tokens=tokens, per_s=size.per_s, first_s=size.first_s)
    return answer
