"""The order of the moments in a story, with clocks and ways that differ. Pure."""

from __future__ import annotations

import random

import pytest

from shared.log.records import Meta
from shared.timeline.moment import Moment, Timed
from shared.timeline.story import _steady, in_order, row_of


def meta(ended_at_ms: int = 0) -> Meta:
    return Meta(
        "gen_0123456789", "running", "alice", "", "m", "interactive", 0, 1, 0, 0, 0, None,
        b"{}", b"", b"", ended_at_ms,
    )  # fmt: skip


def at(at_ms: int, what: str, attempt: int = 0, worker: str = "") -> Timed:
    return Timed(at_ms, Moment(what, attempt=attempt, worker=worker))  # type: ignore[arg-type]


def shown(moments: list[Timed]) -> list[tuple[int, str, int]]:
    return [(timed.at_ms, timed.moment.what, timed.moment.attempt) for timed in moments]


@pytest.mark.parametrize("seed", range(5))
def test_moments_of_one_millisecond_have_one_order(seed: int) -> None:
    life = [
        at(7, "accepted"), at(7, "queued"), at(7, "begun", 1), at(7, "attempt_ended", 1),
        at(7, "released", 1), at(7, "begun", 2), at(7, "takeover", 2), at(7, "connected", 2),
        at(7, "first_token", 2), at(7, "attempt_ended", 2), at(7, "end"),
    ]  # fmt: skip
    shuffled = random.Random(seed).sample(life, len(life))

    assert in_order(shuffled) == life


def test_a_late_time_does_not_put_a_first_token_behind_the_end_of_its_attempt() -> None:
    stored = [
        at(10, "begun", 1, "w"),
        at(25, "first_token", 1, "w"),
        at(20, "attempt_ended", 1, "w"),
    ]

    steady = in_order(_steady(stored, meta()))

    assert shown(steady) == [(10, "begun", 1), (20, "first_token", 1), (20, "attempt_ended", 1)]


def test_an_attempt_ends_no_later_than_the_answer() -> None:
    steady = _steady([at(30, "attempt_ended", 1, "w")], meta(ended_at_ms=20))

    assert shown(steady) == [(20, "attempt_ended", 1)]


def test_the_times_of_one_attempt_do_not_bind_another_process() -> None:
    stored = [
        at(50, "first_token", 1, "w"),
        Timed(60, Moment("readers", node="n")),
        at(40, "begun", 2, "x"),
    ]

    assert shown(in_order(_steady(stored, meta()))) == [
        (40, "begun", 2), (50, "first_token", 1), (60, "readers", 0),
    ]  # fmt: skip


def test_a_row_has_its_time_in_seconds_and_only_members_with_a_value() -> None:
    row = row_of(Timed(1_795_255_095_123, Moment("begun", worker="w", attempt=1, waited_s=0.0)))

    assert row == {
        "at": 1_795_255_095.123, "what": "begun", "worker": "w", "attempt": 1, "waited_s": 0.0,
    }  # fmt: skip
