"""One subscription: one reading of one generation on one WebSocket.

A subscription has no task. It takes turns with the other subscriptions of its socket
(api/readers/websocket_sender.py), and returns one frame in each turn. If all readers of a dialect
have the same frames, a subscription that has caught up follows in a row, and the row writes to the
connection without the socket's `send`. On a socket with permessage-deflate one subscription at a
time follows a chain of compressed frames (api/compression/deflated_messages.py); the subscription
joins the chain at a key frame.

Invariant: the frames leave in the order of the log; `caught_up` leaves once, after the entries that
the log had at the join; no frame follows the end; between the frames of a chain the socket sends
nothing compressed. Of a dialect this module knows only the fold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from api.hub.broadcast import FollowerRow
from api.hub.contracts import DeflateState, HubPort, ReadingOutcome, SocketWire
from api.hub.position import Placement, Position
from api.hub.relay import Relay
from shared.log.event_bytes import RESET
from shared.log.fold import BinaryFrame, Dialect, FrameFold
from shared.log.ids import EventId

JOIN_FROM = 4  # a reader that is this many entries behind gets several tokens in one frame
JOIN_BYTES_MAX = 65_536  # of the tokens in such a frame
_CAUGHT_UP_SENT = -1


class Sender(Protocol):
    """The socket that sends a subscription's frames (api/readers/websocket_sender.py)."""

    port: HubPort
    wire: SocketWire | None

    @property
    def is_open(self) -> bool: ...

    def take_turn(self, subscription: Subscription) -> None:
        """Queue for a turn; in the turn the socket calls `next_frame`."""
        ...

    def unsubscribe(self, key: str) -> None: ...

    def say_text(self, text: str) -> None:
        """Send a frame before the events that wait."""
        ...


class Subscription:
    """One reading of one generation on one socket.

    Attributes:
        key: the name that the conversation gave it; unique on its socket.
        position: where in the log it is. While it follows in a row, `position.seq` is stale: the
            row's `seq` counts.
        is_over: no further frame of it will be sent.
        row: the row in which it follows; None: it takes turns.
        write: the wire's; only with a wire.
    """

    __slots__ = (
        "_caught_up_seq",
        "_fold",
        "_frames",
        "_chained",
        "_has_turn",
        "_is_last",
        "_over",
        "_socket",
        "is_over",
        "key",
        "position",
        "relay",
        "row",
        "write",
    )

    def __init__(
        self, socket: Sender, key: str, relay: Relay, cursor: EventId, fold: FrameFold
    ) -> None:
        self.key = key
        self.position = Position(cursor, socket.port.now())
        if cursor.seq:
            socket.port.counters.resume(relay.meta.generation_id)
        self.relay = relay
        self.is_over = False
        self._socket = socket
        # Its own fold: folding an entry costs no more than finding its bytes in a shared log.
        self._fold = fold
        self._frames: list[bytes] = []  # further frames of the same entry; the next one is last
        self._is_last = False  # no frame follows those in `_frames`
        self._over: asyncio.Event | None = None
        self._has_turn = False
        # The seq after which `caught_up` is sent; None: not known yet.
        self._caught_up_seq: int | None = None
        self.row: FollowerRow | None = None
        self._chained: DeflateState | None = None  # of the socket, while this follows a chain
        if socket.wire is not None:
            self.write = socket.wire.write

    async def ended(self) -> None:
        """Return once no further frame of this subscription will be sent."""
        self._over = self._over or asyncio.Event()
        if not self.is_over:
            await self._over.wait()

    def stop(self) -> None:
        self.is_over = True
        if self.row is not None:
            self.row.remove(self)
        if self._over is not None:
            self._over.set()

    def wake(self) -> None:
        # While it follows in a row, the row writes, and `position.seq` is stale.
        if not self._has_turn and not self.is_over and self.row is None:
            self._has_turn = True
            self._socket.take_turn(self)

    def break_off(self, outcome: ReadingOutcome) -> None:
        """End with the dialect's `expired` frames: the log is gone before its end."""
        if not self.is_over:
            self._socket.unsubscribe(self.key)
            for frame in self._fold.expired():
                self._socket.say_text(frame.decode())

    def backlog_bytes(self) -> int:
        waiting = sum(map(len, self._frames))
        if self.position.epoch != self.relay.feed.epoch:
            return waiting
        feed = self.relay.feed
        return waiting + sum(map(len, feed.raws[max(0, self.position.seq - feed.base) :]))

    def next_frame(self, now: float) -> str | bytes | None:
        """Return the next frame.

        Returns:
            A frame, of text or of bytes; "": no frame now, but keep the turn; None: no frame, the
            turn is given up.
        """
        frame = None
        if not self.is_over:
            frame = self._frames.pop() if self._frames else self._next(now)
        if frame is None:
            self._has_turn = False
            return None
        return frame if type(frame) is BinaryFrame else frame.decode()

    def _next(self, now: float) -> bytes | None:
        feed = self.relay.feed
        if self._is_last:
            self._socket.unsubscribe(self.key)
            return None
        match self.position.place(feed, now):
            case Placement.WAITING:
                self._socket.port.await_place(self)
                return self._last_words_frame()
            case Placement.RESET:
                self._socket.port.counters.reset(self.relay.meta.generation_id)
                return self._aside_frame(RESET, is_last=not self._fold.restarts)
        if feed.is_up_to_date and (self._caught_up_seq is None or self._caught_up_seq > feed.count):
            self._caught_up_seq = feed.count
        if self._caught_up_seq is not None and 0 <= self._caught_up_seq <= self.position.seq:
            self._caught_up_seq = _CAUGHT_UP_SENT
            return self._first_of(self._fold.caught_up())
        if self.position.seq < feed.base:
            self.relay.refill_soon()
            return self._last_words_frame()  # with a lost log there is no refill
        if self.position.seq < feed.count and not self._is_at_key:
            return self._entry_frame()
        if feed.is_ended and self.position.seq >= feed.count:
            self._socket.unsubscribe(self.key)
            return None
        frame = self._last_words_frame()
        return self._follow(now) if frame is None else frame

    @property
    def _is_at_key(self) -> bool:
        """Whether this reader may follow a chain from here; the next such place may be far."""
        last_key, seq = self._last_key, self.position.seq
        is_key = last_key is not None and last_key(seq) == seq
        return is_key and self._may_follow and self.relay.unlogged_end is None

    @property
    def _may_follow(self) -> bool:
        wire = self._socket.wire
        is_free = wire is not None and not wire.is_paused and self._socket.is_open
        return is_free and self._caught_up_seq == _CAUGHT_UP_SENT

    def _follow(self, now: float) -> bytes | None:
        """Join the row of readers that have caught up, if the fold and the server allow that.

        A row never waits for its encoded log, so the reader joins once that log is complete. This
        reader has its own fold: the encoded log may be new, or have lost its bytes to a trim.

        Returns:
            None: the turn is given up; no bytes: another turn continues the encoding.
        """
        wire, seq = self._socket.wire, self.position.seq
        if wire is None or not self._may_follow:
            return None
        dialect = self._row_dialect(wire.deflate)
        if dialect is None or (dialect.last_key is not None and dialect.last_key(seq) != seq):
            return None
        log = self.relay.encoded_log(dialect)
        log.encode()
        if not log.is_complete:
            if not log.is_refill_needed(seq):
                return b""
            self.relay.refill_soon()
            return None
        if self._fold.deflated is not None and dialect is self._fold.deflated.chained:
            assert wire.deflate is not None
            self._chained = wire.deflate
            self._chained.is_chained = True
        self.relay.individual_readers.discard(self)
        group = self.relay.broadcast_group(dialect, is_chunked=False)
        group.admit(self, seq, now)
        if seq < self.relay.feed.count:
            group.note_change()
        return None

    def _row_dialect(self, deflate: DeflateState | None) -> Dialect | None:
        """Return the dialect of the row to follow in; None: the frames are not shared."""
        deflated = self._fold.deflated
        if deflate is None or deflated is None:
            return self._fold.shared
        if not deflate.may_chain:
            return deflated.lone
        return self._fold.shared if deflate.is_chained else deflated.chained

    def step_out(self, seq: int, sent_at: float) -> None:
        """Take turns again, after entry `seq`. The row calls this when it removes the reader."""
        if self._chained is not None:
            self._chained.is_chained = False
            self._chained = None
        self.position.seq = seq
        if not self.is_over:
            self.relay.individual_readers.add(self)
            self.wake()

    def _entry_frame(self) -> bytes:
        """Return the next entry as a frame; for a reader that is behind, the next run of tokens."""
        feed, fold, start = self.relay.feed, self._fold, self.position.seq
        end, raw = start + 1, feed.raws[start - feed.base]
        if feed.count - start >= JOIN_FROM and fold.joins:
            target = self._caught_up_seq  # a run never passes the seq at which `caught_up` is due
            stop = target if target is not None and target > start else feed.count
            stop = self._key_before(start, stop)
            self.relay.token_runs.scan()
            raw, end = self.relay.token_runs.join_after(start, stop=stop, bytes_max=JOIN_BYTES_MAX)
        self.position.seq = end
        frames = fold.add(feed.ids.at(end), raw)
        self._is_last = fold.is_over
        counters = self._socket.port.counters
        counters.events_delivered += end - start
        if len(frames) == 1:
            counters.bytes_delivered += len(frames[0])
            return frames[0]
        counters.bytes_delivered += sum(map(len, frames))
        return self._first_of(frames)

    def _key_before(self, seq: int, stop: int) -> int:
        """Return the last place from `seq` to `stop` at which this reader may join a row."""
        key = stop if self._last_key is None else self._last_key(stop)
        return key if key > seq else stop

    @property
    def _last_key(self) -> Callable[[int], int] | None:
        """`Dialect.last_key` of the row that this reader would join."""
        wire = self._socket.wire
        dialect = None if wire is None else self._row_dialect(wire.deflate)
        return None if dialect is None else dialect.last_key

    def _first_of(self, frames: Sequence[bytes]) -> bytes:
        """Return the first frame, and store the others for the next turns."""
        self._frames = list(reversed(frames[1:]))
        return frames[0] if frames else b""

    def _last_words_frame(self) -> bytes | None:
        """Return the `end` of a generation whose log Redis has lost; None: there is none."""
        if self.relay.unlogged_end is None:
            return None
        return self._aside_frame(self.relay.unlogged_end, is_last=True)

    def _aside_frame(self, raw: bytes, *, is_last: bool) -> bytes:
        """Return the first frame of an event that is not in the log."""
        frames = self._fold.aside(raw)
        self._is_last = is_last or frames is None
        return self._first_of(self._fold.expired() if frames is None else frames)
