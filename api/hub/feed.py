"""One generation's copy on this node: what of its log is known here, and what must be read again.

Frames arrive live and may be lost, doubled or late; pages are read from the log itself. This module
decides what may be appended to the copy, so that every reader of it gets exactly the log.

    JOINING ──last page──▶ LIVE ──gap, notice, mark_stale()──▶ REPAIRING ──last page──▶ LIVE
        └──────────────────── the entry `end`, from a frame or a page ───────────────────▶ ENDED

Invariants: seqs are contiguous from 1 and ids rise strictly within one `epoch`; nothing is appended
unless the entry before it, by its whole id, is the own top. A page starts at the own top, which is
included: where it is not the first entry returned, the log has changed under us, the copy is
dropped, `epoch` rises and everything is read anew. Nothing is ever compared by seq alone: after a
rollback the same seqs carry other texts.

Reading is split into request and reply; anything may happen in between. Knows no clock, does no
I/O and knows nothing of readers. Source: docs/architecture.md, "Nodes and readers".
"""

from __future__ import annotations

import bisect
import enum
from collections.abc import Sequence
from dataclasses import dataclass

from api.hub.frame import Entry, Frame
from shared.log.ids import START, EventId

_new_id = tuple.__new__  # a NamedTuple's own constructor is one of Python's: twice the price
END_PREFIX = b'{"type":"end"'
ENTRY_OVERHEAD_BYTES = 48  # what Python adds to each entry kept


class FeedState(enum.Enum):
    JOINING = "joining"
    LIVE = "live"
    REPAIRING = "repairing"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One read of the log: up to `count` entries from `start` on, which is included."""

    number: int  # rises with every request
    epoch: int
    start: EventId
    count: int


class IdIndex:
    """The ids of a copy: one attempt per run of seqs, because seqs have no holes."""

    __slots__ = ("_attempts", "_firsts", "attempt", "count")

    def __init__(self) -> None:
        self.count = 0
        self.attempt = 0  # of the last entry; 0 without one
        self._firsts: list[int] = []
        self._attempts: list[int] = []

    def begin(self, event_id: EventId) -> None:
        """The next entry, not counted yet, is this one."""
        assert event_id.seq == self.count + 1
        if self.attempt != event_id.attempt:
            self.attempt = event_id.attempt
            self._firsts.append(event_id.seq)
            self._attempts.append(event_id.attempt)

    @property
    def top(self) -> EventId:
        """The id of the last entry; START without one."""
        return _new_id(EventId, (self.attempt, self.count))

    def at(self, seq: int) -> EventId:
        """Return the id of an entry; seq 0 is the place before the first."""
        if seq == 0:
            return START
        assert 1 <= seq <= self.count
        if seq >= self._firsts[-1]:
            return EventId(self.attempt, seq)
        return EventId(self._attempts[bisect.bisect_right(self._firsts, seq) - 1], seq)

    def has(self, event_id: EventId) -> bool:
        return event_id.seq <= self.count and self.at(event_id.seq) == event_id

    @property
    def unbroken(self) -> int:
        """The seq up to which attempts follow one another by one: after a loss the next one jumps.

        What comes after it may have stood there before with other texts.
        """
        before = 0
        for first, attempt in zip(self._firsts, self._attempts, strict=True):
            if attempt > before + 1:
                return first - 1
            before = attempt
        return self.count


class Feed:
    """The copy of one log, and the rule for what may be added to it.

    Args:
        buffer_bytes_max: frames that cannot be appended yet are kept up to this; above it they are
            forgotten and read from the log instead.
    """

    __slots__ = (
        "_buffer",
        "_buffer_bytes",
        "_buffer_bytes_max",
        "_head",
        "_in_flight",
        "_requests",
        "_stale_at",
        "base",
        "bytes_kept",
        "epoch",
        "former",
        "ids",
        "raws",
        "repairs",
        "state",
    )

    def __init__(self, *, buffer_bytes_max: int = 4_194_304) -> None:
        assert buffer_bytes_max > 0
        self.state = FeedState.JOINING
        self.epoch = 0
        self.ids = IdIndex()
        self.base = 0  # entries up to this one are known by id only
        self.raws: list[bytes] = []  # of the entries after `base`
        self.bytes_kept = 0
        self.former = IdIndex()  # the ids of the epoch before this one
        self.repairs = 0
        self._head = b""  # see `_next_head`; empty: to be made anew
        self._buffer_bytes_max = buffer_bytes_max
        self._buffer: list[Frame] = []
        self._buffer_bytes = 0
        self._requests = 0
        self._in_flight: PageRequest | None = None
        # A last page that was asked for after this many requests says how the log stands.
        self._stale_at = 0

    @property
    def top(self) -> EventId:
        return self.ids.top

    @property
    def count(self) -> int:
        return self.ids.count

    @property
    def is_ended(self) -> bool:
        return self.state is FeedState.ENDED

    @property
    def is_whole(self) -> bool:
        """Whether the copy was equal to the log when that was last read to its end."""
        return self.state in (FeedState.LIVE, FeedState.ENDED)

    @property
    def wants_page(self) -> bool:
        return not self.is_whole and self._in_flight is None

    # Reading the log

    def request_page(self, count: int) -> PageRequest:
        """Start one read; its reply goes to `offer_page`, or `page_failed` is called."""
        assert self.wants_page and count >= 2  # the own top comes back and brings nothing new
        self._requests += 1
        self._in_flight = PageRequest(self._requests, self.epoch, self.top, count)
        return self._in_flight

    def page_failed(self, request: PageRequest) -> None:
        assert request is self._in_flight
        self._in_flight = None

    def offer_page(self, request: PageRequest, entries: Sequence[Entry]) -> bool:
        """Take the reply to `request`; True when the log had changed and the copy was dropped.

        Fewer entries than asked for means that the log's end was reached.
        """
        assert request is self._in_flight
        self._in_flight = None
        if self.is_ended:
            return False
        if self._contradicts(request, entries):
            self._drop()
            return True
        for event_id, raw in entries:
            if event_id.seq > self.count:
                self._append(event_id, raw)
        if len(entries) < request.count:
            self._finish_reading(request.number)
        return False

    def _contradicts(self, request: PageRequest, entries: Sequence[Entry]) -> bool:
        """Whether the page shows another log than the one that this copy was made from."""
        if request.start != START and (not entries or entries[0][0] != request.start):
            return True
        before = entries[0][0].seq - 1 if entries else 0
        for event_id, _ in entries:
            if event_id.seq != before + 1:
                return True  # a hole cannot be in a log: what we compare with is not it
            if event_id.seq <= self.count and not self.ids.has(event_id):
                return True
            before = event_id.seq
        return bool(entries) and entries[0][0].seq > self.count + 1

    def _finish_reading(self, number: int) -> None:
        """The log's end was reached: join what came live meanwhile, by id."""
        if self.is_ended:
            return
        waiting, self._buffer, self._buffer_bytes = self._buffer, [], 0
        is_current = number > self._stale_at
        for frame in waiting:
            if not self._connect(frame) and not is_current and not self.is_ended:
                self._keep(frame)
        # What does not fit although the log was read after it came is of a log that is gone.
        if is_current and not self.is_ended:
            self.state = FeedState.LIVE

    def _drop(self) -> None:
        self.former = self.ids
        self.ids = IdIndex()
        self._head = b""
        self.base = 0
        self.raws = []
        self.bytes_kept = 0
        self.epoch += 1
        self.state = FeedState.REPAIRING
        self._stale_at = max(self._stale_at, self._requests)

    # Memory

    def trim(self, seq: int) -> None:
        """Forget what the entries up to `seq` say; their ids stay, and so does the last entry."""
        dropped = min(seq, self.count - 1) - self.base
        if dropped > 0:
            self.bytes_kept -= sum(map(len, self.raws[:dropped])) + dropped * ENTRY_OVERHEAD_BYTES
            del self.raws[:dropped]
            self.base += dropped

    def refill(self, epoch: int, entries: Sequence[Entry]) -> bool:
        """Take back all that was trimmed; False: this is not what the copy was made of.

        Args:
            epoch: the feed's, when reading of `entries` began.
            entries: the log from its first entry to `base` at least.
        """
        if epoch != self.epoch or len(entries) < self.base:
            return False
        head = entries[: self.base]
        if any(self.ids.at(n + 1) != event_id for n, (event_id, _) in enumerate(head)):
            return False
        self.raws[:0] = [raw for _, raw in head]
        self.bytes_kept += sum(len(raw) + ENTRY_OVERHEAD_BYTES for _, raw in head)
        self.base = 0
        return True

    # What comes live

    def follow(self, payload: bytes) -> bool:
        """Append what a frame brings if it continues this copy in the plainest way.

        That is nearly every frame there is: the own top first, then the next seqs of the same
        attempt. It is compared as bytes, nothing is parsed. False: `parse_frame` and `offer_live`
        decide; a beginning of it may have been appended.
        """
        if self.state is not FeedState.LIVE or not payload.startswith(
            self._head or self._next_head()
        ):
            return False
        raw = payload[len(self._head) :]
        if raw.find(b"\n") >= 0:
            return self._follow_many(payload)
        if raw:
            self._append_next(raw)
            self._next_head()
        return bool(raw)

    def _follow_many(self, payload: bytes) -> bool:
        attempt = self.ids.attempt
        for line in payload.split(b"\n")[1:]:
            name = b"%d-%d " % (attempt, self.ids.count + 1)
            raw = line[len(name) :]
            if self.is_ended or not raw or not line.startswith(name):
                return False
            self._append_next(raw)
            self._next_head()
        return True

    def _next_head(self) -> bytes:
        """How the next plain frame begins: the own top, and the id of the entry after it."""
        attempt, seq = self.ids.attempt, self.ids.count
        self._head = b"%d-%d\n%d-%d " % (attempt, seq, attempt, seq + 1)
        return self._head

    def _append_next(self, raw: bytes) -> None:
        self.ids.count += 1
        self.raws.append(raw)
        self.bytes_kept += len(raw) + ENTRY_OVERHEAD_BYTES
        if raw.startswith(END_PREFIX):
            self.state = FeedState.ENDED
            self._buffer, self._buffer_bytes = [], 0

    def offer_live(self, frame: Frame) -> None:
        """Take a frame. It never blocks and never fails: what does not fit is read from the log."""
        is_empty = self.count == 0
        if self.is_ended or self._connect(frame):
            if is_empty and frame.prev == START and self.state is FeedState.JOINING:
                # Nothing stood before it: this is the whole log.
                self._buffer, self._buffer_bytes = [], 0
                self.state = FeedState.LIVE
            return
        self._keep(frame)
        self.mark_stale()

    def offer_top(self, top: EventId) -> None:
        """Take a notice or an answer of the log about its top."""
        if top != self.top:
            self.mark_stale()

    def mark_stale(self) -> None:
        """Something may have been missed: read the log from the own top again."""
        if self.is_ended:
            return
        self._stale_at = self._requests
        if self.state is FeedState.LIVE:
            self.state = FeedState.REPAIRING
            self.repairs += 1

    def _connect(self, frame: Frame) -> bool:
        """Append what is new in `frame` if it continues this copy, by whole ids."""
        if not self.ids.has(frame.prev):
            return False
        for event_id, _ in frame.entries:
            if event_id.seq <= self.count and not self.ids.has(event_id):
                return False
        for event_id, raw in frame.entries:
            if event_id.seq > self.count:
                self._append(event_id, raw)
        return True

    def _keep(self, frame: Frame) -> None:
        self._buffer.append(frame)
        self._buffer_bytes += frame.size
        if self._buffer_bytes > self._buffer_bytes_max:
            self._buffer, self._buffer_bytes = [], 0
            self._stale_at = self._requests

    def _append(self, event_id: EventId, raw: bytes) -> None:
        if self.is_ended:
            return  # nothing is read after an end
        self.ids.begin(event_id)
        self._append_next(raw)
        self._head = b""
