"""Followers: one write for each broadcast, places that are right whenever somebody steps out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from api.dialects.native.fold import SSE
from api.hub.broadcast import ROW_MAX, WINDOW_S_MAX, BroadcastGroup, Row
from api.hub.contracts import HubCounters
from api.hub.encoded import EncodedLog
from api.hub.feed import Feed
from api.hub.frame import Frame
from api.hub.pump import Pump
from shared.log.events import End, Token, encode
from shared.log.ids import EventId
from tests.support.bench import make_meta


class Timer:
    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at, self.callback, self.is_cancelled = at, callback, False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeHost:
    """A pump that runs when told, and a clock that stands."""

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
        self.time_s += seconds
        due = [t for t in self.timers if t.at <= self.time_s and not t.is_cancelled]
        self.timers = [t for t in self.timers if t not in due and not t.is_cancelled]
        for timer in due:
            timer.callback()
        self.run()


class Reader:
    """A follower that remembers."""

    def __init__(self) -> None:
        self.row: Row | None = None
        self.got: list[bytes] = []
        self.write = self.got.append
        self.stepped_out_at = -1

    def step_out(self, seq: int, sent_at: float) -> None:
        self.stepped_out_at = seq

    @property
    def body(self) -> bytes:
        return b"".join(self.got)


class Room:
    """A log, its audience, and the readers in it."""

    def __init__(self, readers: int, entries: int = 20) -> None:
        self.host, self.feed = FakeHost(), Feed()
        self.say(*(Token(f"w{n}") for n in range(entries)))
        self.log = EncodedLog(self.feed, SSE, make_meta())
        self.audience = BroadcastGroup(self.log, self.feed, self.host, is_chunked=True)
        self.readers = [Reader() for _ in range(readers)]
        for reader in self.readers:
            self.audience.admit(reader, entries, self.host.now())

    def say(self, *events: Any) -> None:
        """Entries arrive, in one frame."""
        first = self.feed.count + 1
        entries = tuple((EventId(1, first + n), encode(e)) for n, e in enumerate(events))
        self.feed.offer_live(Frame(self.feed.top, entries, 0))
        if hasattr(self, "audience"):
            self.audience.note_change()
            self.host.run()


def test_a_broadcast_is_one_chunk_and_one_object_for_all() -> None:
    room = Room(ROW_MAX + 5)
    room.say(Token("new"))
    frame = b'id: 1-21\nevent: token\ndata: {"text":"new"}\n\n'
    assert {reader.body for reader in room.readers} == {b"%x\r\n%b\r\n" % (len(frame), frame)}
    assert len({id(reader.got[0]) for reader in room.readers}) == 1
    assert room.host.counters.events_delivered == ROW_MAX + 5


def test_a_connection_that_is_gone_costs_the_others_nothing() -> None:
    room = Room(3)

    def gone(data: bytes) -> None:
        raise RuntimeError("the handler is closed")

    lost = room.readers[0]
    row = lost.row
    assert row is not None
    row.remove(lost)
    lost.write = gone  # type: ignore[assignment]
    room.audience.admit(lost, row.seq, room.host.now())
    # Again the first of its row, so that the others come after it.
    for reader in room.readers[1:]:
        row.remove(reader)
        room.audience.admit(reader, row.seq, room.host.now())
    room.say(Token("new"))
    room.say(Token("newer"))

    assert [reader.body.count(b"new") for reader in room.readers] == [0, 2, 2]


def test_a_row_is_no_longer_than_the_loop_may_be_held() -> None:
    room = Room(3 * ROW_MAX + 1)
    assert [len(row.members) for row in room.audience.rows] == [ROW_MAX] * 3 + [1]


def test_who_steps_out_knows_its_place() -> None:
    room = Room(3)
    room.say(Token("a"), Token("b"))
    leaver = room.readers[1]
    assert leaver.row is not None
    leaver.row.remove(leaver)
    room.say(Token("c"))
    assert leaver.stepped_out_at == 22
    assert b'"c"' not in leaver.body
    assert b'"c"' in room.readers[0].body


def test_who_is_stopped_by_a_write_has_been_given_it() -> None:
    """A connection that pauses in the middle of a broadcast: nothing is lost, nothing twice."""
    room = Room(3)
    stopped = room.readers[0]

    def write(data: bytes) -> None:
        stopped.got.append(data)
        assert stopped.row is not None
        stopped.row.remove(stopped)

    stopped.write = write
    room.say(Token("a"))
    room.say(Token("b"))
    assert stopped.stepped_out_at == 21
    assert stopped.body.count(b"id: ") == 1
    assert [reader.body.count(b"id: ") for reader in room.readers[1:]] == [2, 2]


def test_after_the_end_everybody_steps_out_with_all_of_it() -> None:
    room = Room(2)
    room.say(Token("a"), End("completed", "stop"))
    assert [reader.stepped_out_at for reader in room.readers] == [22, 22]
    assert room.audience.rows == []


def test_disbanding_puts_everybody_back_and_stops_the_window() -> None:
    room = Room(1_000)
    room.say(Token("a"))
    room.say(Token("b"))
    assert room.host.timers
    room.audience.disband()
    assert {reader.stepped_out_at for reader in room.readers} == {21}
    assert all(timer.is_cancelled for timer in room.host.timers)


def test_few_readers_never_wait() -> None:
    room = Room(20)
    for _ in range(5):
        room.say(Token("a"))
    assert all(len(reader.got) == 5 for reader in room.readers)


def test_with_many_readers_broadcasts_keep_their_distance_and_lose_nothing() -> None:
    room = Room(1_000)
    room.say(Token("at once"))
    assert len(room.readers[0].got) == 1, "what comes after a pause leaves at once"
    room.host.pass_time(0.01)
    room.say(Token("b"))
    room.host.pass_time(0.01)
    room.say(Token("c"))
    assert len(room.readers[0].got) == 1
    room.host.pass_time(WINDOW_S_MAX)
    assert len(room.readers[0].got) == 2
    assert all(b'"b"' in reader.body and b'"c"' in reader.body for reader in room.readers)


def test_the_end_waits_for_no_window() -> None:
    room = Room(1_000)
    room.say(Token("a"))
    room.say(Token("b"))
    assert len(room.readers[0].got) == 1
    room.say(End("completed", "stop"))
    assert b'"b"' in room.readers[0].body and b"event: end" in room.readers[0].body


def test_the_beginning_waits_for_no_window() -> None:
    room = Room(1_000, entries=0)
    for n in range(5):
        room.say(Token(f"t{n}"))
        assert len(room.readers[-1].got) == n + 1
