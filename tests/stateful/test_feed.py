"""The feed, a node's copy of a log, under any order of events.

The events are appends, rollbacks, lost, doubled and late frames, and pages whose reply comes later
than the request. The model is Redis: a list of entries and a channel. A rollback removes a tail;
the next entries have other texts and other ids, because no id is given twice. The model remembers
every state of the log: a copy must be the beginning of one of them. When no event is pending and
the top was compared, the copy must equal the log.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from api.hub.feed import Feed
from api.hub.frame import Entry, LiveFrame
from api.hub.position import Placement, Position
from shared.log.ids import START, EventId

LOG_MAX = 24
READERS_MAX = 3


def payload_of(frame: LiveFrame) -> bytes:
    """Return the frame as the scripts publish it."""
    lines = [b"%d-%d" % frame.prev, *(b"%d-%d %b" % (*e, raw) for e, raw in frame.entries)]
    return b"\n".join(lines)


class Reader:
    """One reader of the copy, driven as by the hub."""

    def __init__(self) -> None:
        self.position = Position(START, 0.0)
        self.got: list[Entry] = []  # since the last reset

    def read(self, feed: Feed, now: float, count: int) -> None:
        placing = self.position.place(feed, now)
        if placing is Placement.WAITING:
            return
        if placing is Placement.RESET:
            self.got = []
        for seq in range(self.position.seq + 1, min(feed.count, self.position.seq + count) + 1):
            self.got.append((feed.ids.at(seq), feed.raws[seq - 1]))
            self.position.seq = seq


class FeedMachine(RuleBasedStateMachine):
    feed_class: type[Feed] = Feed

    @initialize(buffer_bytes=st.sampled_from([40, 1_000_000]), was_there=st.integers(0, 4))
    def open(self, buffer_bytes: int, was_there: int) -> None:
        self.now = 0.0
        self.attempt = 1
        self.log: list[Entry] = []
        self.states: list[list[Entry]] = [[]]
        self.frames: list[LiveFrame] = []  # published, but not arrived
        self.flying: tuple[object, list[Entry]] | None = None
        self.feed = self.feed_class(buffer_bytes_max=buffer_bytes)
        self.readers = [Reader()]
        self.given = 0
        self.needs_recheck = False  # no message will show the last change
        if was_there:
            self.append(was_there)
            self.frames.clear()  # from before the subscription

    # Redis

    @precondition(lambda self: len(self.log) < LOG_MAX)
    @rule(count=st.integers(1, 3))
    def append(self, count: int) -> None:
        prev = self.log[-1][0] if self.log else START
        entries = []
        for seq in range(prev.seq + 1, prev.seq + 1 + count):
            self.given += 1
            entries.append((EventId(self.attempt, seq), b'{"type":"token","n":%d}' % self.given))
        self.log = self.log + entries
        self.states.append(self.log)
        self.frames.append(LiveFrame(prev, tuple(entries), 20 * count))

    @precondition(lambda self: bool(self.log))
    @rule(lost=st.integers(1, 5))
    def roll_back(self, lost: int) -> None:
        """Redis loses a tail, and the next attempt writes other entries under the same seqs."""
        self.log = self.log[: max(0, len(self.log) - lost)]
        self.states.append(self.log)
        self.attempt += 1
        self.needs_recheck = True

    @precondition(lambda self: bool(self.log))
    @rule(lost=st.integers(1, 5))
    def lose_and_heal(self, lost: int) -> None:
        """Redis loses a tail, and its holder restores it; only the top is published."""
        kept = self.log[: max(0, len(self.log) - lost)]
        self.states.append(kept)
        self.states.append(self.log)
        self.feed.offer_top(self.log[-1][0])

    # The channel

    @precondition(lambda self: bool(self.frames))
    @rule(index=st.integers(0, 3), again=st.booleans())
    def deliver(self, index: int, again: bool) -> None:
        """A frame arrives in order or out of order, and may arrive a second time."""
        index = min(index, len(self.frames) - 1)
        frame = self.frames[index]
        if not self.feed.append_plain_frame(payload_of(frame)):
            self.feed.offer_frame(frame)
        if not again:
            del self.frames[index]

    @precondition(lambda self: bool(self.frames))
    @rule(index=st.integers(0, 3))
    def lose(self, index: int) -> None:
        self.needs_recheck = True
        del self.frames[min(index, len(self.frames) - 1)]

    @rule()
    def reconnect(self) -> None:
        self.frames.clear()
        self.feed.mark_stale()

    # Reading the log

    @precondition(lambda self: self.flying is None and self.feed.is_page_due)
    @rule(count=st.integers(2, 6))
    def ask(self, count: int) -> None:
        request = self.feed.request_page(count)
        page = [entry for entry in self.log if entry[0] >= request.start][:count]
        self.flying = (request, page)

    @precondition(lambda self: self.flying is not None)
    @rule(fails=st.booleans())
    def reply(self, fails: bool) -> None:
        assert self.flying is not None
        (request, page), self.flying = self.flying, None
        if fails:
            self.feed.abandon_page(request)  # type: ignore[arg-type]
        elif self.feed.offer_page(request, page):  # type: ignore[arg-type]
            for reader in self.readers:
                reader.position.unplace(self.feed.former_ids, self.now)

    @rule()
    def recheck(self) -> None:
        self.feed.offer_top(self.log[-1][0] if self.log else START)

    # Readers

    @precondition(lambda self: len(self.readers) < READERS_MAX)
    @rule()
    def join(self) -> None:
        self.readers.append(Reader())

    @rule(
        which=st.integers(0, READERS_MAX - 1),
        count=st.integers(1, 9),
        pause=st.sampled_from([0, 3]),
    )
    def read(self, which: int, count: int, pause: int) -> None:
        self.now += pause
        reader = self.readers[which % len(self.readers)]
        reader.read(self.feed, self.now, count)

    # Invariants

    @invariant()
    def the_copy_is_the_beginning_of_a_log(self) -> None:
        if hasattr(self, "feed"):
            assert self.is_explained(self.copy())

    @invariant()
    def what_a_reader_got_is_the_beginning_of_a_log(self) -> None:
        for reader in getattr(self, "readers", []):
            assert self.is_explained(reader.got)

    def is_explained(self, entries: list[Entry]) -> bool:
        return any(state[: len(entries)] == entries for state in self.states)

    def copy(self) -> list[Entry]:
        return [(self.feed.ids.at(n + 1), raw) for n, raw in enumerate(self.feed.raws)]

    def teardown(self) -> None:
        if not hasattr(self, "feed"):
            return
        while self.frames:
            self.deliver(index=0, again=False)
        self.read_pages()
        if not self.needs_recheck:
            assert self.copy() == self.log, "every frame came, so nothing needs the recheck"
        for _ in range(3):
            self.recheck()
            self.read_pages()
        assert self.feed.is_up_to_date
        assert self.copy() == self.log
        for reader in self.readers:
            self.now += 3
            for _ in range(3):
                reader.read(self.feed, self.now, LOG_MAX)
            assert reader.got == self.log

    def read_pages(self) -> None:
        for _ in range(80):
            if self.flying is not None:
                self.reply(fails=False)
            elif self.feed.is_page_due:
                self.ask(count=5)


TestFeed = FeedMachine.TestCase
TestFeed.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
