"""SSE, WebSocket, NDJSON and long poll side by side: which is the lightest, and by how much?

The same answers, the same number of readers, one transport after the other on fresh nodes: CPU of
the node, bytes on the wire in both directions, memory of a reader that is connected and idle, and
how late a token is. A long poll asks again for every reply, and gets what has come meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench import idle
from bench.support.answer import new_answers
from bench.support.load import KINDS
from bench.support.stage import Stage
from bench.support.table import Contest, Row, percentile
from bench.support.writer import Writer
from tests.support.processes import Role

NAMES = {"sse": "SSE", "ws": "WebSocket", "ndjson": "NDJSON", "poll": "long poll"}
BASE = NAMES["sse"]


@dataclass(frozen=True, slots=True)
class Size:
    readers: int
    idle: int
    per_s: int
    window_s: float
    first_s: float


FULL = Size(100, 500, 20, 6.0, 1.0)
QUICK = Size(5, 20, 50, 0.1, 0.1)


async def run(stage: Stage) -> list[Row]:
    size = QUICK if stage.is_quick else FULL
    work = f"1 generation at {size.per_s} tokens/s, {size.readers} readers of each transport"
    contests = {
        "cpu": Contest(f"{work}: CPU of the node per token", "µs", BASE),
        "down": Contest(f"{work}: bytes to the reader per token", "bytes", BASE),
        "up": Contest(f"{work}: bytes from the reader per token, its request too", "bytes"),
        "late": Contest(f"{work}: from the model's write to the reader, p50", "ms", BASE),
        "memory": Contest(f"{size.idle} idle readers: memory of the node for each", "kB", BASE),
    }
    for _ in stage.rounds():
        for kind in KINDS:
            async with stage.node() as node:
                await _memory(stage, node, kind, size, contests["memory"])
                await _stream(stage, node, kind, size, contests)
    return [row for contest in contests.values() for row in contest.rows()]


async def _memory(stage: Stage, node: Role, kind: str, size: Size, contest: Contest) -> None:
    """Before anything else on this node: it is the first that its readers cost it."""
    async with Writer(stage.system.server.url) as writer:
        holder = await writer.begin()
        contest.add(NAMES[kind], await idle.memory_kb(stage, node, kind, holder, size.idle))
        await writer.end(holder, said=0)


async def _stream(
    stage: Stage, node: Role, kind: str, size: Size, contests: dict[str, Contest]
) -> None:
    tokens = stage.tokens(size.per_s, size.window_s)
    answers = new_answers(1, tokens=tokens, per_s=size.per_s, first_s=size.first_s)
    play = await stage.play(node, answers, kind=kind, readers=size.readers, window_s=size.window_s)
    who, count = NAMES[kind], tokens * size.readers
    contests["cpu"].add(who, play.us_per_token("api"), joined=play.joined)
    contests["down"].add(who, sum(r.wire_bytes for r in play.readings) / count)
    contests["up"].add(who, sum(r.sent_bytes for r in play.readings) / count)
    contests["late"].add(who, percentile(play.latencies_ms(), 0.5))
