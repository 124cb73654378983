"""The table of generations: rows from reports, the filter, pages, rates, and details."""

from __future__ import annotations

import pytest
from starlette.datastructures import QueryParams

from api.console.details import Details, read_detail
from api.console.limits import ROWS_PER_PAGE
from api.console.rows import (
    Detail,
    Filter,
    LiveRuns,
    Row,
    cut,
    cut_unfinished,
    queued_rows,
    readers_of,
)
from shared.console.queue_state import Queued, look_commands, state_of
from shared.console.reports import LiveRun, NodeReport
from shared.errors import RequestError


def run(name: str, *, attempt: int = 1, tokens: int = 5, idle_ms: int = 20) -> LiveRun:
    return LiveRun(name, "ann", "demo", "openai", "interactive", 1_000, attempt, tokens, idle_ms)


def detail(status: str = "queued", **members) -> Detail:
    return Detail("ann", "demo", "interactive", 1_000, status, **members)


def live(runs: dict[str, list[LiveRun]], at_ms: int = 1_000) -> LiveRuns:
    found = LiveRuns()
    found.update(runs, dict.fromkeys(runs, at_ms))
    return found


def test_a_row_of_a_running_generation_is_what_its_worker_reports():
    assert live({"w1": [run("g1")]}).row("g1", 3) == Row(
        "g1", "running", "ann", "demo", "openai", "interactive", "w1",
        attempt=1, readers=3, tokens=5, idle_ms=20, created_at_ms=1_000,
    )  # fmt: skip


def test_of_two_workers_that_report_a_generation_the_later_attempt_holds_it():
    found = live({"old": [run("g1")], "new": [run("g1", attempt=2)], "x": [run("g1")]})

    assert found.row("g1", 0).worker == "new"


def test_runs_of_a_worker_that_is_gone_are_not_shown():
    found = LiveRuns()
    found.update({"gone": [run("g1")]}, {"w1": 5})

    assert found.by_id == {}


def test_a_backend_that_gave_nothing_yet_has_no_last_token():
    assert live({"w1": [run("g1", idle_ms=-1)]}).row("g1", 0).idle_ms is None


def test_the_rate_is_that_between_two_reports_of_the_worker():
    found = live({"w": [run("g1", tokens=5)]}, 1_000)
    assert found.row("g1", 0).tokens_per_s is None
    for _ in range(2):  # the second time the same report is read again
        found.update({"w": [run("g1", tokens=25)]}, {"w": 3_000})
        assert found.row("g1", 0).tokens_per_s == 10.0


def test_another_attempt_has_a_rate_of_its_own():
    found = live({"w": [run("g1", tokens=50)]}, 1_000)
    found.update({"w": [run("g1", attempt=2, tokens=1)]}, {"w": 2_000})

    assert found.row("g1", 0).tokens_per_s is None


def test_a_waiting_generation_shows_since_when_it_waits_and_its_owner_once_known():
    state = state_of("q", [1, 0, 2, [b"g1", b"4000", b"g2", b"5000"], 0, []], 9_000)
    assert state is not None

    found = queued_rows([state], {"g1": detail()}, {}, 10_000)

    assert [(row.id, row.owner, row.waiting_ms) for row in found.values()] == [
        ("g1", "ann", 6_000),
        ("g2", None, 5_000),
    ]


def test_the_state_of_a_partition_has_the_oldest_of_each_priority():
    replies = [7, 1, 2, [(b"g1", 4000.0), (b"g2", 5000.0)], 1, [(b"b1", 1000.0)]]
    state = state_of("q3", replies, 9_000)

    assert state is not None
    assert (state.running, state.later, state.waiting) == (7, 1, {"interactive": 2, "batch": 1})
    assert (state.oldest_s("interactive"), state.oldest_s("batch")) == (5.0, 8.0)
    assert state.queued[2] == Queued("b1", "batch", 1_000)
    assert len(look_commands("q3", 5)) == len(replies)


def test_a_partition_on_a_shard_that_is_away_has_no_state():
    assert state_of("q", [RuntimeError()] * 6, 0) is None


ROWS = [
    Row("gen_a", "running", "ann", "small", "openai", worker="w1"),
    Row("gen_b", "running", "bob", "large", "vllm", worker="w2"),
    Row("gen_c", "queued", "ann", "large"),
    Row("gen_d", "failed", "ann", "small"),
]


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", "abcd"),
        ("state=running", "ab"),
        ("state=queued", "c"),
        ("state=ended", "d"),
        ("owner=ann", "acd"),
        ("model=large", "bc"),
        ("worker=w2", "b"),
        ("backend=vllm", "b"),
        ("search=gen_b", "b"),
        ("owner=ann&model=small&state=running", "a"),
        ("owner=nobody", ""),
    ],
)
def test_a_filter_shows_what_it_names(query, shown):
    page = cut(ROWS, Filter.read(QueryParams(query)))

    assert "".join(row.id[-1] for row in page.rows) == shown
    assert page.total == len(shown)


@pytest.mark.parametrize(
    "query", ["state=odd", "page=0", "page=x", "page=201", "owner=" + "x" * 201]
)
def test_a_filter_that_cannot_be_is_refused(query):
    with pytest.raises(RequestError):
        Filter.read(QueryParams(query))


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", "qba"),
        ("state=running", "ba"),
        ("state=queued", "q"),
        ("owner=ann", "qba"),
        ("owner=zoe", ""),
        ("worker=w2", "b"),
        ("backend=openai&model=demo", "ba"),
        ("search=gen_b", "b"),
    ],
)
def test_unfinished_generations_come_from_reports_and_from_the_queue_newest_first(query, shown):
    found = live({"w1": [run("gen_a")], "w2": [run("gen_b")]})
    others = {
        "gen_q": Row("gen_q", "queued", "ann", "demo", created_at_ms=9_000),
        "gen_a": Row("gen_a", "queued", "ann", "demo", created_at_ms=9_000),  # begun since
    }

    page = cut_unfinished(found, others, {}, Filter.read(QueryParams(query)))

    assert "".join(row.id[-1] for row in page.rows) == shown


def test_pages_follow_each_other_without_a_gap():
    runs = [
        LiveRun(f"gen_{n:03}", "ann", "demo", "openai", "interactive", n, 1, 5, 9)
        for n in range(2 * ROWS_PER_PAGE + 1)
    ]
    pages = [cut_unfinished(live({"w": runs}), {}, {}, Filter(page=n)) for n in (1, 2, 3, 4)]

    ids = [row.id for page in pages for row in page.rows]
    assert ids == [each.id for each in reversed(runs)]
    assert [len(page.rows) for page in pages] == [ROWS_PER_PAGE, ROWS_PER_PAGE, 1, 0]
    assert pages[0].total == len(runs)


def test_readers_of_a_generation_are_those_of_all_nodes():
    def report(name: str, readers: dict[str, int]) -> NodeReport:
        return NodeReport(name, 0, 0, False, {}, {}, 0.0, 0.0, readers)

    assert readers_of([report("a", {"g": 2, "h": 1}), report("b", {"g": 3})]) == {"g": 5, "h": 1}


def test_details_are_read_once_for_an_ended_generation_and_again_for_others():
    details = Details()
    details.want(["g1", "g2", "g1"])
    assert details.take_wanted(9) == ["g1", "g2"]
    details.take("g1", [b"completed", b"ann", b"demo", None, b"7", b"1", b"9", b"{}"])
    details.take("g2", [b"running", b"ann", b"demo", None, b"7", b"1", None, None])

    details.want(["g1", "g2"])

    assert details.take_wanted(9) == ["g2"]
    assert details.take_wanted(9) == []


def test_details_have_the_code_of_an_error_and_never_its_message():
    end = b'{"type":"end","status":"failed","error":{"code":"upstream_error","message":"secret"}}'
    found = read_detail([b"failed", b"ann", b"demo", b"batch", b"7", b"2", b"9", end])

    assert found == Detail("ann", "demo", "batch", 7, "failed", 2, 9, "upstream_error")
    assert read_detail([None] * 8) is None and read_detail([b"sealed"] + [None] * 7) is None
