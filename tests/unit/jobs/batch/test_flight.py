"""What is in flight, what is to be asked, and how many may be."""

from __future__ import annotations

import pytest

from jobs.batch.flight import (
    FLIGHT_BYTES_MAX,
    PAUSE_S_MAX,
    PAUSE_S_MIN,
    WINDOW_MAX,
    WINDOW_MIN,
    Flight,
    FlightLine,
    pause_of,
    window_of,
)
from shared.batches.lease import InFlightLine
from shared.log.records import RESTORE_S
from shared.queue.lanes import Presence


def aloft(line: int, length: int = 10, **more: object) -> FlightLine:
    return FlightLine(InFlightLine(line, 0, length), f"c{line}", f"gen_{line}", **more)  # type: ignore[arg-type]


@pytest.fixture
def flight() -> Flight:
    flight = Flight()
    for line in range(1, 4):
        flight.add(aloft(line, is_asked=True))
    return flight


def test_room_is_what_the_window_leaves(flight: Flight) -> None:
    assert flight.room(5) == 2
    assert flight.room(2) == 0


def test_lines_that_are_done_take_no_room(flight: Flight) -> None:
    """They wait for the next commit; the workers need not."""
    flight.lines[1].is_done = True

    assert flight.room(5) == 3


def test_large_lines_take_the_room_of_many(flight: Flight) -> None:
    flight.add(aloft(4, FLIGHT_BYTES_MAX))

    assert flight.room(500) == 0


def test_a_line_is_asked_when_its_pause_is_over(flight: Flight) -> None:
    flight.lines[2].is_asked = False
    flight.lines[2].ask_at_s = 10.0

    assert flight.to_ask(9.9) == []
    assert flight.to_ask(10.0) == [flight.lines[2]]


def test_ends_and_seals_are_told_from_what_runs(flight: Flight) -> None:
    ones = list(flight.lines.values())

    ended, gone = flight.sort(ones, ["running", "failed", "sealed"], 0.0)

    assert (ended, gone) == ([ones[1]], [ones[2]])


def test_what_is_absent_is_waited_for(flight: Flight) -> None:
    """Its worker may be about to write it again."""
    one = flight.lines[1]

    assert flight.sort([one], [None], 100.0) == ([], [])
    assert flight.sort([one], [None], 100.0 + RESTORE_S) == ([], [])
    assert flight.sort([one], [None], 100.1 + RESTORE_S) == ([], [one])


def test_what_came_back_was_not_lost(flight: Flight) -> None:
    one = flight.lines[1]
    flight.sort([one], [None], 100.0)
    flight.sort([one], ["queued"], 105.0)

    assert flight.sort([one], [None], 112.0) == ([], [])


def test_lines_that_leave_name_their_generations(flight: Flight) -> None:
    flight.lines[2].generation_id = ""  # one that the API would refuse has none

    assert flight.leave([1, 2, 99]) == ["gen_1"]
    assert list(flight.lines) == [3]


@pytest.mark.parametrize(
    ("workers", "window"),
    [
        ([], WINDOW_MIN),
        ([(1, 0, False)], WINDOW_MIN),
        ([(100, 0, False)], 150),
        ([(100, 0, False), (8, 0, False)], 162),
        ([(100, 0, True)], WINDOW_MIN),
        ([(100, 9_000, False)], WINDOW_MIN),
        ([(1_000, 0, False)], WINDOW_MAX),
    ],
    ids=["none", "one slot", "one", "two", "draining", "silent", "large"],
)
def test_the_window_is_twice_what_workers_run(
    workers: list[tuple[int, int, bool]], window: int
) -> None:
    presences = [
        Presence(f"w{n}", 10_000 - age_ms, slots, 0, draining, {})
        for n, (slots, age_ms, draining) in enumerate(workers)
    ]

    assert window_of(presences, 10_000, 6_000.0) == window


def test_the_more_have_moved_the_sooner_is_the_next_look() -> None:
    pauses = [pause_of(moved, 100) for moved in (0, 1, 10, 25, 100)]

    assert pauses == sorted(pauses, reverse=True)
    assert pauses[0] == PAUSE_S_MAX and pauses[-1] == PAUSE_S_MIN
    assert pauses[1] > PAUSE_S_MAX * 0.9, "one line is not worth a look at all the others"


def test_with_nothing_in_flight_it_waits_too() -> None:
    assert pause_of(0, 0) == PAUSE_S_MAX
