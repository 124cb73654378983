"""The cost model: computes what a deployment needs, from the costs of a token and of a reader.

Pure arithmetic on the results of a run; docs/performance.md has the same formulas in words. If a
run lacks a measurement, everything that depends on it is missing too.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from bench.figures import RunResults, table
from bench.support.table import number

US, KB, MB = 1e-6, 1e3, 1e6
PREFIXES = ((1e12, "T"), (1e9, "G"), (MB, "M"))
LOAD = 0.6  # planned share of a core for each process
PER_S = 20.0
RETENTION_S = (3_600.0, 300.0)  # the default, and what a large deployment may set


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant of the model: the median of one row.

    Attributes:
        unit: as shown.
        scale: converts the row's unit to seconds or bytes.
        bench, work, who: select the row; `work` is a part of the row's work.
    """

    name: str
    what: str
    unit: str
    scale: float
    bench: str
    work: str
    who: str


CONSTANTS = (
    Constant(
        "n1", "node: CPU per token, of a generation with one reader on this node",
        "µs", US, "many_streams", "CPU of the node per token", "Tailrace, SSE",
    ),
    Constant(
        "n100", "node: CPU per token and reader, of a generation with a hundred readers on it",
        "µs", US, "transports", "CPU of the node per token", "SSE",
    ),
    Constant(
        "w", "worker: CPU per token",
        "µs", US, "worker", "CPU per token to Redis", "Tailrace's worker",
    ),
    Constant(
        "r", "Redis: CPU per token",
        "µs", US, "redis_cost", "of 50 each: per token", "its CPU, µs",
    ),
    Constant(
        "r1", "Redis as one server, measured beside `r3`: CPU per token",
        "µs", US, "cluster", "CPU of Redis per token", "one server",
    ),
    Constant(
        "r3", "Redis as a cluster of three masters: CPU per token, of all masters",
        "µs", US, "cluster", "CPU of Redis per token", "3 masters",
    ),
    Constant(
        "log", "Redis: memory per token that is kept",
        "bytes", 1.0, "redis_cost", "of 50 each: per token", "bytes kept in the log",
    ),
    Constant(
        "net", "bytes to a reader per token, SSE",
        "bytes", 1.0, "transports", "bytes to the reader per token", "SSE",
    ),
    Constant(
        "reader", "node: memory per reader, SSE",
        "kB", KB, "idle", "memory of the node for each", "Tailrace, SSE",
    ),
    Constant(
        "socket", "node: memory per reader, WebSocket",
        "kB", KB, "idle", "memory of the node for each", "Tailrace, WebSocket",
    ),
    Constant(
        "node", "node: memory of a process without readers",
        "MB", MB, "curves", "0 idle readers: memory of the node", "Tailrace, SSE",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Demand:
    """The load that a deployment must serve.

    Attributes:
        readers: at the same time.
        together: readers of the same generation on the same node.
        per_s: tokens per second of each generation.
    """

    readers: int
    together: int
    per_s: float = PER_S

    @property
    def generations(self) -> int:
        return math.ceil(self.readers / self.together)

    @property
    def tokens_per_s(self) -> float:
        """The tokens per second that models produce and Redis gets."""
        return self.generations * self.per_s


DEMANDS = tuple(Demand(n, f) for f in (1, 100) for n in (1_000, 50_000, 1_000_000))


@dataclass(frozen=True, slots=True)
class Need:
    """The machines of a deployment. Cores are fully busy cores. None: a constant is missing."""

    node_cores: float | None
    worker_cores: float | None
    redis_cores: float | None
    redis_bytes: tuple[float | None, ...]  # at each of RETENTION_S
    node_bytes: float | None
    bits_per_s: float | None


def constants(found: RunResults) -> dict[str, float]:
    """Return the constants that the runs have, in seconds and bytes."""
    seen = {
        constant.name: (found.values(constant.bench, constant.work, constant.who), constant.scale)
        for constant in CONSTANTS
    }
    return {name: statistics.median(v) * scale for name, (v, scale) in seen.items() if v}


def need(demand: Demand, cost: Mapping[str, float]) -> Need:
    """Return what a deployment needs for `demand`."""
    delivered = demand.readers * demand.per_s
    node_cores = _times(delivered, node_s(demand.together, cost))
    processes = processes_of(node_cores)
    base = _times(processes, cost.get("node"))
    readers = _times(demand.readers, cost.get("reader"))
    return Need(
        node_cores,
        _times(demand.tokens_per_s, cost.get("w")),
        redis_cores(demand.tokens_per_s, cost),
        tuple(_times(demand.tokens_per_s * kept_s, cost.get("log")) for kept_s in RETENTION_S),
        None if base is None or readers is None else base + readers,
        _times(8 * delivered, cost.get("net")),
    )


def redis_cores(tokens_per_s: float, cost: Mapping[str, float]) -> float | None:
    """Return the cores of Redis.

    A load above one server's capacity goes to a cluster, whose tokens cost more. If no cluster was
    measured, its tokens cost as much as the tokens of one server.
    """
    single = _times(tokens_per_s, cost.get("r"))
    if single is None or single <= LOAD:
        return single
    return single * (cluster_factor(cost) or 1.0)


def cluster_factor(cost: Mapping[str, float]) -> float | None:
    """Return the cost of a token on a cluster of three masters, divided by that on one server."""
    return cost["r3"] / cost["r1"] if "r1" in cost and "r3" in cost else None


def node_s(together: int, cost: Mapping[str, float]) -> float | None:
    """Return a node's CPU seconds per delivered token: the reader's cost and a shared cost."""
    if "n1" not in cost or "n100" not in cost:
        return None
    shared = max(0.0, (cost["n1"] - cost["n100"]) / 0.99)
    return cost["n1"] - shared + shared / together


def processes_of(cores: float | None) -> int | None:
    """Return how many single-threaded processes carry this load, each at `LOAD` of a core."""
    return None if cores is None else max(1, math.ceil(cores / LOAD))


def _times(count: float | None, each: float | None) -> float | None:
    return None if count is None or each is None else count * each


# Tables for the page


def constants_table(found: RunResults) -> str:
    """Return the table of the constants."""
    lines = []
    for constant in CONSTANTS:
        seen = found.values(constant.bench, constant.work, constant.who)
        figure = f"{number(statistics.median(seen))} {constant.unit}" if seen else "not in this run"
        lines.append((f"`{constant.name}`", constant.what, figure, f"`{constant.bench}`"))
    return table(("constant", "what", "median", "bench"), lines)


def carried_table(found: RunResults) -> str:
    """Return the table of what one process carries at `LOAD` of a core."""
    cost = constants(found)
    rows = (
        ("node, readers with a generation each", node_s(1, cost)),
        ("node, readers of which 100 are together", node_s(100, cost)),
        ("worker, generations", cost.get("w")),
        ("Redis, generations", cost.get("r")),
        ("a master of a Redis Cluster, generations", _times(cost.get("r"), cluster_factor(cost))),
    )
    head = ("one process", "tokens/s", f"at {PER_S:.0f} tokens/s each")
    lines = []
    for what, each_s in rows:
        per_s = None if not each_s else LOAD / each_s
        shown = ("–", "–") if per_s is None else (f"{per_s:,.0f}", f"{per_s / PER_S:,.0f}")
        lines.append((what, *shown))
    return table(head, lines, 2)


def examples_table(found: RunResults) -> str:
    """Return the table of what the `DEMANDS` need."""
    cost = constants(found)
    head = (
        "readers", "together", "tokens/s made", "node processes", "worker processes",
        "Redis masters",
        "Redis memory, 1 h", "Redis memory, 5 min", "nodes' memory", "network",
    )  # fmt: skip
    return table(head, [_example(demand, need(demand, cost)) for demand in DEMANDS], len(head))


def _example(demand: Demand, it: Need) -> list[str]:
    cores = (it.node_cores, it.worker_cores, it.redis_cores)
    return [
        f"{demand.readers:,}", f"{demand.together:,}", f"{demand.tokens_per_s:,.0f}",
        *("–" if (n := processes_of(each)) is None else f"{n:,}" for each in cores),
        *(_of(amount, "B") for amount in (*it.redis_bytes, it.node_bytes)),
        _of(it.bits_per_s, "bit/s"),
    ]  # fmt: skip


def _of(amount: float | None, unit: str) -> str:
    """Format an amount with a fitting SI prefix."""
    if amount is None:
        return "–"
    scale, prefix = next(each for each in PREFIXES if amount >= each[0] or each[0] == MB)
    return f"{number(amount / scale)} {prefix}{unit}"
