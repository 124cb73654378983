"""The rare events that a process keeps for the console."""

from __future__ import annotations

import pytest

from shared.queue.happenings import KEPT, Happening, Happenings, newer


def test_only_the_newest_events_are_kept():
    happenings = Happenings()
    for n in range(KEPT + 3):
        happenings.note("cuts", f"gen_{n}")

    assert happenings.count == KEPT + 3
    assert happenings.newest()[0] == Happening("cuts", "gen_3")
    assert len(happenings.newest()) == KEPT


@pytest.mark.parametrize(
    ("before", "found"), [(0, ["b", "c"]), (2, ["c"]), (3, []), (9, [])],
    ids=["more than are kept", "one", "none", "of another start"],
)  # fmt: skip
def test_events_are_newer_than_an_earlier_report(before, found):
    kept = [Happening("cuts", "b"), Happening("cuts", "c")]

    assert [each.generation_id for each in newer(kept, 3, before)] == found
