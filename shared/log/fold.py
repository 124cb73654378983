"""What a dialect is to the hub: a fold that turns entries into bytes, and a name to share it by.

Invariant: a fold's output depends on the log and on what was stored at creation, on nothing else.
So it runs once per generation, dialect and node, and every node gives the same bytes. It knows no
clock, no reader and no transport. A fold may keep state (numbers it has given); it is then made
anew, and fed from the first entry, whenever the log is rewritten.

Two kinds: a `Fold` gives one run of bytes that all HTTP readers share; a `FrameFold` gives text
frames and belongs to one reading on one socket, so it may know what that reader called it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared.log.ids import EventId
from shared.log.records import Meta

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream; charset=utf-8"
PING = b": ping\n"  # no blank line after it: that breaks some client's parser
FRAME_END = b"\n\n"  # of a server-sent event; JSON has no line breaks of its own

Headers = Sequence[tuple[bytes, bytes]]


class Fold(ABC):
    """One generation in one dialect.

    Attributes:
        over_at: the seq of the entry after which this dialect has nothing more to say, although the
            log may go on; -1: it says something up to the end. Set within `add`, once.
        given: of a numbered dialect, the chunks given so far, those of the opening included.
    """

    over_at = -1
    given = 0

    def opening(self) -> bytes:
        """Return what a reader is sent before the first entry exists. Called once, before `add`."""
        return b""

    @abstractmethod
    def add(self, event_id: EventId, raw: bytes) -> bytes:
        """Return the bytes for the next entry: none, one or several frames, complete ones.

        Args:
            event_id: where it stands; entries come in order, from the first, none after `over_at`.
            raw: its JSON, `type` first. Types that this version does not know are passed on.
        """

    def aside(self, raw: bytes) -> bytes | None:
        """Return the bytes for an event that is not in the log (id `0-0`): `reset`, or `end` lost.

        Called for one reader, which has all that was folded: must not change the fold.
        None: this dialect has no way to say it, and its readers are broken off instead.
        """
        return None


@dataclass(frozen=True, slots=True)
class Dialect:
    """A dialect over HTTP, as the hub knows it.

    Attributes:
        name: readers with the same name share one encoded log; the label of the metrics.
        new_fold: starts the fold of one generation.
        heartbeat: bytes for a reader that was sent nothing.
        content_type: of the response.
        headers: further ones of every response.
        is_numbered: clients count the chunks (SSE frames). `Fold.given` is kept for each entry; of
            an entry's bytes the counted frames come first.
        restarts: after an aside `reset` a reader is sent everything from the start; False: the
            aside is the last thing that it is sent.
    """

    name: str
    new_fold: Callable[[Meta], Fold]
    heartbeat: bytes = PING
    content_type: bytes = EVENT_STREAM
    headers: Headers = ()
    is_numbered: bool = False
    restarts: bool = False


class FrameFold(ABC):
    """One reading of one generation on a WebSocket.

    Attributes:
        joins: a reader that is behind may be given a run of tokens as one. Never where a client
            counts frames.
        restarts: as of a `Dialect`.
        is_over: it has nothing more to say, although the log may go on. Set within `add`.
        shared: the dialect whose bytes are what `add` returns, framed (RFC 6455, 5.2), where that
            is the same for every reading of a generation: then they are made once for all.
    """

    joins = False
    restarts = False
    is_over = False
    shared: Dialect | None = None

    @abstractmethod
    def add(self, event_id: EventId, raw: bytes) -> Sequence[bytes]:
        """Return the text frames for the next entry, UTF-8: none, one or several."""

    def caught_up(self) -> Sequence[bytes]:
        """Return what is said once, when all that was there at the join has been sent."""
        return ()

    def aside(self, raw: bytes) -> Sequence[bytes] | None:
        """Return the frames for an event that is not in the log; None: as `expired`."""
        return None

    @abstractmethod
    def expired(self) -> Sequence[bytes]:
        """Return the frames for a log that is gone before its end was read; then it is over."""
