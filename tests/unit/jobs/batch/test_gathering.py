"""The content of one commit, and when it is due."""

from __future__ import annotations

import json

import pytest

from jobs.batch.gathering import AGE_S_MAX, BYTES_MAX, RESULTS_MAX, Gathering
from jobs.batch.result import Result
from shared.batches.lease import InFlightLine

GOOD = Result(b'{"ok":1}\n', "completed", usage=(1, 2, 3), model="m")
BAD = Result(b'{"ok":0}\n', "failed", "upstream_refused")


@pytest.fixture
def gathering() -> Gathering:
    return Gathering(total=10, counted=4)


def add(gathering: Gathering, line: int, result: Result = GOOD, now_s: float = 0.0) -> None:
    at = InFlightLine(line, 100 * line, 50)
    gathering.add(at, f"c{line}", f"gen_{line}", result, now_s)


def test_an_empty_gathering_is_never_due(gathering: Gathering) -> None:
    assert not gathering.is_due(1e9)


def test_a_commit_is_due_by_age(gathering: Gathering) -> None:
    add(gathering, 1, now_s=5.0)
    add(gathering, 2, now_s=5.4)

    assert not gathering.is_due(4.99 + AGE_S_MAX)
    assert gathering.is_due(5.0 + AGE_S_MAX)


def test_a_commit_is_due_by_number(gathering: Gathering) -> None:
    for line in range(RESULTS_MAX):
        assert not gathering.is_due(0.0)
        add(gathering, line)

    assert gathering.is_due(0.0)


def test_a_commit_is_due_by_size(gathering: Gathering) -> None:
    add(gathering, 1, GOOD._replace(raw=b"x" * BYTES_MAX))

    assert gathering.is_due(0.0)


def test_a_commit_carries_everything_and_empties_the_gathering(gathering: Gathering) -> None:
    add(gathering, 1)
    add(gathering, 2, BAD)
    gathering.ask_again(InFlightLine(3, 300, 50, 1), 0.0)
    assert (bytes(gathering.output), bytes(gathering.error)) == (GOOD.raw, BAD.raw)

    commit = gathering.commit("n1", ["part"])

    assert (commit.name, commit.parts, commit.done) == ("n1", ["part"], ["1", "2"])
    assert (commit.completed, commit.failed) == (1, 1)
    assert (commit.usage, commit.model) == ((1, 2, 3), "m")
    assert commit.again == ["3", "300 50 1"]
    assert json.loads(commit.dead[0]) == {
        "line": 2, "offset": 200, "length": 50, "custom_id": "c2", "code": "upstream_refused",
    }  # fmt: skip
    events = [json.loads(event) for event in commit.events]
    assert [event["type"] for event in events] == ["data", "data", "progress"]
    assert events[0]["value"] == {
        "custom_id": "c1", "line": 1, "status": "completed", "generation": "gen_1",
    }  # fmt: skip
    assert (events[2]["current"], events[2]["total"], events[2]["percentage"]) == (6, 10, 60.0)
    assert gathering.is_empty and not gathering.output and not gathering.error


def test_progress_continues_from_commit_to_commit(gathering: Gathering) -> None:
    add(gathering, 1)
    gathering.commit("n1", [])
    add(gathering, 2)

    event = json.loads(gathering.commit("n2", []).events[-1])

    assert event["current"] == 6


def test_a_dropped_line_counts_as_neither_done_nor_failed(gathering: Gathering) -> None:
    """Its batch was cancelled."""
    gathering.drop(InFlightLine(1, 0, 10), 0.0)

    commit = gathering.commit("n1", [])

    assert (commit.done, commit.completed, commit.failed, commit.events) == (["1"], 0, 0, [])


def test_a_line_asked_again_and_done_leaves_the_flight(gathering: Gathering) -> None:
    """Otherwise it would be in flight again, and be done twice."""
    gathering.ask_again(InFlightLine(3, 300, 50, 1), 0.0)
    add(gathering, 3)
    gathering.ask_again(InFlightLine(4, 400, 50, 1), 0.0)
    gathering.drop(InFlightLine(4, 400, 50, 1), 0.0)

    commit = gathering.commit("n1", [])

    assert (commit.done, commit.again) == (["3", "4"], [])


def test_passed_lines_move_the_cursor(gathering: Gathering) -> None:
    add(gathering, 7, BAD)
    gathering.pass_over(3, 7, 750, 0.0)

    commit = gathering.commit("n1", [])

    assert (commit.before, commit.line, commit.offset) == (3, 7, 750)
    assert (gathering.commit("n2", []).line, gathering.is_empty) == (0, True)
