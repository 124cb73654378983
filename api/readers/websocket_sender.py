"""The sending side of one WebSocket: many subscriptions share one `send`.

The subscriptions take turns, and each sends one frame in its turn. Replies to the client
(`accepted`, `pong`, `error`) leave before events. A subscription has no task and no queue: unsent
events are in the log, except for the further frames of the entry that is being sent.
This module does not know which commands clients may send. Of a dialect it knows only the fold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.types import Send

from api.errors import CODES
from api.hub.contracts import HubPort, ReadingOutcome, SocketWire, Transport
from api.hub.relay import Relay
from api.readers.asgi_step import Step
from api.readers.slow_reader import BlockedWrite
from api.readers.websocket_reader import Subscription
from api.transport.lazy_sync import LazyEvent
from api.transport.unacknowledged import unacknowledged_bytes
from shared.log.fold import FrameFold
from shared.log.ids import EventId

FRAMES_PER_TURN = 16
REPLIES_MAX = 64  # with more unsent replies, no frame is read until half of these have left
# Close codes: docs/protocol.md, "WebSocket".
TOO_SLOW = CODES["too_slow"].close
RESTARTING = CODES["draining"].close
IDLE = 4000
TOKEN_EXPIRED = CODES["token_expired"].close
REVOKED = CODES["unauthorized"].close
NO_CLOSE_FRAME = 0  # not a code: the connection is broken, or will be aborted

CLOSE_CODES = {
    ReadingOutcome.CUT: TOO_SLOW,
    ReadingOutcome.DRAINED: RESTARTING,
    ReadingOutcome.ROTATED: RESTARTING,
    ReadingOutcome.EXPIRED: TOKEN_EXPIRED,
    ReadingOutcome.REVOKED: REVOKED,
}


class Socket:
    """The sending side of one WebSocket.

    Args:
        port: the hub.
        idle_s: a socket without a subscription and without a frame for this long is closed.
        release: releases the hold of a subscription on its relay.
        transport: the connection below `send`, if the server exposes it.
        wire: writes to the connection without `send`, if the server has such a way.

    Attributes:
        subscriptions: the open ones, by the names that the conversation gave them.
        is_queued: it waits for its turn in the pump; the pump sets this.
        done: set to the close code when the socket ends, or to `NO_CLOSE_FRAME`.
        active_at: when a frame last arrived or left, or a subscription ended; loop time, s.
    """

    __slots__ = (
        "_beaten_at",
        "_blockage",
        "_closing",
        "_frame_bytes",
        "_has_room",
        "_idle_s",
        "_release",
        "_replies",
        "_send",
        "_step",
        "_transport",
        "_turns",
        "active_at",
        "done",
        "is_queued",
        "port",
        "subscriptions",
        "wire",
    )

    def __init__(
        self,
        send: Send,
        port: HubPort,
        *,
        idle_s: float,
        release: Callable[[Relay], None],
        transport: Transport | None = None,
        wire: SocketWire | None = None,
    ) -> None:
        self.subscriptions: dict[str, Subscription] = {}
        self.is_queued = False
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.port = port
        self.active_at = self._beaten_at = port.now()
        self._send = send
        self._idle_s = idle_s
        self._release = release
        self._transport = transport
        self.wire = wire
        if wire is not None:
            wire.on_paused = self._step_out
        self._step = Step(self._written)
        self._blockage: BlockedWrite | None = None
        self._frame_bytes = 0
        self._replies: list[str] = []  # short lists: a deque would take more memory
        self._turns: list[Subscription] = []
        self._closing: int | None = None
        self._has_room = LazyEvent(is_set=True)

    @property
    def is_blocked(self) -> bool:
        return self._step.is_busy

    def send_through(self, send: Send) -> None:
        self._send = send

    # Called by the conversation

    def say(self, **frame: Any) -> None:
        """Send a reply: a JSON frame that leaves before the events that wait."""
        self.say_text(msgspec.json.encode(frame).decode())

    def say_text(self, frame: str) -> None:
        """Send a reply that is already encoded."""
        if self._closing is None and not self.done.done():
            self._replies.append(frame)
            if len(self._replies) > REPLIES_MAX:
                self._has_room.clear()
            self.wake()

    async def await_room(self) -> None:
        """Return at once, unless more than `REPLIES_MAX` replies are unsent.

        Then return when half of `REPLIES_MAX` are left.
        """
        await self._has_room.wait()

    def subscribe(self, key: str, relay: Relay, cursor: EventId, fold: FrameFold) -> Subscription:
        """Send the events of `relay` after `cursor`; replace the subscription named `key`."""
        self.unsubscribe(key)
        subscription = Subscription(self, key, relay, cursor, fold)
        self.subscriptions[key] = subscription
        relay.join(subscription)
        return subscription

    def unsubscribe(self, key: str) -> None:
        subscription = self.subscriptions.pop(key, None)
        if subscription is not None:
            subscription.stop()
            subscription.relay.leave(subscription)
            self._release(subscription.relay)
            self.active_at = self.port.now()

    def close(self, code: int) -> None:
        """Close with `code` once the replies have been sent; events are sent no more."""
        if self._closing is None:
            self._closing = code
            self._step_out()
            self.wake()

    def break_off(self, outcome: ReadingOutcome) -> None:
        """End the socket at once; unsent replies are dropped."""
        self._finish(CLOSE_CODES.get(outcome, NO_CLOSE_FRAME))

    def stop(self) -> None:
        """Release all subscriptions and the wire. The conversation must call this at its end."""
        self._finish(NO_CLOSE_FRAME)
        for key in list(self.subscriptions):
            self.unsubscribe(key)
        self._turns.clear()
        self._step.close()
        if self.wire is not None:
            self.wire.release()

    # Sending

    def wake(self) -> None:
        if not self.is_queued and not self._step.is_busy:
            self.port.wake(self)

    def take_turn(self, subscription: Subscription) -> None:
        self._turns.append(subscription)
        self.wake()

    def pump(self, now: float) -> bool:
        """Send up to `FRAMES_PER_TURN` frames, unless a write waits; True: there may be more."""
        for _ in range(FRAMES_PER_TURN):
            if self._step.is_busy or self.done.done():
                return False
            frame = self._next_frame(now)
            if frame is None:
                if self._closing is not None:
                    self._finish(self._closing)
                return False
            if frame:
                self._write(frame, now)
        return True

    def _next_frame(self, now: float) -> str | bytes | None:
        """Return the next frame; "": try again in the next turn; None: no frame waits."""
        if self._replies:
            frame = self._replies.pop(0)
            if len(self._replies) <= REPLIES_MAX // 2:
                self._has_room.set()
            return frame
        while self._turns and self._closing is None:
            subscription = self._turns.pop(0)
            frame_or_none = subscription.next_frame(now)
            if frame_or_none is not None:
                self._turns.append(subscription)  # to the back of the line
                return frame_or_none
        return None

    def _write(self, frame: str | bytes, now: float) -> None:
        self.active_at = now
        kind = "text" if isinstance(frame, str) else "bytes"
        try:
            is_sent = self._step.start(
                self._send({"type": "websocket.send", kind: frame})  # type: ignore[arg-type]
            )
        except Exception:  # an error of the server ends only this socket
            self._finish(NO_CLOSE_FRAME)
            return
        if not is_sent:
            self._frame_bytes = len(frame)
            self._blockage = BlockedWrite(now, unacknowledged_bytes(self._transport))
            self.port.note_blocked(self)

    def _written(self, _: Any, error: BaseException | None) -> None:
        self._unblock()
        if error is not None:
            self._finish(NO_CLOSE_FRAME)
        else:
            self.port.wake(self)

    def _unblock(self) -> None:
        if self._blockage is not None:
            self._blockage = None
            self._frame_bytes = 0
            self.port.note_unblocked(self)

    def _finish(self, code: int) -> None:
        if not self.done.done():
            self.done.set_result(code)
            self._step_out()
        self._unblock()
        self._has_room.set()

    @property
    def is_open(self) -> bool:
        """Return whether events may still be sent."""
        return self._closing is None and not self.done.done()

    def _step_out(self) -> None:
        """Take all subscriptions out of their rows: the connection is full, or is being closed."""
        for subscription in self.subscriptions.values():
            if subscription.row is not None:
                subscription.row.remove(subscription)

    # Limits

    def beat(self, now: float, heartbeat_s: float) -> float | None:
        """Ping once per heartbeat if there is a wire (else the server pings); close when idle.

        Returns:
            When to call again, loop time in s; None: never.
        """
        if self.done.done():
            return None
        if self.wire is not None and self.wire.is_receiving:
            self.active_at = now
        if not self.subscriptions and now - self.active_at >= self._idle_s:
            self.close(IDLE)
            return None
        if self.wire is not None and now - self._beaten_at >= heartbeat_s:
            self._beaten_at = now
            self.wire.beat()
        return now + min(heartbeat_s, self._idle_s)

    @property
    def generation_ids(self) -> list[str]:
        return [each.relay.meta.generation_id for each in self.subscriptions.values()]

    def is_too_slow(self, now: float, bytes_max: int) -> bool:
        if self._blockage is None:
            return False
        unsent = self._buffer_bytes()
        backlog = unsent + self._frame_bytes + sum(map(len, self._replies))
        backlog += sum(each.backlog_bytes() for each in self.subscriptions.values())
        return self._blockage.is_too_slow(
            now,
            unacknowledged_bytes=unacknowledged_bytes(self._transport),
            backlog_bytes=backlog,
            bytes_max=bytes_max,
        )

    def _buffer_bytes(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()
