"""The end of one stream on a node: what all its live readers share.

    Redis ──frame: place before, new tail, bytes──▶ Tail ──▶ its row, and wakes other readers

A tail keeps the newest entries, which every reader on the node gets from here. A frame that does
not follow on the tail means that frames were lost: then one read of Redis finds the present tail,
and readers whose place is not among the kept entries read the rest themselves. The tail is also
looked at every `RECHECK_S`, because the last frame can be lost, and because a stream can expire,
be deleted with its Redis, or change its history. That look counts as a use of the stream.

Invariant: `entries` are the entries before `top`, without a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from api.dialects.durable_streams.row import Row
from shared.streams.place import Place, parse_place
from shared.streams.record import Entry
from shared.streams.store import Reading

KEPT_BYTES_MAX = 262_144  # of the entries of one stream on a node, unless one alone is longer
KEPT_ENTRIES_MAX = 512
EARLY_FRAMES_MAX = 64  # that come while the tail is being read
RECHECK_S = 2.0


class Frame(NamedTuple):
    """A message on the live channel of a stream.

    Attributes:
        data: None: the frame has no bytes, because there are too many or none.
    """

    before: Place
    tail: Place
    is_closed: bool
    is_deleted: bool
    data: bytes | None


def parse_frame(payload: bytes) -> Frame | None:
    """Return a frame as stream_prelude.lua writes it; None: it is none."""
    head, _, data = payload.partition(b"\n")
    before, tail, flags = (head.decode("ascii", "replace").split(" ") + ["", ""])[:3]
    first, last = parse_place(before), parse_place(tail)
    if first is None or last is None:
        return None
    return Frame(first, last, "c" in flags, "x" in flags, data if flags.endswith("d") else None)


class TailSource(Protocol):
    """Reads what the tail of a stream is."""

    async def __call__(self) -> Reading:
        """Raises Unavailable."""
        ...


class Tail:
    """The end of one stream. Does no I/O: the owner of the tail reads and calls `take`.

    Attributes:
        top: the place of the tail; None: not known yet.
        is_gone: the stream was deleted, has expired, or is lost.
        holds: the readers that use this tail.
        is_behind: the tail has to be read.
        row: the readers that have all entries.
    """

    def __init__(self) -> None:
        self.top: Place | None = None
        self.is_closed = False
        self.is_gone = False
        self.is_behind = True
        self.holds = 0
        self.row = Row()
        self._entries: list[Entry] = []
        self._size = 0
        self._early: list[Frame] = []
        self._changed = asyncio.Event()

    def entries_after(self, place: Place) -> Sequence[Entry] | None:
        """Return the entries behind `place`; None: they have to be read."""
        if place == self.top:
            return ()
        for at in range(len(self._entries) - 1, -1, -1):
            if self._entries[at].before == place:
                return self._entries[at:]
            if self._entries[at].before.end < place.end:
                break
        return None

    def offer(self, frame: Frame) -> None:
        """Take a frame; sets `is_behind` if it does not follow."""
        if frame.is_deleted:
            self.is_gone = True
            self.wake()
        elif self.is_behind or self.top is None:
            if len(self._early) < EARLY_FRAMES_MAX:
                self._early.append(frame)
        elif frame.before == self.top:
            self._follow(frame)
            if frame.is_closed or not self._entries or frame.tail == frame.before:
                self.wake()
            else:
                self.row.deliver(self._entries[-1])
                self._wake_others()
        elif frame.tail != self.top:
            self.is_behind = True

    def take(self, reading: Reading) -> None:
        """Take the present state from Redis, and then the frames that came meanwhile."""
        early, self._early = self._early, []
        before = (self.top, self.is_closed)
        self.is_behind = False
        if reading.info is None:
            self.is_gone = True
        else:
            if reading.info.tail != self.top:
                self._entries, self._size = [], 0
            self.top, self.is_closed = reading.info.tail, reading.info.is_closed
            for frame in early:
                if frame.before == self.top:
                    self._follow(frame)
        if len(early) == EARLY_FRAMES_MAX:
            self.is_behind = True  # more may have come
        if self.is_gone or (self.top, self.is_closed) != before:
            self.wake()
        else:
            self._wake_others()

    def wake(self) -> None:
        """Wake every waiting reader."""
        self.row.dissolve()
        self._wake_others()

    def _wake_others(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a change; False: there was none in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _follow(self, frame: Frame) -> None:
        if frame.tail != frame.before:
            if frame.data is None:
                self._entries, self._size = [], 0
            else:
                self._entries.append(Entry(frame.before, frame.tail, frame.data))
                self._size += len(frame.data)
        self.top = frame.tail
        self.is_closed = self.is_closed or frame.is_closed
        while len(self._entries) > KEPT_ENTRIES_MAX or (
            self._size > KEPT_BYTES_MAX and len(self._entries) > 1
        ):
            self._size -= len(self._entries.pop(0).data)
