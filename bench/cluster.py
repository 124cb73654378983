"""Measures what a Redis Cluster costs and carries, beside one server: Redis's CPU, the first token.

Measured on one server and on clusters of one, two and three masters, in three ways:

* The bench appends as a busy worker does, `AT_ONCE` generations in each round, one token each, as
  fast as Redis takes them; a live connection receives every frame. Nothing joins tokens, so this is
  the cost of a token, however busy the machine is.
* Generations pass through a real worker and node to one reader each.
* Prompts find an idle worker, one after the other.

This machine has too few cores to fill several masters at once. So the bench measures the CPU of
each master per token of all, and computes from the busiest one how many tokens the cluster carries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.first_token import connected, first_token_ms
from bench.support.answer import new_answers
from bench.support.appends import append_all
from bench.support.cluster_system import ClusterSystem
from bench.support.load import post
from bench.support.setup import MeasuredRun, Setup, address
from bench.support.system import System
from bench.support.table import US, Comparison, Row, percentile
from shared.log.ids import new_generation_id
from shared.redis import keys
from shared.redis.cluster.slots import SLOTS, key_slot
from tests.support.processes import Role

MASTERS = (0, 1, 2, 3)  # 0: one server, not in cluster mode
BASE = "one server"
AT_ONCE = 120  # appends in one round: what a worker gathers at 30,000 tokens/s
COST_MAX = 1.15  # times the CPU of one server
SPREAD_MAX = 1.2  # times the mean
SHARE_PLANNED = 0.6  # of a core, as in bench/sizing.py


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a run.

    Attributes:
        rounds: of appends, `AT_ONCE` in each.
        per_s: tokens of each generation.
        prompts, warm: of the first tokens: those that count, and those before them.
        ids: whose spread over three masters is measured.
    """

    rounds: int
    streams: int
    per_s: int
    window_s: float
    first_s: float
    prompts: int
    warm: int
    ids: int


FULL = Size(400, 200, 50, 4.0, 2.0, 100, 10, 300)
QUICK = Size(3, 5, 50, 0.15, 0.1, 3, 1, 300)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = QUICK if setup.is_quick else FULL
    goals = {_who(masters): COST_MAX for masters in MASTERS[1:]}
    direct = f"{AT_ONCE} appends at a time, as fast as they are taken"
    cost = Comparison(f"{direct}: CPU of Redis per token", "µs", base=BASE, goals=goals)
    speed = Comparison(f"{direct}: tokens through Redis", "tokens/s", base=BASE)
    fill = Comparison(f"{direct}: busiest master 60 % of a core at", "tokens/s", base=BASE)
    work = f"{size.streams} generations of {size.per_s} tokens/s each"
    redis = Comparison(f"{work}: CPU of Redis for each token", "µs", base=BASE)
    worker = Comparison(f"{work}: CPU of the worker per token", "µs", base=BASE)
    node = Comparison(f"{work}: CPU of the node per token", "µs", base=BASE)
    first = Comparison("first token of a POST, idle worker: p50", "ms", base=BASE)
    spread = Comparison(
        f"{size.ids} ids on 3 masters: most on one / mean", "", goals={_who(3): SPREAD_MAX}
    )
    for _ in setup.rounds():
        for masters in MASTERS:
            await setup.quiet()
            async with _system(setup, masters) as system, system.node() as role:
                own = replace(setup, system=system, shared_node=None)
                appended = await append_all(
                    system.redis_url, system.redis_pids, rounds=size.rounds, at_once=AT_ONCE
                )
                took_ms = await _first_tokens(own, role, size)
                measured = await _tokens(own, role, size)
            cost.add(_who(masters), sum(appended.shares_us))
            speed.add(_who(masters), appended.per_s)
            fill.add(_who(masters), SHARE_PLANNED * US / max(appended.shares_us))
            redis.add(_who(masters), sum(_shares_us(measured)), joined=measured.joined)
            worker.add(_who(masters), measured.us_per_token("worker"))
            node.add(_who(masters), measured.us_per_token("api"))
            first.add(_who(masters), percentile(took_ms, 0.5))
        spread.add(_who(3), most_of_mean([new_generation_id() for _ in range(size.ids)], 3))
    return [
        row
        for each in (cost, speed, fill, redis, worker, node, first, spread)
        for row in each.rows()
    ]


def _who(masters: int) -> str:
    if not masters:
        return BASE
    return f"{masters} masters" if masters > 1 else "1 master"


def _system(setup: Setup, masters: int) -> System:
    url = setup.upstream.base_url
    return ClusterSystem(url, masters) if masters else System(url)


async def _first_tokens(setup: Setup, node: Role, size: Size) -> list[float]:
    """Return the milliseconds to each first token, one prompt after the other."""
    took_ms = []
    async with connected(address(node)) as (reader, writer):
        answers = new_answers(size.warm + size.prompts, tokens=2)
        for answer in answers:
            raw = post("/v1/generations", answer.body()).first
            took_ms.append(await first_token_ms(reader, writer, raw, answer))
        await setup.upstream.times(answers)
    return took_ms[size.warm :]


async def _tokens(setup: Setup, node: Role, size: Size) -> MeasuredRun:
    tokens = setup.tokens(size.per_s, size.window_s)
    answers = new_answers(size.streams, tokens=tokens, per_s=size.per_s, first_s=size.first_s)
    return await setup.measured_run(node, answers, kind="sse", readers=1, window_s=size.window_s)


def _shares_us(measured: MeasuredRun) -> list[float]:
    """Return the CPU of each server of Redis per token of all, µs."""
    names = [name for name in measured.window.cpu_s if name.startswith("redis")]
    return [measured.us_per_token(name) for name in names]


def most_of_mean(ids: list[str], masters: int) -> float:
    """Return the most generations on one master, divided by the mean, with equal ranges."""
    counts = [0] * masters
    for generation_id in ids:
        slot = key_slot(keys.meta(generation_id).encode())
        counts[slot * masters // SLOTS] += 1
    return max(counts) * masters / len(ids)
