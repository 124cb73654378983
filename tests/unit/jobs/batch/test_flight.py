"""The flight: its room, the lines to ask, lost lines, and the pauses."""

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
from shared.log.records import RESTORE_WITHIN_S
from shared.queue.presence import Presence


def aloft(line: int, length: int = 10, **more: object) -> FlightLine:
    return FlightLine(InFlightLine(line, 0, length), f"c{line}", f"gen_{line}", **more)  # type: ignore[arg-type]


@pytest.fixture
def flight() -> Flight:
    flight = Flight()
    for line in range(1, 4):
        flight.add(aloft(line, is_asked=True))
    return flight


def test_room_is_the_window_minus_open_lines(flight: Flight) -> None:
    assert flight.room(5) == 2
    assert flight.room(2) == 0


def test_lines_with_a_result_take_no_room(flight: Flight) -> None:
    """They only wait for the next commit."""
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


def test_sort_separates_ended_lost_and_running_lines(flight: Flight) -> None:
    ones = list(flight.lines.values())

    ended, gone = flight.sort(ones, ["running", "failed", "sealed"], 0.0)

    assert (ended, gone) == ([ones[1]], [ones[2]])


def test_an_absent_generation_is_lost_only_after_the_restore_time(flight: Flight) -> None:
    """Its worker may restore it."""
    one = flight.lines[1]

    assert flight.sort([one], [None], 100.0) == ([], [])
    assert flight.sort([one], [None], 100.0 + RESTORE_WITHIN_S) == ([], [])
    assert flight.sort([one], [None], 100.1 + RESTORE_WITHIN_S) == ([], [one])


def test_a_restored_generation_is_not_lost(flight: Flight) -> None:
    one = flight.lines[1]
    flight.sort([one], [None], 100.0)
    flight.sort([one], ["queued"], 105.0)

    assert flight.sort([one], [None], 112.0) == ([], [])


def test_leave_returns_the_generations_of_the_lines(flight: Flight) -> None:
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
def test_the_window_is_twice_the_slots_for_lines(
    workers: list[tuple[int, int, bool]], window: int
) -> None:
    presences = [
        Presence(f"w{n}", 10_000 - age_ms, slots, 0, draining, {})
        for n, (slots, age_ms, draining) in enumerate(workers)
    ]

    assert window_of(presences, 10_000, 6_000.0) == window


def test_more_changes_mean_a_shorter_pause() -> None:
    pauses = [pause_of(moved, 100) for moved in (0, 1, 10, 25, 100)]

    assert pauses == sorted(pauses, reverse=True)
    assert pauses[0] == PAUSE_S_MAX and pauses[-1] == PAUSE_S_MIN
    assert pauses[1] > PAUSE_S_MAX * 0.9, "one line is not worth a look at all the others"


def test_with_an_empty_flight_there_is_a_pause() -> None:
    assert pause_of(0, 0) == PAUSE_S_MAX
