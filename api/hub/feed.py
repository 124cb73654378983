"""One generation's copy on this node, and the rule for what may be appended to the copy.

Two sources fill a copy: frames of the live channel (api/hub/frame.py), which may be lost, repeated
or late, and pages read from the log. This module decides what to append, so that every reader of
the copy gets exactly the log.

States:

    JOINING ──last page──▶ LIVE ──gap, top notice, mark_stale()──▶ REPAIRING ──last page──▶ LIVE
       │ └──a frame that begins the log──▶ LIVE
       └───────────────── the entry `end`, from a frame or a page ────────────────────────▶ ENDED

    any state but ENDED ──a page of a rewritten log──▶ REPAIRING, with an empty copy, epoch + 1

Memory, with 4 of 7 entries trimmed:

    seq     1 ─ 2 ─ 3 ─ 4 ─ 5 ─ 6 ─ 7 = count
    ids     all of them: runs of (first seq, attempt)
    raws    ─ trimmed ─ │ JSON of 5, 6, 7
                        base = 4

Invariants:
- Within one `epoch`, `seq` is contiguous from 1 and ids rise strictly.
- An entry is appended only after the entry whose whole id is the copy's top. Comparing `seq` alone
  is not enough: after a rollback of Redis the same `seq` may have another text.
- A page starts at the copy's top, that entry included. If the first entry of the page is not the
  top, Redis has rewritten the log: the copy is dropped, `epoch` rises, and the whole log is read.

A read is split into a request and its reply (`request_page`, `offer_page`); frames may arrive in
between. Has no clock, does no I/O and knows no readers.
Source: docs/architecture.md, "Nodes and readers".
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from api.hub.frame import LiveFrame
from api.hub.id_index import IdIndex
from shared.log.event_bytes import END_PREFIX
from shared.log.ids import START, EventId
from shared.log.records import Entry

ENTRY_OVERHEAD_BYTES = 48  # Python's overhead for each entry in memory


class FeedState(enum.Enum):
    """How the copy stands to the log; see the module docstring."""

    JOINING = "joining"
    LIVE = "live"
    REPAIRING = "repairing"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One read of the log.

    Attributes:
        number: rises by one with each request of the feed.
        epoch: the feed's epoch at the time of the request.
        start: id of the first entry to read, included; START: the log's first entry.
        count: how many entries to read at most.
    """

    number: int
    epoch: int
    start: EventId
    count: int


class Feed:
    """The copy of one log, and the rule for what may be added to it.

    Args:
        buffer_bytes_max: limit for frames that cannot be appended yet, bytes. Above the limit the
            feed drops all of them, and their entries are read from the log instead.

    Attributes:
        state: see the module docstring.
        epoch: rises by one each time the copy is dropped; a `seq` is valid in one epoch only.
        ids: ids of all entries, also of trimmed ones.
        base: `seq` of the last trimmed entry: the copy has only the ids up to this one; 0: none.
        raws: JSON of the entries after `base`, in order.
        bytes_kept: memory of `raws`, bytes, approximately.
        former_ids: ids of the epoch before this one.
        repairs: how often a LIVE copy became stale.
    """

    __slots__ = (
        "_buffer",
        "_buffer_bytes",
        "_buffer_bytes_max",
        "_in_flight",
        "_plain_prefix",
        "_requests",
        "_stale_at",
        "base",
        "bytes_kept",
        "epoch",
        "former_ids",
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
        self.base = 0
        self.raws: list[bytes] = []
        self.bytes_kept = 0
        self.former_ids = IdIndex()
        self.repairs = 0
        self._plain_prefix = b""  # see `_make_plain_prefix`; empty: outdated
        self._buffer_bytes_max = buffer_bytes_max
        self._buffer: list[LiveFrame] = []
        self._buffer_bytes = 0
        self._requests = 0  # number of the latest request
        self._in_flight: PageRequest | None = None
        # A last page makes the copy LIVE only if the number of its request is above this one:
        # a page of an earlier request may lack what was missed.
        self._stale_at = 0

    @property
    def top(self) -> EventId:
        """The id of the last entry; START: there is no entry."""
        return self.ids.top

    @property
    def count(self) -> int:
        """The number of entries, also of trimmed ones; the `seq` of the last entry."""
        return self.ids.count

    @property
    def is_ended(self) -> bool:
        """Whether the copy has the entry `end`."""
        return self.state is FeedState.ENDED

    @property
    def is_up_to_date(self) -> bool:
        """Whether the log was read to its end, and nothing is known to be missing since."""
        return self.state in (FeedState.LIVE, FeedState.ENDED)

    @property
    def is_page_due(self) -> bool:
        """Whether the caller has to read the next page."""
        return not self.is_up_to_date and self._in_flight is None

    # Reading the log

    def request_page(self, count: int) -> PageRequest:
        """Start one read. The caller passes the reply to `offer_page`, or calls `abandon_page`.

        Args:
            count: entries to read at most; 2 at least, because the first one is the copy's top.
        """
        assert self.is_page_due and count >= 2
        self._requests += 1
        self._in_flight = PageRequest(self._requests, self.epoch, self.top, count)
        return self._in_flight

    def abandon_page(self, request: PageRequest) -> None:
        """Give up `request`, which has no usable reply."""
        assert request is self._in_flight
        self._in_flight = None

    def offer_page(self, request: PageRequest, entries: Sequence[Entry]) -> bool:
        """Append the reply to `request`. Fewer entries than requested: the log's end is reached.

        Returns:
            True: Redis has rewritten the log, and the copy was dropped.
        """
        assert request is self._in_flight
        self._in_flight = None
        if self.is_ended:
            return False
        if self._contradicts(request, entries):
            self.drop()
            return True
        for event_id, raw in entries:
            if event_id.seq > self.count:
                self._append(event_id, raw)
        if len(entries) < request.count:
            self._finish_reading(request.number)
        return False

    def _contradicts(self, request: PageRequest, entries: Sequence[Entry]) -> bool:
        """Whether the page cannot be from the log that this copy was made from."""
        if request.start != START and (not entries or entries[0][0] != request.start):
            return True
        previous = entries[0][0].seq - 1 if entries else 0
        for event_id, _ in entries:
            if event_id.seq != previous + 1:
                return True  # a log has no gaps: the page is from a log that was rewritten
            if event_id.seq <= self.count and not self.ids.has(event_id):
                return True
            previous = event_id.seq
        return bool(entries) and entries[0][0].seq > self.count + 1

    def _finish_reading(self, number: int) -> None:
        """The last page was appended: append the frames that arrived during the reads."""
        if self.is_ended:
            return
        frames, self._buffer, self._buffer_bytes = self._buffer, [], 0
        is_current = number > self._stale_at
        for frame in frames:
            if not self._append_frame(frame) and not is_current and not self.is_ended:
                self._buffer_frame(frame)
        # Frames that still do not match after a newer read belong to a replaced log: drop them.
        if is_current and not self.is_ended:
            self.state = FeedState.LIVE

    def drop(self) -> None:
        """Empty the copy, because the log was rewritten or deleted. `former_ids` has its ids."""
        self.former_ids = self.ids
        self.ids = IdIndex()
        self._plain_prefix = b""
        self.base = 0
        self.raws = []
        self.bytes_kept = 0
        self._buffer, self._buffer_bytes = [], 0
        self.epoch += 1
        self.state = FeedState.REPAIRING
        self._stale_at = max(self._stale_at, self._requests)

    # Memory

    def trim(self, seq: int) -> None:
        """Free the JSON of the entries up to `seq`, except the last entry. All ids stay."""
        dropped = min(seq, self.count - 1) - self.base
        if dropped > 0:
            self.bytes_kept -= sum(map(len, self.raws[:dropped])) + dropped * ENTRY_OVERHEAD_BYTES
            del self.raws[:dropped]
            self.base += dropped

    def refill(self, epoch: int, entries: Sequence[Entry]) -> bool:
        """Put all trimmed entries back into memory.

        Args:
            epoch: the feed's epoch when the read of `entries` began.
            entries: the log from its first entry to `base` at least.

        Returns:
            False: the entries are not those that were trimmed; nothing was changed.
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

    # Frames and top notices

    def append_plain_frame(self, payload: bytes) -> bool:
        """Append a plain frame without parsing it.

        A frame is plain if its `prev` is the copy's top and its entries continue the same attempt.
        Nearly all frames are plain, so they are compared as bytes:

            <top> LF <attempt>-<count + 1> SP <json> [LF <attempt>-<count + 2> SP <json> …]
            ╰─────────── _plain_prefix ────╯

        Returns:
            False: the frame is not plain; call `parse_frame` and `offer_frame`. The first entries
            of the frame may have been appended already; `offer_frame` skips them.
        """
        if self.state is not FeedState.LIVE or not payload.startswith(
            self._plain_prefix or self._make_plain_prefix()
        ):
            return False
        raw = payload[len(self._plain_prefix) :]
        if raw.find(b"\n") >= 0:
            return self._append_plain_entries(payload)
        if raw:
            self._append_next(raw)
            self._make_plain_prefix()
        return bool(raw)

    def _append_plain_entries(self, payload: bytes) -> bool:
        attempt = self.ids.attempt
        for line in payload.split(b"\n")[1:]:
            next_id = b"%d-%d " % (attempt, self.ids.count + 1)
            raw = line[len(next_id) :]
            if self.is_ended or not raw or not line.startswith(next_id):
                return False
            self._append_next(raw)
            self._make_plain_prefix()
        return True

    def _make_plain_prefix(self) -> bytes:
        """Return how the next plain frame begins: the copy's top, and the id of the next entry."""
        attempt, seq = self.ids.attempt, self.ids.count
        self._plain_prefix = b"%d-%d\n%d-%d " % (attempt, seq, attempt, seq + 1)
        return self._plain_prefix

    def _append_next(self, raw: bytes) -> None:
        self.ids.count += 1
        self.raws.append(raw)
        self.bytes_kept += len(raw) + ENTRY_OVERHEAD_BYTES
        if raw.startswith(END_PREFIX):
            self.state = FeedState.ENDED
            self._buffer, self._buffer_bytes = [], 0

    def offer_frame(self, frame: LiveFrame) -> None:
        """Append a frame; if it does not continue the copy, buffer it and mark the copy stale."""
        is_empty = self.count == 0
        if self.is_ended or self._append_frame(frame):
            if is_empty and frame.prev == START and self.state is FeedState.JOINING:
                # The frame begins the log and nothing came before it: no page is needed.
                self._buffer, self._buffer_bytes = [], 0
                self.state = FeedState.LIVE
            return
        self._buffer_frame(frame)
        self.mark_stale()

    def offer_top(self, top: EventId) -> None:
        """Compare the log's top with the copy's, and mark the copy stale if they differ."""
        if top != self.top:
            self.mark_stale()

    def mark_stale(self) -> None:
        """Note that something may be missing, so that the log is read from the copy's top again.

        An ended copy stays as it is.
        """
        if self.is_ended:
            return
        self._stale_at = self._requests
        if self.state is FeedState.LIVE:
            self.state = FeedState.REPAIRING
            self.repairs += 1

    def _append_frame(self, frame: LiveFrame) -> bool:
        """Append the new entries of `frame` if all its ids match the copy; False: they do not."""
        if not self.ids.has(frame.prev):
            return False
        for event_id, _ in frame.entries:
            if event_id.seq <= self.count and not self.ids.has(event_id):
                return False
        for event_id, raw in frame.entries:
            if event_id.seq > self.count:
                self._append(event_id, raw)
        return True

    def _buffer_frame(self, frame: LiveFrame) -> None:
        """Buffer `frame` until the log is read; above the limit drop the whole buffer."""
        self._buffer.append(frame)
        self._buffer_bytes += frame.size
        if self._buffer_bytes > self._buffer_bytes_max:
            self._buffer, self._buffer_bytes = [], 0
            self._stale_at = self._requests

    def _append(self, event_id: EventId, raw: bytes) -> None:
        if self.is_ended:
            return  # `end` is the last entry: ignore everything after it
        self.ids.note_attempt(event_id)
        self._append_next(raw)
        self._plain_prefix = b""
