"""The number of slots that each lane may take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.slots import batch_slots_max, places_to_wait_on, rounds


@pytest.mark.parametrize(("slots", "batch_max"), [(1, 1), (2, 1), (3, 2), (4, 3), (100, 75)])
def test_batch_entries_take_at_most_three_quarters(slots, batch_max):
    assert batch_slots_max(slots) == batch_max


def test_an_idle_worker_reads_resume_then_one_batch_then_interactive_then_batch():
    assert list(rounds(100, 0, 0)) == [
        ("resume", 100),
        ("batch", 1),
        ("interactive", 100),
        ("batch", 75),
    ]


def test_while_a_batch_entry_runs_interactive_is_read_before_batch():
    assert list(rounds(100, 1, 1)) == [("resume", 99), ("interactive", 99), ("batch", 74)]


def test_batch_is_not_read_beyond_its_share():
    assert list(rounds(100, 75, 75)) == [("resume", 25), ("interactive", 25)]
    assert list(rounds(100, 90, 74)) == [("resume", 10), ("interactive", 10), ("batch", 1)]


def test_the_last_slot_may_go_to_batch_if_no_batch_entry_runs():
    assert list(rounds(100, 99, 0))[:2] == [("resume", 1), ("batch", 1)]


def test_a_full_worker_reads_nothing():
    assert list(rounds(10, 10, 2)) == []
    assert places_to_wait_on(["q"], 10, 10, 2) == {}
    assert list(rounds(10, 12, 2)) == []
    assert places_to_wait_on(["q"], 10, 12, 2) == {}


@pytest.mark.parametrize(
    ("running", "running_batch", "lanes"),
    [
        (0, 0, {"interactive", "resume", "batch"}),
        (7, 0, {"interactive", "resume", "batch"}),
        (8, 0, {"interactive", "resume"}),
        (9, 0, {"interactive"}),
        (7, 7, {"interactive", "resume"}),
    ],
)
def test_a_blocking_read_has_no_more_lanes_than_free_slots(running, running_batch, lanes):
    """Each lane of a blocking read can return one entry."""
    assert set(places_to_wait_on(["q"], 10, running, running_batch)["q"]) == lanes


@st.composite
def loads(draw):
    slots = draw(st.integers(1, 200))
    running = draw(st.integers(0, slots))
    return slots, running, draw(st.integers(0, running))


@given(loads())
def test_no_lane_is_read_for_more_entries_than_may_start(load):
    slots, running, running_batch = load

    for lane, count in rounds(*load):
        assert 1 <= count <= slots - running
        if lane == "batch":
            assert running_batch + count <= batch_slots_max(slots)


@given(st.integers(1, 16), loads())
def test_all_blocking_reads_together_have_no_more_lanes_than_free_slots(partitions, load):
    slots, running, running_batch = load

    places = places_to_wait_on([f"q{n}" for n in range(partitions)], *load)

    lanes = [lane for place in places.values() for lane in place]
    assert len(lanes) <= slots - running
    assert lanes.count("batch") <= max(0, batch_slots_max(slots) - running_batch)
    if len(lanes) < slots - running:
        assert lanes.count("interactive") == lanes.count("resume") == partitions


def test_each_partition_gets_its_interactive_lane_before_one_gets_another():
    assert places_to_wait_on(["q0", "q1", "q2"], 10, 5, 0) == {
        "q0": ["interactive", "resume"],
        "q1": ["interactive", "resume"],
        "q2": ["interactive"],
    }


@given(loads())
def test_a_worker_with_a_free_slot_reads_resume_and_interactive(load):
    slots, running, _ = load

    lanes = [lane for lane, _ in rounds(*load)]

    assert (slots == running) == (not lanes)
    if lanes:
        assert lanes[0] == "resume"
        assert "interactive" in lanes
