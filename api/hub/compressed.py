"""One encoded log, compressed once for all readers that follow in rows.

One context runs along the log. Each piece is compressed once, and a row writes the same bytes
object to all its members, as it does without compression:

    entries    38      39     40     41      42
    pieces  ───┴───────┴─────────────┴───────┴──▶ _head: the next piece begins here
               │  piece of 39 │  piece of 40, 41 │
               └ row, seq 38  └ row, seq 39      └ row, seq 41

A piece refers to bytes before it. A reader may join at the head only if its body has these bytes:

    - the context is at a key frame: the next piece refers to nothing before it; or
    - the last bytes of the body are bytes of the log, and they fill the window, or reach back to
      the last key frame.

Otherwise the reader asks for a key frame, which is the first piece after a restart of the context.
A key frame costs bytes for all members, so two of them are `KEY_FRAME_ENTRIES` apart. Until then
the reader gets *fresh pieces*: pieces that refer to nothing before them. Readers at one place share
a fresh piece as well.

Invariants: the pieces are the bytes of `EncodedLog`, in order. All rows stand between two pieces.
Without members there is no context. Knows no reader and no HTTP.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from api.compression.encoding import SharedContext, SharedEncoding
from api.hub.broadcast import BroadcastGroup, BroadcastHost
from api.hub.encoded import EncodedLog
from api.hub.feed import Feed

KEY_FRAME_ENTRIES = 32  # entries between two key frames: a key frame costs about 60 bytes
PIECES_MAX = 16  # kept before those that no row needs are dropped


class Mark(NamedTuple):
    """A place between two pieces: CRC-32 and number of the plain bytes up to there.

    Both count from the start of the context, so only the difference of two marks has a meaning.
    """

    crc: int
    size: int


class Piece(NamedTuple):
    """One piece; `last` is the `seq` of its last entry."""

    data: bytes
    last: int
    begin: Mark


class CompressedLog:
    """An encoded log in one encoding.

    Attributes:
        group: the rows of the readers that follow.
    """

    __slots__ = (
        "_context",
        "_encoding",
        "_entries_since_key",
        "_epoch",
        "_feed",
        "_fresh",
        "_fresh_of",
        "_head",
        "_is_at_key_frame",
        "_key_count",
        "_log",
        "_mark",
        "_pieces",
        "group",
    )

    def __init__(
        self, log: EncodedLog, feed: Feed, host: BroadcastHost, encoding: SharedEncoding
    ) -> None:
        self._log = log
        self._feed = feed
        self._encoding = encoding
        self._context: SharedContext | None = None
        self._fresh_of = self._fresh = b""  # the last fresh piece, and its plain bytes
        self.group = BroadcastGroup(self, feed, host, is_chunked=True)
        self._begin(0)

    def _begin(self, seq: int) -> None:
        self._epoch = self._feed.epoch
        self._head = seq
        self._mark = Mark(0, 0)  # at the head
        self._pieces: dict[int, Piece] = {}  # by the `seq` before their first entry
        self._set_key_frame()

    def _set_key_frame(self) -> None:
        self._is_at_key_frame = True
        self._key_count = self._mark.size
        self._entries_since_key = 0

    @property
    def count(self) -> int:
        """As of the encoded log."""
        return self._log.count

    @property
    def over_at(self) -> int:
        """As of the encoded log."""
        return self._log.over_at

    @property
    def bytes_kept(self) -> int:
        """Memory, bytes, approximately."""
        kept = len(self._fresh_of) + len(self._fresh)
        if self._context is not None:
            kept += self._context.bytes_kept
            kept += sum(len(piece.data) for piece in self._pieces.values())
        return kept

    # For rows

    def slice(self, seq: int) -> tuple[bytes, int]:
        """Return the piece after entry `seq`, and the `seq` of the last entry in it.

        Rows with the same `seq` get the same object.

        Args:
            seq: the place of a row.

        Returns:
            No bytes and `seq` itself, if there is no later entry, or it is not encoded yet.
        """
        if seq == self._head and not self._advance():
            return b"", seq
        piece = self._pieces[seq]
        return piece.data, piece.last

    def _advance(self) -> bool:
        """Make the piece after the head; False: there is nothing to compress."""
        context = self._context
        if context is None or self._epoch != self._feed.epoch:
            return False
        plain, last = self._log.slice(self._head)
        if last == self._head:
            return False
        begin, data = self._mark, b""
        if plain:
            data = context.piece(plain)
            self._mark = Mark(zlib.crc32(plain, begin.crc), begin.size + len(plain))
            self._is_at_key_frame = False
        self._pieces[self._head] = Piece(data, last, begin)
        self._entries_since_key += last - self._head
        self._head = last
        if len(self._pieces) > PIECES_MAX:
            self._drop_pieces()
        return True

    def _drop_pieces(self) -> None:
        needed = self.group.seq_min
        if needed is None:
            self._pieces.clear()
        else:
            self._pieces = {seq: piece for seq, piece in self._pieces.items() if seq >= needed}

    # For readers

    def enter(self, seq: int, run: int) -> Mark | None:
        """Return the mark of a place where a reader may join `group` now, or None.

        Args:
            seq: the reader has exactly the entries up to this one, and there is no later one.
            run: the last `run` bytes of the reader's body are the log's bytes up to `seq`.
        """
        if self._context is None or self._epoch != self._feed.epoch:
            assert not self.group.rows
            self._begin(seq)
            self._context = self._encoding.context()
        while self._head < seq:
            if not self._advance():
                return None
        if self._head != seq:
            return None
        return self._mark if self._is_open_to(run) else None

    def _is_open_to(self, run: int) -> bool:
        if self._is_at_key_frame:
            return True
        since_key = self._mark.size - self._key_count
        if run >= min(self._encoding.window, since_key):
            return True
        if self._entries_since_key < KEY_FRAME_ENTRIES:
            return False
        assert self._context is not None
        self._context.restart()
        self._set_key_frame()
        return True

    def leave(self, seq: int) -> Mark:
        """Return the mark of a reader's place, after the reader has left its row.

        Args:
            seq: the place of the row.
        """
        mark = self._mark if seq == self._head else self._pieces[seq].begin
        if not self.group.count:
            self._context = None
            self._pieces = {}
        return mark

    def fresh(self, plain: bytes) -> bytes:
        """Return a fresh piece; readers that give the same object get the same object.

        Args:
            plain: at least one byte.
        """
        if plain is not self._fresh_of:
            self._fresh_of, self._fresh = plain, self._encoding.fresh(plain)
        return self._fresh

    def forget_fresh(self) -> None:
        """Free the last fresh piece, because the log has no readers."""
        self._fresh_of = self._fresh = b""
