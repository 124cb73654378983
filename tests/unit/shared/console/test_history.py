"""A point of the history: what all workers and nodes did between two readings of their reports."""

from __future__ import annotations

import msgspec
import pytest

from shared.console.board import Reading
from shared.console.histogram import Counts, add
from shared.console.history import QueueState, events_between, point_of
from shared.console.reports import POINT_MODELS_MAX, ModelFigures, NodeReport, Occurrences
from shared.queue.happenings import Happening
from shared.queue.presence import Presence

QUEUE = QueueState(waiting=3, running=2, silent_ms=9_000)


def histogram(*durations: float) -> Counts:
    counts: Counts = {}
    for seconds in durations:
        add(counts, seconds)
    return counts


def worker(name: str, at_ms: int, **members) -> Presence:
    given = {"counters": {}, **members}
    return Presence(name, at_ms, 100, 1, False, **given)


def node(name: str, at_ms: int, **members) -> NodeReport:
    given = {"readers": {}, "counters": {}, "redis_s": 0.001, "loop_lag_s": 0.002, **members}
    return NodeReport(name, at_ms, 0, False, **given)


def reading(now_ms: int, *workers: Presence, nodes: tuple[NodeReport, ...] = ()) -> Reading:
    return Reading(now_ms, list(workers), {}, list(nodes))


def test_tokens_per_second_are_what_all_workers_added_by_the_time_between_the_readings():
    before = reading(0, worker("a", 0, counters={"tokens": 100.0}), worker("b", 0))
    now = reading(
        10_000,
        worker("a", 10_000, counters={"tokens": 300.0}),
        worker("b", 10_000, counters={"tokens": 50.0}),
    )

    point = point_of(before, now, 10_000, QUEUE)

    assert (point.tokens_per_s, point.seconds) == (25.0, 10.0)


def test_a_worker_that_began_between_the_readings_counts_with_all_that_it_did():
    now = reading(10_000, worker("a", 10_000, counters={"tokens": 40.0}))

    assert point_of(reading(0), now, 10_000, QUEUE).tokens_per_s == 4.0


def test_quantiles_are_those_of_the_durations_between_the_readings_only():
    before = reading(0, worker("a", 0, first_tokens=histogram(9, 9, 9), gaps=histogram(5)))
    now = reading(
        10_000,
        worker("a", 1, first_tokens=histogram(9, 9, 9, 0.2), gaps=histogram(5, 0.05)),
        worker("b", 1, first_tokens=histogram(0.2, 0.4)),
    )

    point = point_of(before, now, 10_000, QUEUE)

    assert point.answers == 3
    assert point.first_p50_s == pytest.approx(0.2, rel=0.03)
    assert point.first_p99_s == pytest.approx(0.4, rel=0.03)
    assert point.gap_p99_s == pytest.approx(0.05, rel=0.03)


def test_without_answers_there_are_no_quantiles():
    point = point_of(reading(0), reading(10_000), 10_000, QUEUE)

    assert (point.first_p50_s, point.gap_max_s, point.redis_s) == (None, None, None)


def test_the_longest_gap_is_also_one_that_still_lasts():
    now = reading(10_000, worker("a", 10_000, gaps=histogram(0.05), silence_s=7.5))

    assert point_of(reading(0), now, 10_000, QUEUE).gap_max_s == 7.5


def test_the_silence_of_a_worker_that_is_gone_is_no_gap():
    now = reading(100_000, worker("a", 10_000, silence_s=7.5))

    assert point_of(reading(0), now, 100_000, QUEUE).gap_max_s is None


def test_the_round_trip_and_the_lag_are_those_of_the_worst_living_node():
    nodes = (
        node("a", 10_000, redis_s=0.004, loop_lag_s=0.2, readers={"sse": 2, "ndjson": 1}),
        node("b", 10_000, redis_s=0.009, loop_lag_s=0.1, readers={"sse": 4}),
        node("gone", -90_000, redis_s=5.0, loop_lag_s=5.0, readers={"sse": 9}),
    )

    point = point_of(reading(0), reading(10_000, nodes=nodes), 10_000, QUEUE)

    assert (point.redis_s, point.loop_lag_s, point.readers) == (0.009, 0.2, 7)


def test_each_counter_that_rose_is_an_event_of_its_process():
    before = reading(
        0, worker("w", 0, counters={"takeovers": 1.0}), nodes=(node("n", 0, counters={"cuts": 2}),)
    )
    now = reading(
        9_000,
        worker("w", 9_000, counters={"takeovers": 4.0, "leases_lost": 1.0, "pieces": 5.0}),
        nodes=(node("n", 9_000, counters={"cuts": 2, "resumes": 3}),),
    )

    assert list(events_between(before, now, 9_000)) == [
        Occurrences("takeovers", "w", 3),
        Occurrences("leases_lost", "w", 1),
        Occurrences("resumes", "n", 3),
    ]


def test_processes_that_come_and_go_are_events():
    before = reading(0, worker("old", 0), nodes=(node("dead", 0),))
    now = reading(60_000, worker("old", 0), worker("new", 60_000), nodes=(node("n", 60_000),))

    assert list(events_between(before, now, 9_000)) == [
        Occurrences("worker_started", "new", 1),
        Occurrences("worker_gone", "old", 1),
        Occurrences("node_started", "n", 1),
        Occurrences("node_gone", "dead", 1),
    ]


def test_waits_and_runs_of_a_point_are_those_between_the_readings_by_model():
    before = reading(0, worker("a", 0, waits={"m": histogram(9)}, runs={"m": histogram(9)}))
    waits = {"m": histogram(9, 0.5), "n": histogram(0.1)}
    now = reading(10_000, worker("a", 1, waits=waits, runs={"m": histogram(9, 2)}), worker("b", 1))

    models = point_of(before, now, 10_000, QUEUE).models

    assert models == {
        "m": ModelFigures(histogram(0.5), histogram(2)),
        "n": ModelFigures(histogram(0.1), {}),
    }


def test_a_point_has_the_models_with_the_most_attempts_only():
    waits = {f"m{n:02}": {5: n + 1} for n in range(40)}

    models = point_of(reading(0), reading(10_000, worker("a", 1, waits=waits)), 1, QUEUE).models

    assert len(models) == POINT_MODELS_MAX and "m39" in models and "m00" not in models


def test_an_event_names_the_newest_generations_that_it_happened_to():
    some = [Happening("takeovers", "gen_1"), Happening("attempts_failed", "gen_2")]
    more = [*some, Happening("takeovers", "gen_3"), Happening("takeovers", "gen_4")]
    before = reading(
        0, worker("a", 0, counters={"takeovers": 1.0}, happened=some, happened_count=2)
    )
    now = reading(1, worker("a", 1, counters={"takeovers": 3.0}, happened=more, happened_count=4))

    (event,) = events_between(before, now, 9_000)

    assert event == Occurrences("takeovers", "a", 2, ["gen_4", "gen_3"])


def test_an_event_of_an_earlier_version_has_no_generations():
    before, now = (
        reading(0, worker("a", 0)),
        reading(1, worker("a", 1, counters={"takeovers": 3.0})),
    )

    assert list(events_between(before, now, 9_000)) == [Occurrences("takeovers", "a", 3, [])]
    assert msgspec.json.decode(b'["cuts","n",1]', type=Occurrences) == Occurrences("cuts", "n", 1)
