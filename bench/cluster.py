"""Compares a Redis Cluster with one server: the CPU of Redis, the load, the first token.

Measured on one server and on clusters of one, two and three masters, in three ways:

* The bench appends as a busy worker does, `at_once` generations in each call, one token each, as
  fast as Redis takes them; a live connection receives every frame. Nothing joins tokens, and what
  idle servers take is subtracted: this is the cost of a token, however busy the machine is. In one
  run each master gets as many appends as the single server; in another run all masters together do.
* Generations pass through a real worker and node to one reader each.
* Prompts find an idle worker, one after the other.

This machine has too few cores to fill several masters at once. So the bench measures the CPU of
each master per token of all, and computes from the busiest one how many tokens the cluster carries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.first_token import connected, first_token_ms
from bench.support.answer import new_answers
from bench.support.appends import Appended, append_all
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
QUICK_MASTERS = (0, 3)
BASE = "one server"
COST_MAX = 1.15  # times the CPU of one server
SPREAD_MAX = 1.2  # times the mean
SHARE_PLANNED = 0.6  # of a core, as in bench/sizing.py


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a run.

    Attributes:
        rounds: of appends, `at_once` in each: what a worker gathers at 30,000 tokens/s.
        idle_s: for which the idle servers are measured. Within 0.1 s they may do nothing.
        per_s: tokens of each generation.
        prompts, warm: of the first tokens: those that count, and those before them.
        ids: whose spread over three masters is measured.
    """

    rounds: int
    at_once: int
    idle_s: float
    streams: int
    per_s: int
    window_s: float
    first_s: float
    prompts: int
    warm: int
    ids: int


FULL = Size(200, 120, 1.5, 200, 50, 4.0, 2.0, 100, 10, 300)
QUICK = Size(3, 6, 0.3, 5, 50, 0.15, 0.1, 3, 1, 300)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = QUICK if setup.is_quick else FULL
    goals = {_who(masters): COST_MAX for masters in MASTERS[1:]}
    each = f"{size.at_once} appends at a time on each master"
    cost = Comparison(f"{each}: CPU of Redis per token", "µs", base=BASE, goals=goals)
    fill = Comparison(f"{each}: busiest master 60 % of a core at", "tokens/s", base=BASE)
    shared = f"{size.at_once} appends at a time on all masters together"
    thin = Comparison(f"{shared}: CPU of Redis for each token", "µs", base=BASE)
    idle = Comparison("idle: CPU of Redis each second", "µs", base=BASE)
    work = f"{size.streams} generations of {size.per_s} tokens/s each"
    redis = Comparison(f"{work}: CPU of Redis for each token", "µs", base=BASE)
    worker = Comparison(f"{work}: CPU of the worker per token", "µs", base=BASE)
    node = Comparison(f"{work}: CPU of the node per token", "µs", base=BASE)
    first = Comparison("first token of a POST, idle worker: p50", "ms", base=BASE)
    spread = Comparison(
        f"{size.ids} ids on 3 masters: most on one / mean", "", goals={_who(3): SPREAD_MAX}
    )
    for _ in setup.rounds():
        for masters in QUICK_MASTERS if setup.is_quick else MASTERS:
            await setup.quiet()
            async with _system(setup, masters) as system, system.node() as role:
                own = replace(setup, system=system, shared_node=None)
                full = await _appends(system, size, size.at_once * max(1, masters))
                part = await _appends(system, size, size.at_once) if masters > 1 else full
                took_ms = await _first_tokens(own, role, size)
                measured = await _tokens(own, role, size)
            cost.add(_who(masters), sum(full.shares_us))
            fill.add(_who(masters), SHARE_PLANNED * US / max(full.shares_us))
            thin.add(_who(masters), sum(part.shares_us))
            idle.add(_who(masters), full.idle_us)
            redis.add(_who(masters), sum(_shares_us(measured)), joined=measured.joined)
            worker.add(_who(masters), measured.us_per_token("worker"))
            node.add(_who(masters), measured.us_per_token("api"))
            first.add(_who(masters), percentile(took_ms, 0.5))
        spread.add(_who(3), most_of_mean([new_generation_id() for _ in range(size.ids)], 3))
    found = (cost, fill, thin, idle, redis, worker, node, first, spread)
    return [row for comparison in found for row in comparison.rows()]


def _who(masters: int) -> str:
    if not masters:
        return BASE
    return f"{masters} masters" if masters > 1 else "1 master"


def _system(setup: Setup, masters: int) -> System:
    url = setup.upstream.base_url
    return ClusterSystem(url, masters) if masters else System(url)


async def _appends(system: System, size: Size, at_once: int) -> Appended:
    return await append_all(
        system.redis_url, system.redis_pids, rounds=size.rounds, at_once=at_once, idle_s=size.idle_s
    )


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
