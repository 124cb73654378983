"""The histogram whose quantiles the charts of the console show."""

from __future__ import annotations

import random

import pytest

from shared.console.histogram import BUCKET_MAX, Counts, add, bucket_of, merged, quantile, since


def counted(*durations: float) -> Counts:
    counts: Counts = {}
    for seconds in durations:
        add(counts, seconds)
    return counts


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_quantile_is_exact_to_three_percent(share):
    draw = random.Random(7)
    durations = sorted(draw.lognormvariate(-1, 1) for _ in range(2_000))

    found = quantile(counted(*durations), share)

    assert found == pytest.approx(durations[int(share * len(durations))], rel=0.03)


def test_a_quantile_of_nothing_is_none():
    assert quantile({}, 0.5) is None


def test_very_short_and_very_long_durations_have_buckets():
    assert bucket_of(0.0) == 0
    assert bucket_of(1e9) == BUCKET_MAX


def test_histograms_of_several_processes_add_up_to_the_histogram_of_all():
    assert merged([counted(0.1, 0.2), counted(0.2, 4)]) == counted(0.1, 0.2, 0.2, 4)


def test_a_later_reading_minus_an_earlier_one_is_what_was_counted_between_them():
    before, now = counted(0.1, 0.2), counted(0.1, 0.2, 0.2, 4)

    assert since(now, before) == counted(0.2, 4)


def test_a_process_that_began_again_under_the_same_name_counts_nothing_below_zero():
    assert since(counted(0.1), counted(0.1, 0.1, 0.2)) == {}
