"""The body of one HTTP response in an encoding: what the reader writes for each string of bytes.

A `SharedBody` shares its pieces with the other readers of the log (api/hub/compressed.py), and
counts what it has given, because the trailer of gzip needs the CRC and the number of all bytes. A
`PrivateBody` has a compressor of its own: in br and zstd, and on servers without a wire. Invariant:
the decoded body is the body that a reader without an encoding gets, and every piece is decoded at
once. Only `closing` completes the body. Knows no connection.
"""

from __future__ import annotations

import sys
import zlib
from typing import Protocol

from api.compression.crc32 import shift_crc32
from api.compression.encoding import Encoding, SharedEncoding
from api.compression.encodings import Encodings
from api.hub.broadcast import BroadcastGroup
from api.hub.compressed import CompressedLog, Mark
from api.hub.relay import Relay
from shared.log.fold import Dialect

PRIVATE_BYTES_MAX = 65_536  # of one piece: about 2 ms with Brotli


class EncodedBody(Protocol):
    """The body of one response.

    Attributes:
        piece_bytes_max: the longest string of which the next piece may be made in one turn.
    """

    piece_bytes_max: int

    def take_opening(self) -> bytes:
        """Return the first bytes of the body, once; later calls return nothing."""
        ...

    def log_piece(self, plain: bytes, epoch: int) -> bytes:
        """Return what to write for the next bytes of the log.

        Args:
            plain: at least one byte.
            epoch: the epoch of the feed; a run of the log's bytes does not go on in the next one.
        """
        ...

    def aside_piece(self, plain: bytes) -> bytes:
        """Return what to write for bytes that are not in the log; at least one byte."""
        ...

    def attach(self, relay: Relay, dialect: Dialect) -> None:
        """Name the log, before its first bytes are written."""
        ...

    def follow(self, seq: int, epoch: int) -> BroadcastGroup | None:
        """Return the group whose rows the reader may join now.

        The reader has all entries up to `seq`.
        None: the reader goes on by itself for now.
        """
        ...

    def leave(self, seq: int) -> None:
        """Go on by itself: the reader has left a row at `seq`."""
        ...

    def closing(self) -> bytes:
        """Return the bytes that complete the body, once; later calls return nothing."""
        ...

    def close(self) -> None:
        """Free a compressor of the body's own."""
        ...


class SharedBody:
    """A body whose pieces are those of the log's other readers."""

    piece_bytes_max = sys.maxsize  # a very long string is not compressed

    __slots__ = (
        "_count", "_crc", "_encoding", "_entered", "_epoch", "_is_begun", "_is_closed", "_log",
        "_run",
    )  # fmt: skip

    def __init__(self, encoding: SharedEncoding) -> None:
        self._log: CompressedLog | None = None
        self._encoding = encoding
        self._crc = self._count = 0  # of the plain bytes; without those since `_entered`
        self._run = 0  # how many of the body's last bytes are bytes of the log
        self._epoch = -1  # of those bytes
        self._entered: Mark | None = None  # where it joined the row in which it follows
        self._is_begun = self._is_closed = False

    def attach(self, relay: Relay, dialect: Dialect) -> None:
        self._log = relay.compressed_log(dialect, self._encoding)

    def take_opening(self) -> bytes:
        is_first, self._is_begun = not self._is_begun, True
        return self._encoding.opening if is_first else b""

    def log_piece(self, plain: bytes, epoch: int) -> bytes:
        assert self._log is not None
        self._begin_run(epoch)
        self._note(plain)
        self._run += len(plain)
        return self.take_opening() + self._log.fresh(plain)

    def _begin_run(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._epoch, self._run = epoch, 0

    def aside_piece(self, plain: bytes) -> bytes:
        self._note(plain)
        self._run = 0
        return self.take_opening() + self._encoding.fresh(plain)

    def _note(self, plain: bytes) -> None:
        assert self._entered is None, "while a reader follows, its row writes"
        self._crc = zlib.crc32(plain, self._crc)
        self._count += len(plain)

    def follow(self, seq: int, epoch: int) -> BroadcastGroup | None:
        assert self._log is not None and self._is_begun
        self._begin_run(epoch)
        self._entered = self._log.enter(seq, self._run)
        return None if self._entered is None else self._log.group

    def leave(self, seq: int) -> None:
        entered, self._entered = self._entered, None
        assert entered is not None and self._log is not None
        mark = self._log.leave(seq)
        given = mark.size - entered.size
        self._crc = shift_crc32(self._crc ^ entered.crc, given) ^ mark.crc
        self._count += given
        self._run += given

    def closing(self) -> bytes:
        if self._is_closed:
            return b""
        self._is_closed = True
        return self.take_opening() + self._encoding.closing(self._crc, self._count)

    def close(self) -> None:
        pass


class PrivateBody:
    """A body with a compressor of its own."""

    piece_bytes_max = PRIVATE_BYTES_MAX

    __slots__ = ("__weakref__", "_context", "_count", "_crc", "_encodings", "_opening")

    def __init__(self, encoding: Encoding, encodings: Encodings) -> None:
        self._opening = encoding.opening
        self._context = encoding.context()
        self._crc = self._count = 0
        self._encodings = encodings
        encodings.private.add(self)

    def attach(self, relay: Relay, dialect: Dialect) -> None:
        pass

    def take_opening(self) -> bytes:
        opening, self._opening = self._opening, b""
        return opening

    def log_piece(self, plain: bytes, epoch: int) -> bytes:
        return self.aside_piece(plain)

    def aside_piece(self, plain: bytes) -> bytes:
        self._crc = zlib.crc32(plain, self._crc)
        self._count += len(plain)
        return self.take_opening() + self._context.piece(plain)

    def follow(self, seq: int, epoch: int) -> BroadcastGroup | None:
        return None

    def leave(self, seq: int) -> None:
        raise AssertionError("it follows in no row")

    def closing(self) -> bytes:
        opening = self.take_opening()
        context, self._context = self._context, None  # type: ignore[assignment]
        return opening + context.closing(self._crc, self._count) if context is not None else b""

    def close(self) -> None:
        self._context = None  # type: ignore[assignment]
        self._encodings.private.discard(self)
