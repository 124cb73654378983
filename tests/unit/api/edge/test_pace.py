"""Pace: below the rate is slow, a pause is not, and nothing is judged before its time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from api.edge.pace import BYTES_S, WANTED_S, WINDOW_S, Pace


def judged(moved_by_second: list[int], window_s: float = WINDOW_S) -> int | None:
    """The second at which a peer is too slow, looked at each second; None: never."""
    pace, moved = Pace(), 0
    for second, count in enumerate(moved_by_second, start=1):
        moved += count
        if pace.is_slow(float(second), moved, window_s):
            return second
    return None


def test_nothing_is_judged_before_the_window_is_over() -> None:
    assert judged([0] * 29) is None
    assert judged([0] * 31) == 30
    assert judged([0] * 31, WANTED_S) == 10


def test_a_byte_now_and_then_is_too_slow() -> None:
    assert judged([1] * 40) == 30


def test_the_rate_itself_is_enough() -> None:
    assert judged([BYTES_S] * 3_600) is None
    assert judged([BYTES_S - 1] * 40) == 30


def test_a_pause_shorter_than_the_window_does_no_harm() -> None:
    fast, pause = [20 * BYTES_S] * 5, [0] * 25
    assert judged((fast + pause) * 20) is None


def test_what_was_moved_long_ago_does_not_count() -> None:
    second = judged([10**9, *[0] * 40])
    assert second is not None and second <= 32


def test_a_clock_that_stands_still_judges_nothing() -> None:
    pace = Pace()
    assert not any(pace.is_slow(1.0, 0, WINDOW_S) for _ in range(1_000))


@given(st.lists(st.integers(BYTES_S, 10 * BYTES_S), min_size=31, max_size=120))
def test_who_keeps_the_rate_in_each_second_is_never_slow(counts: list[int]) -> None:
    assert judged(counts) is None and judged(counts, WANTED_S) is None


@given(st.lists(st.integers(0, BYTES_S - 1), min_size=31, max_size=120))
def test_who_keeps_it_in_none_is_slow_at_the_first_look(counts: list[int]) -> None:
    assert judged(counts) == 30 and judged(counts, WANTED_S) == 10
