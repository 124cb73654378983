"""The tokens of each day of a month, for the charts."""

from __future__ import annotations

from datetime import date

from api.console.usage_days import NAMES_MAX, OTHER, DaySums


def test_tokens_are_added_up_by_owner_and_by_model():
    sums = DaySums(date(2026, 11, 3))
    sums.add(1, "ann", "big", 5)
    sums.add(1, "ann", "small", 2)
    sums.add(3, "bob", "big", 9)
    sums.add(4, "bob", "big", 100)  # a day to come: another clock

    found = sums.columns()

    assert found.month == "2026-11"
    assert [(each.name, each.tokens) for each in found.owners] == [
        ("bob", [0, 0, 9]), ("ann", [7, 0, 0]),
    ]  # fmt: skip
    assert [(each.name, each.tokens) for each in found.models] == [
        ("big", [5, 0, 9]), ("small", [2, 0, 0]),
    ]  # fmt: skip


def test_the_names_with_fewer_tokens_are_one_column():
    sums = DaySums(date(2026, 11, 1))
    for n in range(NAMES_MAX + 3):
        sums.add(1, f"owner {n}", "m", n + 1)

    columns = sums.columns().owners

    assert [each.name for each in columns][-1] == OTHER and len(columns) == NAMES_MAX + 1
    assert columns[-1].tokens == [1 + 2 + 3]
