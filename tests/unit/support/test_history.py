"""The checker finds every violation it promises to find, in histories made by hand."""

from __future__ import annotations

import pytest

from tests.support.deliveries import Closed, Delivery, Opened, Reading, parse_id, read_log
from tests.support.history import History, check_log, check_reading


def event(event_id, kind="token", at=0.0, **fields):
    if kind == "start" and not fields:
        fields = {"attempt": int(event_id.split("-")[0]), "model": "demo"}
    if kind == "token" and not fields:
        fields = {"text": f"t{event_id.split('-')[-1]} "}
    if kind == "end" and not fields:
        fields = {"status": "completed", "finish_reason": "stop"}
    return Delivery(event_id, kind, fields, at)


def good_log():
    return [event("1-1", "start"), event("1-2"), event("1-3"), event("1-4"), event("1-5", "end")]


LOST_END = {"status": "failed", "error": {"code": "lost", "message": "", "retryable": True}}
OPENED = Opened("n1", "sse", "")
CLEAN = Closed("clean")
BROKEN = Closed("broken")


def reading(*steps, name="r1"):
    return Reading(name, [OPENED, *steps])


def history(*readings, log=None, expected=None, snapshot=None):
    kept = History()
    record = kept.accepted("g", at=0.0, expected_text=expected)
    record.readings.extend(readings)
    record.log, record.snapshot = log, snapshot
    return kept


def snapshot(text="t2 t3 t4 ", last="1-5", status="completed"):
    return {"status": status, "text": text, "last_event_id": last}


def test_a_good_history_has_no_violation():
    first = reading(*good_log(), CLEAN)
    second = reading(*good_log()[:2], BROKEN, OPENED, *good_log()[2:], CLEAN, name="r2")

    kept = history(first, second, log=good_log(), expected="t2 t3 t4 ", snapshot=snapshot())

    assert kept.check(bound_s=10) == []


def test_joined_tokens_whose_text_is_the_logs_are_no_gap():
    joined = reading(event("1-1", "start"), event("1-4", text="t2 t3 t4 "), good_log()[-1], CLEAN)

    assert history(joined, log=good_log(), expected="t2 t3 t4 ").check(bound_s=10) == []


def test_a_takeover_that_continues_is_good():
    log = [event("1-1", "start"), event("1-2"), event("2-3", "start"), event("2-4")]
    log += [event("2-5", "end")]

    assert history(reading(*log, CLEAN), log=log, expected="t2 t4 ").check(bound_s=10) == []


def test_a_takeover_that_restarts_is_good_and_its_text_starts_again():
    log = [event("1-1", "start"), event("1-2"), event("2-3", "start")]
    log += [event("2-4", "reset", reason="worker_lost"), event("2-5"), event("2-6", "end")]

    assert history(reading(*log, CLEAN), log=log, expected="t5 ").check(bound_s=10) == []


def test_a_cancel_ends_under_an_attempt_of_its_own_without_start():
    log = [event("1-1", "start"), event("1-2")]
    log += [event("2-3", "end", status="cancelled", finish_reason="cancelled")]

    assert history(reading(*log, CLEAN), log=log).check(bound_s=10) == []


def test_ids_may_fall_after_a_reset_with_id_0_0():
    steps = [event("1-1", "start"), event("1-2", text="old"), event("0-0", "reset", reason="lost")]
    log = [
        event("1700000000000-1", "start"),
        event("1700000000000-2"),
        event("1700000000000-3", "end"),
    ]

    assert history(reading(*steps, *log, CLEAN), log=log).check(bound_s=10) == []


def test_end_lost_with_id_0_0_is_an_end():
    steps = [event("1-1", "start"), event("1-2"), event("0-0", "end", **LOST_END), CLEAN]

    assert history(reading(*steps)).check(bound_s=10) == []


@pytest.mark.parametrize(
    "how, is_violation",
    [
        ("clean", True),
        ("status 204", True),
        ("stalled", True),
        ("left", False),
        ("code 1000", True),
        ("code 1001", True),
        ("code 4501", True),
        ("broken", False),
        ("status 503", False),
        ("refused", False),
        ("code 1006", False),
        ("code 1012", False),
        ("code 4008", False),
    ],
)
def test_a_connection_that_stops_before_the_end(how, is_violation):
    """Only a visible break may come before the end."""
    steps = [*good_log()[:3], Closed(how), OPENED, *good_log()[3:], CLEAN]

    problems = check_reading(reading(*steps))

    assert any("silent end" in p for p in problems) == is_violation
    assert len(problems) == is_violation


@pytest.mark.parametrize(
    "steps, words",
    [
        ([event("1-1", "start"), event("1-3", "reasoning", text="x")], "gap: reasoning 1-3"),
        ([event("1-2"), event("1-3")], "opens with token"),
        ([event("1-2")], "gap: token 1-2 after 0-0"),
        ([event("1-1", "start"), event("1-2"), event("1-2")], "repeat: token 1-2"),
        ([event("1-1", "start"), event("1-3"), event("1-2")], "order: token 1-2 after 1-3"),
        ([event("2-1", "start"), event("1-2")], "order: token 1-2 after 2-1"),
        ([event("1-1", "start"), event("1-3"), event("2-3", "start")], "order: start 2-3"),
        ([event("1-1", "start"), event("1-2"), event("2-4")], "gap: token 2-4"),
        ([event("1-1", "start"), event("2-2")], "attempt 2 opens with token"),
        ([event("1-1", "start", attempt=2, model="m")], "says attempt 2"),
        ([event("1-1", "start"), event("0-0", text="x")], "token with id 0-0"),
        ([event("1-1", "start"), event("01-2")], "malformed id"),
        ([event("1-1", "start"), event("x")], "malformed id"),
        ([*good_log(), event("1-6")], "token 1-6 after the end"),
        ([*good_log(), event("1-6", "end")], "end 1-6 after the end"),
        (good_log()[:4], "no end"),
    ],
)
def test_each_bad_reading_is_found(steps, words):
    problems = check_reading(reading(*steps))

    assert any(words in problem for problem in problems), problems


@pytest.mark.parametrize(
    "log, words",
    [
        ([*good_log()[:2], *good_log()[3:]], "gap: token 1-4 after 1-2"),
        (good_log()[1:], "opens with token"),
        (good_log()[:4], "0 end events"),
        ([*good_log(), event("1-6", "end")], "2 end events"),
        ([*good_log(), event("1-6")], "after the end"),
        ([event("1-1", "start"), event("2-2"), event("2-3", "end")], "attempt 2 opens with token"),
    ],
)
def test_each_bad_log_is_found(log, words):
    problems = check_log(log)

    assert any(words in problem for problem in problems), problems


def test_an_unfinished_log_needs_no_end():
    assert check_log(good_log()[:4], is_finished=False) == []


def test_a_join_that_swallowed_text_is_found():
    joined = reading(event("1-1", "start"), event("1-4", text="t2 t4 "), good_log()[-1], CLEAN)

    problems = history(joined, log=good_log()).check(bound_s=10)

    assert any("token 1-4 differs from the log" in p for p in problems), problems


def test_a_join_over_another_event_is_found():
    log = [event("1-1", "start"), event("1-2"), event("1-3", "usage", total_tokens=1)]
    log += [event("1-4"), event("1-5", "end")]
    joined = reading(log[0], event("1-4", text="t2 t4 "), log[-1], CLEAN)

    problems = history(joined, log=log).check(bound_s=10)

    assert any("differs from the log" in p for p in problems), problems


def test_an_event_that_the_log_does_not_have_is_found():
    other = [*good_log()[:4], event("2-5", "start"), event("2-6", "end")]

    problems = history(reading(*other, CLEAN), log=good_log()).check(bound_s=10)

    assert any("start 2-5 is not in the log" in p for p in problems), problems


def test_another_payload_under_the_same_id_is_found():
    changed = [*good_log()[:4], event("1-5", "end", status="failed", finish_reason="error")]

    problems = history(reading(*changed, CLEAN), log=good_log()).check(bound_s=10)

    assert any("end 1-5 differs" in p for p in problems), problems


def test_two_texts_under_one_id_are_found_also_before_a_reset():
    voided = [event("1-1", "start"), event("1-2", text="other"), event("0-0", "reset", reason="x")]
    first = reading(*voided, *good_log(), CLEAN)
    second = reading(*good_log(), CLEAN, name="r2")

    problems = history(first, second).check(bound_s=10)

    assert any("two texts at 1-2" in p for p in problems), problems


def test_different_ends_are_found():
    cancelled = event("1-5", "end", status="cancelled", finish_reason="cancelled")
    first = reading(*good_log(), CLEAN)
    second = reading(*good_log()[:4], cancelled, CLEAN, name="r2")

    problems = history(first, second).check(bound_s=10)

    assert any("different ends" in p for p in problems), problems


def test_a_text_that_is_not_the_expected_one_is_found():
    problems = history(reading(*good_log(), CLEAN), expected="t2 t3 tx ").check(bound_s=10)

    assert any("first difference at 7" in p for p in problems), problems


def test_a_snapshot_that_disagrees_is_found():
    full = reading(*good_log(), CLEAN)

    for bad, words in (
        (snapshot(text="t2 "), "text of the snapshot"),
        (snapshot(last="1-4"), "last_event_id"),
        (snapshot(status="running"), "says 'running'"),
    ):
        problems = history(full, log=good_log(), snapshot=bad).check(bound_s=10)
        assert any(words in p for p in problems), problems


def test_an_end_that_came_too_late_is_found():
    late = reading(*good_log()[:4], event("1-5", "end", at=11.0), CLEAN)

    problems = history(late).check(bound_s=10)

    assert any("ended after 11.0 s" in p for p in problems), problems


def test_a_generation_nobody_saw_end_is_found():
    assert any("nobody knows" in p for p in history().check(bound_s=10))


def test_a_dump_of_a_log_is_read_as_redis_gives_it():
    assert read_log([(b"1-2", b'{"type":"token","text":"x"}')]) == [event("1-2", text="x")]


@pytest.mark.parametrize(
    "text", ["", "1", "1-", "-1", "1-0", "0-1", "01-1", "1-1 ", "1-٣", "1-1-1"]
)
def test_only_canonical_ids_are_read(text):
    with pytest.raises(ValueError):
        parse_id(text)


def test_the_cursor_of_a_reading_is_the_last_id_and_nothing_after_a_reset_0_0():
    assert reading().cursor == ""
    assert reading(event("1-1", "start"), BROKEN).cursor == "1-1"
    assert reading(event("1-1", "start"), event("0-0", "reset", reason="x")).cursor == ""


def test_figures_count_what_a_soak_prints():
    kept = history(
        reading(event("1-1", "start", at=1.0), BROKEN, event("1-2", "end", at=4.0), CLEAN)
    )

    figures = kept.figures()

    assert figures["breaks"] == 1
    assert figures["longest_gap_s"] == 3.0
