"""The small pure parts of the hub, each by its own rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from api.hub.feed import Feed
from api.hub.frame import Frame, FrameInvalid, TopNotice, parse_frame
from api.hub.position import Placing, Position
from api.hub.probe import Probe
from api.hub.pump import WRITES_PER_TURN, Broadcast, Pump, Write
from api.hub.recheck import Recheck, RecheckDecision
from api.hub.timer_wheel import TimerWheel
from api.readers.slow_reader import Blockage
from shared.log.ids import START, EventId
from shared.log.records import Top

TOKEN = b'{"type":"token","text":"x"}'

# Frames


def test_a_frame_has_the_id_before_it_and_its_entries() -> None:
    payload = b'1-41\n1-42 {"type":"token","text":" a b"}\n2-43 {"type":"end"}'
    assert parse_frame(payload) == Frame(
        EventId(1, 41),
        (
            (EventId(1, 42), b'{"type":"token","text":" a b"}'),
            (EventId(2, 43), b'{"type":"end"}'),
        ),
        len(payload),
    )


def test_a_notice_names_the_top() -> None:
    assert parse_frame(b"top 1-99") == TopNotice(EventId(1, 99))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"x",
        b"1-2\n1-4 {}",
        b"2-2\n1-3 {}",
        b"1-2\n1-3",
        b"1-2\n1-3 {}\n1-3 {}",
        b"top x",
        b"\xff",
    ],
)
def test_what_is_no_chain_is_invalid(payload: bytes) -> None:
    with pytest.raises(FrameInvalid):
        parse_frame(payload)


# Positions


def whole_feed(*attempts: int) -> Feed:
    """A feed that has been read: entry n under the nth attempt."""
    feed = Feed()
    page = [(EventId(attempt, n + 1), TOKEN) for n, attempt in enumerate(attempts)]
    feed.offer_page(feed.request_page(100), page)
    return feed


def test_a_reader_is_placed_after_the_very_entry_it_has_seen() -> None:
    position = Position(EventId(1, 2), now=0)
    assert position.place(whole_feed(1, 1, 1), 0) is Placing.PLACED
    assert position.seq == 2


def test_the_same_seq_of_another_attempt_is_not_that_entry() -> None:
    position = Position(EventId(1, 2), now=0)
    assert position.place(whole_feed(1, 2, 2), 0) is Placing.RESET
    assert position.seq == 0


def test_beyond_the_top_is_waited_for() -> None:
    feed, position = whole_feed(1), Position(EventId(1, 2), now=0)
    assert position.place(feed, 1.9) is Placing.WAITING
    assert position.place(feed, 2.0) is Placing.RESET


def test_nothing_is_decided_by_a_copy_that_is_being_read() -> None:
    feed, position = whole_feed(1), Position(EventId(7, 1), now=0)
    feed.mark_stale()
    assert position.place(feed, 100) is Placing.WAITING


def test_after_a_rewrite_a_reader_stands_where_its_entry_is() -> None:
    feed, position = whole_feed(1, 1, 1), Position(EventId(1, 1), now=0)
    position.place(feed, 0)
    position.seq = 2
    feed.mark_stale()
    feed.offer_page(feed.request_page(100), [(EventId(1, 2), TOKEN), (EventId(2, 3), TOKEN)])
    assert feed.epoch == 1
    position.leave(feed.former, now=5)
    assert position.cursor == EventId(1, 2)


# Slowness


def test_slow_is_no_progress_for_a_second_and_too_much_unsent() -> None:
    blockage = Blockage(0, 100)
    assert not slow(blockage, 0.9, buffer=100, backlog=2_000)
    assert not slow(blockage, 1.0, buffer=100, backlog=1_000)
    assert slow(blockage, 1.0, buffer=100, backlog=1_001)


def test_progress_starts_the_second_again() -> None:
    blockage = Blockage(0, 100)
    assert not slow(blockage, 0.9, buffer=99, backlog=9_999)
    assert not slow(blockage, 1.8, buffer=99, backlog=9_999)
    assert slow(blockage, 2.0, buffer=99, backlog=9_999)


def test_a_minute_without_progress_is_slow_whatever_is_unsent() -> None:
    assert slow(Blockage(0, 0), 60, buffer=0, backlog=0)


def slow(blockage: Blockage, now: float, *, buffer: int, backlog: int) -> bool:
    return blockage.is_too_slow(now, unread_bytes=buffer, backlog_bytes=backlog, bytes_max=1_000)


# The pump


class FakeSink:
    def __init__(self, turns: int, order: list[str], name: str, work: Callable[[], None]) -> None:
        self.is_queued = False
        self.turns, self.order, self.name, self.work = turns, order, name, work

    def pump(self, now: float) -> bool:
        self.order.append(self.name)
        self.work()
        self.turns -= 1
        return self.turns > 0


def test_sinks_take_turns_and_the_loop_is_let_go_after_a_slice() -> None:
    time, order, calls = [0.0], [], []

    def work() -> None:
        time[0] += 0.001

    pump = Pump(lambda: time[0], calls.append, slice_s=0.0025)
    sinks = [FakeSink(2, order, name, work) for name in "abc"]
    for sink in [*sinks, *sinks]:
        pump.wake(sink)
    runs = 0
    while calls:
        calls.pop()()
        runs += 1
    assert order == list("abcabc")
    assert runs == 2


class FakeRow:
    """Says the same to each of its readers in each of its turns."""

    def __init__(self, turns: int, name: bytes, readers: list[Write]) -> None:
        self.is_queued = False
        self.members = readers
        self.turns, self.name = turns, name

    def take(self, now: float, due: list[Broadcast]) -> bool:
        due.append((tuple(self.members), self.name))
        self.turns -= 1
        return self.turns > 0


def test_what_rows_have_leaves_a_bounded_lot_at_a_time_between_the_sinks() -> None:
    written: list[Any] = []
    calls: list[Callable[[], None]] = []
    pump = Pump(lambda: 0.0, calls.append)
    half = WRITES_PER_TURN // 2
    pump.wake(FakeSink(1, written, "sink", lambda: None))
    for row in [FakeRow(2, name, [written.append] * half) for name in (b"a", b"b", b"c")]:
        pump.wake_row(row)
        pump.wake_row(row)
    while calls:
        calls.pop()()

    lots = [written[n : n + half] for n in range(0, 2 * half, half)]
    assert lots == [[b"a"] * half, [b"b"] * half]
    assert written[2 * half] == "sink", "nobody is kept waiting by rows without end"
    assert all(written.count(name) == 2 * half for name in (b"a", b"b", b"c"))


# The wheel


def test_the_wheel_gives_each_thing_once_and_not_too_early() -> None:
    wheel: TimerWheel[str] = TimerWheel(0.25)
    wheel.put("b", 1.1)
    wheel.put("a", 1.0)
    assert wheel.pop_due(0.99) == []
    assert wheel.pop_due(1.0) == ["a"]
    assert wheel.pop_due(1.26) == ["b"]
    assert wheel.pop_due(99) == []
    assert len(wheel) == 0


def test_what_is_removed_from_the_wheel_is_held_no_longer() -> None:
    wheel: TimerWheel[str] = TimerWheel(0.25)
    wheel.put("a", 1.0)
    wheel.put("b", 1.0)
    wheel.put("b", 2.0)
    wheel.remove("a")
    wheel.remove("nobody")

    assert len(wheel) == 1
    assert wheel.pop_due(1.5) == []
    assert wheel.pop_due(2.0) == ["b"]
    assert wheel.pop_due(99) == []


# The probe


def test_a_probe_is_heard_or_the_connection_is_deaf() -> None:
    probe = Probe(interval_s=5, answer_s=2)
    payload = probe.next_payload(0)
    assert payload is not None
    assert probe.next_payload(1) is None
    probe.receive(b"another", 1)
    assert not probe.is_heard
    probe.receive(payload, 1)
    assert probe.is_heard
    assert probe.next_payload(5.9) is None
    assert probe.next_payload(6) is not None
    assert not probe.expire(7.9)
    assert probe.expire(8)
    assert not probe.is_heard
    assert not probe.expire(9)


# The recheck


def top(status: str | None = "running", seq: int = 3, **changes: int) -> Top:
    values = {"lease_ms": 50_000, "waiting_since_ms": 0, "now_ms": 50_000, **changes}
    return Top(status=status, id=EventId(1, seq) if seq else None, **values)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (top(), RecheckDecision.NOTHING),
        (top(seq=4), RecheckDecision.REPAIR),
        (top(seq=2), RecheckDecision.REPAIR),
        (top(seq=0), RecheckDecision.REPAIR),
        (top("completed", seq=4), RecheckDecision.REPAIR),
        (top("completed", seq=0), RecheckDecision.EXPIRED),
        (top("sealed", seq=0), RecheckDecision.LOST),
        (top(None, seq=0), RecheckDecision.NOTHING),
        (top(now_ms=56_000), RecheckDecision.NOTHING),
        (top(now_ms=56_001), RecheckDecision.REQUEUE),
        (top(lease_ms=0, waiting_since_ms=20_000), RecheckDecision.NOTHING),
        (top(lease_ms=0, waiting_since_ms=19_999), RecheckDecision.REQUEUE),
    ],
)
def test_one_answer_is_judged(answer: Top, verdict: RecheckDecision) -> None:
    assert Recheck(lease_s=3).decide(answer, EventId(1, 3), now=0) is verdict


def test_absence_is_sealed_after_ten_seconds_of_answers() -> None:
    recheck = Recheck(lease_s=3)
    verdicts = [recheck.decide(top(None, seq=0), START, now) for now in range(11)]
    assert verdicts == [RecheckDecision.NOTHING] * 10 + [RecheckDecision.SEAL]


def test_silence_of_redis_is_no_absence() -> None:
    recheck = Recheck(lease_s=3)
    for now in (0, 1, 60, 61):
        assert recheck.decide(top(None, seq=0), START, now) is RecheckDecision.NOTHING


def test_who_comes_back_is_not_absent() -> None:
    recheck = Recheck(lease_s=3)
    for now in (*range(9), 9.5, *range(10, 19)):
        answer = top("queued", seq=0) if now == 9.5 else top(None, seq=0)
        assert recheck.decide(answer, START, now) is RecheckDecision.NOTHING


def test_a_forgotten_generation_is_requeued_every_half_minute() -> None:
    recheck = Recheck(lease_s=1)
    asked = [
        now_s
        for now_s in range(100, 180)
        if recheck.decide(top(now_ms=now_s * 1_000), EventId(1, 3), now_s) is RecheckDecision.REQUEUE
    ]
    assert asked == [100, 130, 160]
