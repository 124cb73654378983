"""How many slots each lane may take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.slots import batch_slots_max, lanes_to_wait_on, rounds


@pytest.mark.parametrize(("slots", "most"), [(1, 1), (2, 1), (3, 2), (4, 3), (100, 75)])
def test_batch_lines_have_three_quarters_at_most(slots, most):
    assert batch_slots_max(slots) == most


def test_an_idle_worker_reads_resume_one_batch_interactive_and_the_rest_of_batch():
    assert list(rounds(100, 0, 0)) == [
        ("resume", 100),
        ("batch", 1),
        ("interactive", 100),
        ("batch", 75),
    ]


def test_with_a_batch_line_running_interactive_comes_first():
    assert list(rounds(100, 1, 1)) == [("resume", 99), ("interactive", 99), ("batch", 74)]


def test_batch_lines_stop_at_their_share():
    assert list(rounds(100, 75, 75)) == [("resume", 25), ("interactive", 25)]
    assert list(rounds(100, 90, 74)) == [("resume", 10), ("interactive", 10), ("batch", 1)]


def test_the_last_slot_is_a_batch_lines_where_none_runs():
    assert list(rounds(100, 99, 0))[:2] == [("resume", 1), ("batch", 1)]


def test_a_full_worker_reads_nothing():
    assert list(rounds(10, 10, 2)) == []
    assert lanes_to_wait_on(10, 10, 2) == ()
    assert list(rounds(10, 12, 2)) == []
    assert lanes_to_wait_on(10, 12, 2) == ()


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
def test_a_blocking_read_names_no_more_lanes_than_there_are_slots(running, running_batch, lanes):
    """Each lane can give one entry."""
    assert set(lanes_to_wait_on(10, running, running_batch)) == lanes


@st.composite
def loads(draw):
    slots = draw(st.integers(1, 200))
    running = draw(st.integers(0, slots))
    return slots, running, draw(st.integers(0, running))


@given(loads())
def test_no_lane_is_ever_asked_for_more_than_may_start(load):
    slots, running, running_batch = load

    for lane, count in rounds(*load):
        assert 1 <= count <= slots - running
        if lane == "batch":
            assert running_batch + count <= batch_slots_max(slots)
    assert len(lanes_to_wait_on(*load)) <= slots - running
    if running_batch >= batch_slots_max(slots):
        assert "batch" not in lanes_to_wait_on(*load)


@given(loads())
def test_whoever_has_a_slot_free_asks_for_both_urgent_lanes(load):
    slots, running, _ = load

    lanes = [lane for lane, _ in rounds(*load)]

    assert (slots == running) == (not lanes)
    if lanes:
        assert lanes[0] == "resume"
        assert "interactive" in lanes
