"""Medians, ratios, goals and the printed table."""

from __future__ import annotations

import pytest

from bench.support.table import Comparison, number, percentile, show


def comparison(**options: object) -> Comparison:
    return Comparison("work", "µs", **options)  # type: ignore[arg-type]


def test_a_ratio_is_taken_within_each_repetition() -> None:
    one = comparison(base="bare")
    for bare, ours in ((1.0, 2.0), (10.0, 20.0), (4.0, 12.0)):
        one.add("bare", bare)
        one.add("ours", ours)
    ours = one.rows()[1]

    assert list(ours.ratios) == [2.0, 2.0, 3.0]
    assert ours.record()["median"] == 12.0
    assert ours.record()["ratio"] == 2.0


def test_fewer_repetitions_are_compared_with_the_same_repetitions() -> None:
    one = comparison(base="bare")
    for bare in (2.0, 8.0):
        one.add("bare", bare)
    one.add("naive", 6.0)

    assert list(one.rows()[1].ratios) == [3.0]


@pytest.mark.parametrize(("value", "is_met"), [(2.4, True), (2.6, False)])
def test_with_a_base_a_goal_is_a_ratio(value: float, is_met: bool) -> None:
    one = comparison(base="bare", goals={"ours": 1.25})
    one.add("bare", 2.0)
    one.add("ours", value)

    assert one.rows()[1].is_met is is_met
    assert one.rows()[1].goal == "≤ 1.25 x bare"


def test_without_a_base_or_if_requested_a_goal_is_a_value() -> None:
    alone = comparison(goals={"ours": 5.0}, is_more_better=True)
    alone.add("ours", 6.0)
    both = comparison(base="bare", goals={"ours": 5.0}, is_goal_ratio=False)
    both.add("bare", 1.0)
    both.add("ours", 5.5)

    assert alone.rows()[0].goal == "≥ 5 µs"
    assert alone.rows()[0].is_met is True
    assert both.rows()[1].is_met is False


def test_without_a_measured_base_there_is_no_ratio_and_no_verdict() -> None:
    one = comparison(base="nchan", goals={"ours": 30.0})
    one.add("ours", 5.0)

    assert one.rows()[0].ratios == []
    assert one.rows()[0].is_met is None


def test_the_table_names_each_work_once_and_judges_only_if_is_judged() -> None:
    one = comparison(goals={"ours": 5.0})
    one.add("ours", 4.0, joined=3.0)
    one.add("theirs", 1_234_567.0)

    assert show(one.rows()).splitlines()[0] == "work"
    assert "3.00 a read" in show(one.rows()) and "1.23 M µs" in show(one.rows())
    assert show(one.rows()).count(" met") == 1
    assert " met" not in show(one.rows(), is_judged=False)


def test_percentiles_and_numbers() -> None:
    values = [float(n) for n in range(100, 0, -1)]

    assert (percentile(values, 0.5), percentile(values, 0.99)) == (51.0, 100.0)
    assert [number(v) for v in (0.123, 12.34, 1234.5)] == ["0.12", "12.3", "1,234"]
