"""The rate of a transfer: slow below the minimum, not for a pause, not before the window ends."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from api.edge.transfer_rate import (
    CONTENDED_RATE_WINDOW_S,
    RATE_BYTES_S_MIN,
    RATE_WINDOW_S,
    TransferRate,
)
from tests.support.examples import examples


def slow_after(moved_by_second: list[int], window_s: float = RATE_WINDOW_S) -> int | None:
    """Return the second after which a peer is too slow, checked each second; None: never."""
    rate, moved = TransferRate(), 0
    for second, count in enumerate(moved_by_second, start=1):
        moved += count
        if rate.is_slow(float(second), moved, window_s):
            return second
    return None


def test_no_peer_is_slow_before_the_window_ends() -> None:
    assert slow_after([0] * 29) is None
    assert slow_after([0] * 31) == 30
    assert slow_after([0] * 31, CONTENDED_RATE_WINDOW_S) == 10


def test_one_byte_a_second_is_too_slow() -> None:
    assert slow_after([1] * 40) == 30


def test_the_minimum_rate_is_enough() -> None:
    assert slow_after([RATE_BYTES_S_MIN] * 3_600) is None
    assert slow_after([RATE_BYTES_S_MIN - 1] * 40) == 30


def test_a_pause_shorter_than_the_window_does_no_harm() -> None:
    fast, pause = [20 * RATE_BYTES_S_MIN] * 5, [0] * 25
    assert slow_after((fast + pause) * 20) is None


def test_bytes_before_the_window_do_not_count() -> None:
    second = slow_after([10**9, *[0] * 40])
    assert second is not None and second <= 32


def test_without_waiting_time_no_peer_is_slow() -> None:
    rate = TransferRate()
    assert not any(rate.is_slow(1.0, 0, RATE_WINDOW_S) for _ in range(1_000))


@settings(max_examples=examples(30, in_ci=100))
@given(st.lists(st.integers(RATE_BYTES_S_MIN, 10 * RATE_BYTES_S_MIN), min_size=31, max_size=120))
def test_the_minimum_rate_in_each_second_is_never_slow(counts: list[int]) -> None:
    assert slow_after(counts) is None and slow_after(counts, CONTENDED_RATE_WINDOW_S) is None


@settings(max_examples=examples(30, in_ci=100))
@given(st.lists(st.integers(0, RATE_BYTES_S_MIN - 1), min_size=31, max_size=120))
def test_below_the_minimum_in_each_second_is_slow_at_the_first_check(counts: list[int]) -> None:
    assert slow_after(counts) == 30 and slow_after(counts, CONTENDED_RATE_WINDOW_S) == 10
