"""The interface between the hub and a dialect: a fold turns log entries into bytes.

Invariant: the output of a fold depends only on the log and on meta. So a fold runs once per
generation, dialect and node, and every node produces the same bytes. A fold knows no clock, no
reader and no transport. It may keep state, for example chunk numbers. If the log is rewritten, the
hub makes a new fold and feeds it from the first entry.

There are two kinds. All HTTP readers of a generation share the bytes of one `ByteFold`. A
`FrameFold` produces text frames for one subscription on one socket, so it may use the client's name
for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared.log.ids import EventId
from shared.log.records import Meta

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream; charset=utf-8"
PING = b": ping\n"  # without a blank line, which breaks the parsers of some clients
FRAME_END = b"\n\n"  # ends a server-sent event; encoded JSON has no line breaks

FOLD_ENTRIES_MAX = 1_000  # entries folded in one step: about a millisecond

Headers = Sequence[tuple[bytes, bytes]]


def after_event(frames: bytes) -> bytes:
    """Return what follows the first server-sent event."""
    return frames.partition(FRAME_END)[2]


class ByteFold(ABC):
    """One generation in one dialect.

    Attributes:
        over_at: the seq of the entry after which this dialect has no more output, although the log
            may continue; -1: the dialect has output up to the end. `add` sets it, once.
        given: in a numbered dialect, the number of chunks so far, including those of the opening.
    """

    over_at = -1
    given = 0

    def opening(self) -> bytes:
        """Return the bytes to send before the first entry exists. Called once, before `add`."""
        return b""

    @abstractmethod
    def add(self, event_id: EventId, raw: bytes) -> bytes:
        """Return the bytes for the next entry: any number of complete frames.

        Args:
            event_id: the place of the entry. Entries come in order, from the first to `over_at`.
            raw: the entry's JSON, `type` first. The type may be unknown to this version.
        """

    def aside(self, raw: bytes) -> bytes | None:
        """Return the bytes for an event that is not in the log (id `0-0`): `reset`, or `end` lost.

        Called for one reader that has received the output of every entry. Must not change the fold.
        None: this dialect cannot express the event, and the hub cuts the reader instead.
        """
        return None


@dataclass(frozen=True, slots=True)
class Dialect:
    """A dialect over HTTP.

    Attributes:
        name: readers of the same dialect share one encoded log; also the label in metrics.
        new_fold: makes the fold of one generation.
        heartbeat: bytes for a reader after a time without output.
        content_type: of every response.
        headers: further headers of every response.
        is_numbered: clients count the chunks (frames). The hub keeps `ByteFold.given` for each
            entry. The counted frames come first among the bytes of an entry.
        after_frame: of a numbered dialect: returns the bytes after the first frame.
        restarts: after an aside `reset` the hub sends everything from the start; False: the aside
            is the last output for this reader.
        is_lines: the bytes are lines of JSON. Then the characters that some line readers take for
            line ends are escaped. False: the bytes have a length before them, or no lines.
        is_compressible: a node may compress the body for clients that ask for it. Must be False
            where a client of the dialect does not decode a body piece by piece.
        last_key: returns the last `seq`, up to a given one, after which a reader may begin: the
            bytes of other entries refer to earlier ones. None: it may begin anywhere.
        fold_entries_max: entries that take about a millisecond to fold.
        state_bytes: memory of one fold, where that is worth counting.
    """

    name: str
    new_fold: Callable[[Meta], ByteFold]
    heartbeat: bytes = PING
    content_type: bytes = EVENT_STREAM
    headers: Headers = ()
    is_numbered: bool = False
    restarts: bool = False
    is_lines: bool = True
    is_compressible: bool = False
    after_frame: Callable[[bytes], bytes] = after_event
    last_key: Callable[[int], int] | None = None
    fold_entries_max: int = FOLD_ENTRIES_MAX
    state_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DeflatedDialects:
    """The frames of a `FrameFold.shared` compressed, for sockets with permessage-deflate.

    Attributes:
        lone: each frame is compressed alone.
        chained: frames refer to earlier frames. A socket may follow one such log at a time, and no
            other message to this socket may be compressed meanwhile.
    """

    lone: Dialect
    chained: Dialect


class BinaryFrame(bytes):
    """A frame that leaves as a binary message of the WebSocket, and not as a text."""

    __slots__ = ()


class FrameFold(ABC):
    """One subscription to one generation on a WebSocket.

    Attributes:
        joins: several tokens may be joined into one frame for a reader that is behind. Must be
            False where clients count frames.
        restarts: as in `Dialect`.
        is_over: the subscription has no more output, although the log may continue. `add` sets it.
        shared: the dialect whose bytes, framed (RFC 6455, 5.2), equal the output of `add` for every
            subscription; then one encoding serves all. None: the output differs.
        deflated: the same, compressed; only with `shared`.
    """

    joins = False
    restarts = False
    is_over = False
    shared: Dialect | None = None
    deflated: DeflatedDialects | None = None

    @abstractmethod
    def add(self, event_id: EventId, raw: bytes) -> Sequence[bytes]:
        """Return the frames for the next entry: any number.

        They are text in UTF-8, except those of the type `BinaryFrame`.
        """

    def caught_up(self) -> Sequence[bytes]:
        """Return the frames to send once, after every entry that existed at the join."""
        return ()

    def aside(self, raw: bytes) -> Sequence[bytes] | None:
        """Return the frames for an event that is not in the log; None: use `expired` instead."""
        return None

    @abstractmethod
    def expired(self) -> Sequence[bytes]:
        """Return the last frames, for a log that expired before its end was read."""
