"""The cost model, with round numbers."""

from __future__ import annotations

from typing import Any

import pytest

from bench.figures import RunResults
from bench.sizing import (
    CONSTANTS,
    DEMANDS,
    Demand,
    carried_table,
    constants,
    constants_table,
    examples_table,
    need,
    node_s,
    processes_of,
)

# 30 µs per token of a single reader, 10.2 µs of one in a hundred: 10 per reader, 20 shared.
FIGURES = {
    "n1": 30.0, "n100": 10.2, "w": 15.0, "r": 5.0, "log": 50.0, "net": 100.0, "reader": 10.0,
    "socket": 20.0, "node": 50.0,
}  # fmt: skip


def found(**figures: float) -> RunResults:
    rows: list[dict[str, Any]] = [
        {"bench": one.bench, "work": f"x {one.work} y", "who": one.who, "values": [figures[name]]}
        for one in CONSTANTS
        if (name := one.name) in figures
    ]
    return RunResults(rows)


COST = constants(found(**FIGURES))


@pytest.mark.parametrize(("together", "us"), [(1, 30), (2, 20), (20, 11), (100, 10.2)])
def test_the_shared_cost_of_a_generation_is_divided_among_its_readers(
    together: int, us: float
) -> None:
    assert node_s(together, COST) == pytest.approx(us * 1e-6)


def test_readers_with_a_generation_each() -> None:
    it = need(Demand(readers=1_000, together=1), COST)

    assert it.node_cores == pytest.approx(0.6)
    assert it.worker_cores == pytest.approx(0.3)
    assert it.redis_cores == pytest.approx(0.1)
    assert it.redis_bytes == pytest.approx((20_000 * 3_600 * 50, 20_000 * 300 * 50))
    assert it.node_bytes == pytest.approx(50e6 + 1_000 * 10e3)
    assert it.bits_per_s == pytest.approx(16e6)


def test_more_readers_of_a_generation_cost_workers_and_redis_nothing() -> None:
    alone, many = need(Demand(1_000, 100), COST), need(Demand(100_000, 10_000), COST)

    assert alone.worker_cores == many.worker_cores == pytest.approx(0.003)
    assert alone.redis_bytes == many.redis_bytes


def test_a_load_above_one_redis_is_computed_with_the_cost_of_a_token_on_a_cluster() -> None:
    cost = constants(found(**FIGURES, r1=10.0, r3=12.0))
    small, large = Demand(1_000, 1), Demand(50_000, 1)

    assert need(small, cost).redis_cores == pytest.approx(0.1), "one server"
    assert need(large, cost).redis_cores == pytest.approx(5.0 * 1.2), "masters of a cluster"
    assert need(large, COST).redis_cores == pytest.approx(5.0), "no cluster was measured"


@pytest.mark.parametrize(
    ("cores", "count"), [(0.01, 1), (0.6, 1), (0.61, 2), (6.0, 10), (None, None)]
)
def test_a_process_is_planned_for_less_than_a_core(cores: float | None, count: int | None) -> None:
    assert processes_of(cores) == count


@pytest.mark.parametrize("missing", FIGURES)
def test_a_missing_measurement_is_missing_in_the_tables(missing: str) -> None:
    part = found(**{name: value for name, value in FIGURES.items() if name != missing})

    assert missing not in constants(part)
    assert "not in this run" in constants_table(part)
    assert len(examples_table(part).splitlines()) == 2 + len(DEMANDS)
    assert "–" in examples_table(part) or missing == "socket"  # no example has WebSockets


def test_what_one_process_carries() -> None:
    assert carried_table(found(**FIGURES)).splitlines()[2:] == [
        "| node, readers with a generation each | 20,000 | 1,000 |",
        "| node, readers of which 100 are together | 58,824 | 2,941 |",
        "| worker, generations | 40,000 | 2,000 |",
        "| Redis, generations | 120,000 | 6,000 |",
        "| a master of a Redis Cluster, generations | – | – |",
    ]
    with_cluster = found(**FIGURES, r1=10.0, r3=12.0)
    assert "Cluster, generations | 100,000 | 5,000 |" in carried_table(with_cluster)
    assert carried_table(RunResults()).count("| – | – |") == 5


def test_an_example_covers_the_whole_deployment() -> None:
    million = examples_table(found(**FIGURES)).splitlines()[4]

    assert million.strip("| ").split(" | ") == [
        "1,000,000", "1", "20,000,000", "1,000", "500", "167", "3.60 TB", "300 GB", "60.0 GB",
        "16.0 Gbit/s",
    ]  # fmt: skip
