"""The schedule of a soak is a function of its seed."""

from __future__ import annotations

from itertools import islice

from tests.soak.schedule import KINDS, schedule


def test_a_seed_repeats_its_schedule():
    assert list(schedule(7, 600, 0.8)) == list(schedule(7, 600, 0.8))


def test_a_longer_run_begins_like_a_shorter_one():
    short = list(schedule(7, 60, 0.8))

    assert short == list(islice(schedule(7, 600, 0.8), len(short)))


def test_other_seeds_have_other_schedules():
    assert list(schedule(7, 60, 0.8)) != list(schedule(8, 60, 0.8))


def test_every_kind_of_fault_comes_in_ten_minutes():
    assert {fault.kind for fault in schedule(1, 600, 0.8)} == set(KINDS)


def test_faults_come_in_order_and_within_the_run():
    moments = [fault.at_s for fault in schedule(3, 60, 0.8)]

    assert moments == sorted(moments)
    assert 0 < moments[0] and moments[-1] < 60
