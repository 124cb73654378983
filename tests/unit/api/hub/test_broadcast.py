"""Rows: one write per follower and broadcast, and a correct place for followers that step out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from api.dialects.native.fold import SSE
from api.hub.broadcast import ROW_MAX, WINDOW_S_MAX, BroadcastGroup, FollowerRow
from api.hub.contracts import HubCounters
from api.hub.encoded import EncodedLog
from api.hub.feed import Feed
from api.hub.frame import LiveFrame
from api.hub.pump import Pump
from shared.log.events import End, Token, encode
from shared.log.ids import EventId
from tests.support.hub_harness import make_meta


class Timer:
    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at, self.callback, self.is_cancelled = at, callback, False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeHost:
    """A hub whose pump runs in `run`, and whose clock moves in `pass_time`."""

    def __init__(self) -> None:
        self.counters = HubCounters()
        self.time_s = 100.0
        self.due: deque[Callable[[], None]] = deque()
        self.pump = Pump(self.now, self.due.append)
        self.timers: list[Timer] = []

    def now(self) -> float:
        return self.time_s

    def wake_row(self, row: Any) -> None:
        self.pump.wake_row(row)

    def call_at(self, at: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(at, callback))
        return self.timers[-1]

    def run(self) -> None:
        while self.due:
            self.due.popleft()()

    def pass_time(self, seconds: float) -> None:
        """Move the clock, run due timers, and run the pump."""
        self.time_s += seconds
        due = [t for t in self.timers if t.at <= self.time_s and not t.is_cancelled]
        self.timers = [t for t in self.timers if t not in due and not t.is_cancelled]
        for timer in due:
            timer.callback()
        self.run()


class RecordingFollower:
    """A follower that notes what it was given."""

    def __init__(self) -> None:
        self.row: FollowerRow | None = None
        self.received: list[bytes] = []
        self.write = self.received.append
        self.stepped_out_at = -1

    def step_out(self, seq: int, sent_at: float) -> None:
        self.stepped_out_at = seq

    @property
    def body(self) -> bytes:
        return b"".join(self.received)


class FaultRun:
    """A log, its broadcast group, and followers that have all of the log."""

    def __init__(self, readers: int, entries: int = 20) -> None:
        self.host, self.feed = FakeHost(), Feed()
        self.publish(*(Token(f"w{n}") for n in range(entries)))
        self.log = EncodedLog(self.feed, SSE, make_meta())
        self.group = BroadcastGroup(self.log, self.feed, self.host, is_chunked=True)
        self.readers = [RecordingFollower() for _ in range(readers)]
        for reader in self.readers:
            self.group.admit(reader, entries, self.host.now())

    def publish(self, *events: Any) -> None:
        """Let `events` arrive in one frame, and run the pump."""
        first = self.feed.count + 1
        entries = tuple((EventId(1, first + n), encode(e)) for n, e in enumerate(events))
        self.feed.offer_frame(LiveFrame(self.feed.top, entries, 0))
        if hasattr(self, "group"):
            self.group.note_change()
            self.host.run()


def test_all_followers_get_a_broadcast_as_one_chunk_and_one_object() -> None:
    fault_run = FaultRun(ROW_MAX + 5)
    fault_run.publish(Token("new"))
    frame = b'id: 1-21\nevent: token\ndata: {"text":"new"}\n\n'
    assert {reader.body for reader in fault_run.readers} == {b"%x\r\n%b\r\n" % (len(frame), frame)}
    assert len({id(reader.received[0]) for reader in fault_run.readers}) == 1
    assert fault_run.host.counters.events_delivered == ROW_MAX + 5


def test_a_write_that_raises_does_not_stop_the_writes_to_other_followers() -> None:
    fault_run = FaultRun(3)

    def gone(data: bytes) -> None:
        raise RuntimeError("the handler is closed")

    lost = fault_run.readers[0]
    row = lost.row
    assert row is not None
    row.remove(lost)
    lost.write = gone  # type: ignore[assignment]
    fault_run.group.admit(lost, row.seq, fault_run.host.now())
    # Admit the other followers again, so that their writes come after the one that raises.
    for reader in fault_run.readers[1:]:
        row.remove(reader)
        fault_run.group.admit(reader, row.seq, fault_run.host.now())
    fault_run.publish(Token("new"))
    fault_run.publish(Token("newer"))

    assert [reader.body.count(b"new") for reader in fault_run.readers] == [0, 2, 2]


def test_a_row_has_at_most_row_max_followers() -> None:
    fault_run = FaultRun(3 * ROW_MAX + 1)
    assert [len(row.members) for row in fault_run.group.rows] == [ROW_MAX] * 3 + [1]


def test_a_follower_that_steps_out_gets_the_seq_of_its_row() -> None:
    fault_run = FaultRun(3)
    fault_run.publish(Token("a"), Token("b"))
    leaver = fault_run.readers[1]
    assert leaver.row is not None
    leaver.row.remove(leaver)
    fault_run.publish(Token("c"))
    assert leaver.stepped_out_at == 22
    assert b'"c"' not in leaver.body
    assert b'"c"' in fault_run.readers[0].body


class UnfoldedLog(EncodedLog):
    """A log that folds nothing, as a compressed one without readers."""

    def slice(self, seq: int, bytes_max: int = 0) -> tuple[bytes, int]:
        return b"", seq


def test_a_row_whose_last_follower_has_left_gets_no_further_turn() -> None:
    """A log that nobody reads may stay behind the feed, so the row must not wait for it."""
    fault_run = FaultRun(1)
    (reader,), (row,) = fault_run.readers, fault_run.group.rows
    fault_run.group._log = UnfoldedLog(fault_run.feed, SSE, make_meta())
    assert row.take(fault_run.host.now(), [])
    row.remove(reader)

    assert not row.take(fault_run.host.now(), [])


def test_a_follower_that_a_write_removes_has_been_given_that_broadcast() -> None:
    """A connection may pause within a broadcast: no event is lost, and none comes twice."""
    fault_run = FaultRun(3)
    stopped = fault_run.readers[0]

    def write(data: bytes) -> None:
        stopped.received.append(data)
        assert stopped.row is not None
        stopped.row.remove(stopped)

    stopped.write = write
    fault_run.publish(Token("a"))
    fault_run.publish(Token("b"))
    assert stopped.stepped_out_at == 21
    assert stopped.body.count(b"id: ") == 1
    assert [reader.body.count(b"id: ") for reader in fault_run.readers[1:]] == [2, 2]


def test_after_the_end_all_followers_step_out_with_the_whole_log() -> None:
    fault_run = FaultRun(2)
    fault_run.publish(Token("a"), End("completed", "stop"))
    assert [reader.stepped_out_at for reader in fault_run.readers] == [22, 22]
    assert fault_run.group.rows == []


def test_disband_removes_all_followers_and_cancels_the_window() -> None:
    fault_run = FaultRun(1_000)
    fault_run.publish(Token("a"))
    fault_run.publish(Token("b"))
    assert fault_run.host.timers
    fault_run.group.disband()
    assert {reader.stepped_out_at for reader in fault_run.readers} == {21}
    assert all(timer.is_cancelled for timer in fault_run.host.timers)


def test_with_few_followers_each_broadcast_leaves_at_once() -> None:
    fault_run = FaultRun(20)
    for _ in range(5):
        fault_run.publish(Token("a"))
    assert all(len(reader.received) == 5 for reader in fault_run.readers)


def test_with_many_followers_broadcasts_keep_a_distance_and_lose_no_event() -> None:
    fault_run = FaultRun(1_000)
    fault_run.publish(Token("at once"))
    assert len(fault_run.readers[0].received) == 1, "the first event after a pause leaves at once"
    fault_run.host.pass_time(0.01)
    fault_run.publish(Token("b"))
    fault_run.host.pass_time(0.01)
    fault_run.publish(Token("c"))
    assert len(fault_run.readers[0].received) == 1
    fault_run.host.pass_time(WINDOW_S_MAX)
    assert len(fault_run.readers[0].received) == 2
    assert all(b'"b"' in reader.body and b'"c"' in reader.body for reader in fault_run.readers)


def test_the_end_leaves_before_the_window_is_over() -> None:
    fault_run = FaultRun(1_000)
    fault_run.publish(Token("a"))
    fault_run.publish(Token("b"))
    assert len(fault_run.readers[0].received) == 1
    fault_run.publish(End("completed", "stop"))
    assert b'"b"' in fault_run.readers[0].body and b"event: end" in fault_run.readers[0].body


def test_the_first_events_of_an_answer_leave_at_once() -> None:
    fault_run = FaultRun(1_000, entries=0)
    for n in range(5):
        fault_run.publish(Token(f"t{n}"))
        assert len(fault_run.readers[-1].received) == n + 1
