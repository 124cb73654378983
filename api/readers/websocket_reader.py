"""One reading of one generation on one WebSocket.

It has no task: it takes turns with the others of its socket (api/readers/websocket_sender.py), and
gives one frame in each. Where all have the same frames it follows in a row once it has caught up,
and is written to past the socket's `send`. Invariant: its frames leave in the order of its log, its
`caught_up` once, when what was there at the join has been sent, and nothing of it after its end.
Knows of a dialect only its fold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from api.hub.broadcast import Row
from api.hub.contracts import Outcome, Port, SocketWire
from api.hub.position import Placing, Position
from api.hub.relay import Relay
from shared.log.event_bytes import RESET
from shared.log.fold import FrameFold
from shared.log.ids import EventId

JOIN_FROM = 4  # entries behind, from which tokens are joined into one frame
JOIN_BYTES_MAX = 65_536


class Sender(Protocol):
    """The socket that a subscription is sent over (api/readers/websocket_sender.py)."""

    port: Port
    wire: SocketWire | None

    @property
    def is_open(self) -> bool: ...

    def take_turn(self, subscription: Subscription) -> None:
        """Ask for a turn: `next_frame` will be called."""
        ...

    def unsubscribe(self, key: str) -> None: ...

    def say_text(self, text: str) -> None:
        """Send a frame ahead of events."""
        ...


class Subscription:
    """One reading of one generation on one socket.

    Attributes:
        key: what the conversation calls it.
        is_over: nothing more of it will be sent, for whatever reason.
    """

    __slots__ = (
        "_fold",
        "_frames",
        "_has_turn",
        "_is_last",
        "_over",
        "_socket",
        "_target",
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
        self.relay = relay
        self.is_over = False
        self._socket = socket
        # Folding an entry costs no more than finding its bytes in a shared log would.
        self._fold = fold
        self._frames: list[bytes] = []  # of the entry that is being sent, the next one last
        self._is_last = False  # nothing follows those
        self._over: asyncio.Event | None = None
        self._has_turn = False
        self._target: int | None = None  # the seq at which it has caught up; -1: that was said
        self.row: Row | None = None
        if socket.wire is not None:
            self.write = socket.wire.write

    async def ended(self) -> None:
        """Return once nothing more of it will be sent."""
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
        # In a row it is not where `position` says, which is the row's affair.
        if not self._has_turn and not self.is_over and self.row is None:
            self._has_turn = True
            self._socket.take_turn(self)

    def break_off(self, outcome: Outcome) -> None:
        """The log is gone before its end: there is nothing to come back to."""
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

    def next_frame(self, now: float) -> str | None:
        """Return the next frame; empty: come back; None: it has given up its turn."""
        frame = None
        if not self.is_over:
            frame = self._frames.pop() if self._frames else self._next(now)
        if frame is None:
            self._has_turn = False
            return None
        return frame.decode()

    def _next(self, now: float) -> bytes | None:
        feed = self.relay.feed
        if self._is_last:
            self._socket.unsubscribe(self.key)
            return None
        match self.position.place(feed, now):
            case Placing.WAITING:
                self._socket.port.await_place(self)
                return self._last_words()
            case Placing.RESET:
                self._socket.port.counters.resets += 1
                return self._aside(RESET, is_last=not self._fold.restarts)
        if feed.is_whole and (self._target is None or self._target > feed.count):
            self._target = feed.count
        if self._target is not None and 0 <= self._target <= self.position.seq:
            self._target = -1
            return self._first_of(self._fold.caught_up())
        if self.position.seq < feed.base:
            self.relay.refill_soon()
            return None
        if self.position.seq < feed.count:
            return self._event()
        if feed.is_ended:
            self._socket.unsubscribe(self.key)
            return None
        words = self._last_words()
        if words is None:
            self._follow(now)
        return words

    def _follow(self, now: float) -> None:
        """All is sent: from here on with the others, past `send`, where both sides allow that."""
        wire, shared = self._socket.wire, self._fold.shared
        is_free = wire is not None and not wire.is_paused and self._socket.is_open
        if shared is not None and is_free and self._target == -1:
            self.relay.scattered.discard(self)
            self.relay.audience(shared, is_chunked=False).admit(self, self.position.seq, now)

    def step_out(self, seq: int, sent_at: float) -> None:
        self.position.seq = seq
        if not self.is_over:
            self.relay.scattered.add(self)
            self.wake()

    def _event(self) -> bytes:
        """Return the next entry, or, of a reader that is behind, the next run of tokens."""
        feed, fold, start = self.relay.feed, self._fold, self.position.seq
        end, raw = start + 1, feed.raws[start - feed.base]
        if feed.count - start >= JOIN_FROM and fold.joins:
            # Never over the place at which `caught_up` is due.
            stop = self._target if self._target is not None and self._target > start else feed.count
            self.relay.runs.look()
            raw, end = self.relay.runs.piece(start, stop=stop, bytes_max=JOIN_BYTES_MAX)
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

    def _first_of(self, frames: Sequence[bytes]) -> bytes:
        """Return the first, and keep the others for the next turns."""
        self._frames = list(reversed(frames[1:]))
        return frames[0] if frames else b""

    def _last_words(self) -> bytes | None:
        """Return an end that is in no log, where the log itself is gone."""
        if self.relay.last_words is None:
            return None
        return self._aside(self.relay.last_words, is_last=True)

    def _aside(self, raw: bytes, *, is_last: bool) -> bytes:
        frames = self._fold.aside(raw)
        self._is_last = is_last or frames is None
        return self._first_of(self._fold.expired() if frames is None else frames)
