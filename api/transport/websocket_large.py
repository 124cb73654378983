"""uvicorn's WebSocket protocol with large messages, which take bytes of the node's memory.

api/transport/large_messages.py finds them in the bytes. This module connects it with the parser,
with the budget of the node (api/body_room.py) and with a timer: a large message must keep the pace
of a large HTTP body. The application gets such a message under the key `LARGE_MESSAGE`, and
releases its memory when it has served it. A refused message comes without content, so that the
application can answer in the order of the frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from api.body_room import ArrivalPace, BodyHold, BodyRoom, bodies_full
from api.errors import request_error
from api.transport.extensions import FIRST_MESSAGE_BYTES, LARGE_MESSAGE
from api.transport.large_messages import (
    BINARY_BYTES_MAX,
    SMALL_BYTES,
    BrokenMessage,
    CompressedMessage,
    LargeMessage,
    MessageSieve,
)
from api.transport.websocket_bounds import SLICE_BYTES, BoundedWebSocketProtocol

LARGE_SLICE_BYTES = 262_144  # of a large payload in one step
COMPRESSED_SLICE_BYTES = 512  # of a payload that may be compressed, in one step: up to 528 kB


class _Memory:
    """The hold of one message, with the clock of the loop."""

    __slots__ = ("_loop", "hold")

    def __init__(self, hold: BodyHold, loop: asyncio.AbstractEventLoop) -> None:
        self.hold = hold
        self._loop = loop

    def grow(self, count: int) -> None:
        self.hold.grow(count, self._loop.time())

    def lend(self, on_given_up: Callable[[], None]) -> None:
        self.hold.on_given_up = on_given_up

    def release(self) -> None:
        self.hold.complete()
        self.hold.release()


class LargeMessageProtocol(BoundedWebSocketProtocol):
    """One WebSocket connection whose messages may be large.

    Args:
        room: the memory of the node; None: only the bound of one message counts.
    """

    __slots__ = (
        "_first_bytes_max",
        "_hold",
        "_pace",
        "_pace_timer",
        "_received_at_ping",
        "_room",
        "_sieve",
    )

    def __init__(self, *args: Any, room: BodyRoom | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        bytes_max = self.config.ws_max_size
        self._room = room or BodyRoom(bytes_max, bytes_max)
        self._sieve: MessageSieve | None = None  # from the first frame
        self._hold: BodyHold | None = None  # of the message that arrives
        self._pace: ArrivalPace | None = None
        self._pace_timer: asyncio.TimerHandle | None = None
        self._received_at_ping = 0
        self._first_bytes_max = bytes_max  # of a message, until the first one is here

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.accept":
            self._first_bytes_max = message.get(FIRST_MESSAGE_BYTES, self._first_bytes_max)
        await super().send(message)

    @property
    def slice_bytes(self) -> int:
        left = 0 if self._sieve is None else self._sieve.large_bytes_left
        least = COMPRESSED_SLICE_BYTES if self.inflates else SLICE_BYTES
        return max(least, min(left, LARGE_SLICE_BYTES))

    @property
    def inflates(self) -> bool:
        """Whether the client's messages may be compressed."""
        return False

    @property
    def is_receiving(self) -> bool:
        """Whether a large message is arriving at its pace."""
        return self._pace is not None

    @property
    def is_between_frames(self) -> bool:
        return self._sieve is None or self._sieve.is_between_frames

    def has_progress(self) -> bool:
        """Whether bytes of a large frame have come since the last call.

        Within a frame the client cannot send a pong.
        """
        message = None if self._sieve is None else self._sieve.message
        before = self._received_at_ping
        self._received_at_ping = 0 if message is None else message.received
        return not self.is_between_frames and self._received_at_ping != before

    def parse_slice(self, data: bytes) -> None:
        if not self.handshake_initiated:
            super().parse_slice(data)
            return
        if self._sieve is None:
            self._sieve = MessageSieve(
                self.config.ws_max_size, self._begin_large, inflates=self.inflates
            )
        try:
            for piece in self._sieve.feed(data):
                super().parse_slice(piece)
                if self._drops_input or self.transport.is_closing():
                    return
        except BrokenMessage as exc:
            self.fail(exc.code, exc.reason)
        if self._pace is not None and self._sieve.message is not None:
            self._pace.note(self._sieve.message.received, self.loop.time())

    def _begin_large(self, is_text: bool, is_compressed: bool) -> LargeMessage:
        hold = self._hold = self._room.hold()
        kind = CompressedMessage if is_compressed else LargeMessage
        most = min(self.config.ws_max_size, self._first_bytes_max)
        message = kind(
            _Memory(hold, self.loop),
            is_text=is_text,
            bytes_max=most if is_text else min(most, BINARY_BYTES_MAX),
        )
        hold.on_given_up = lambda: message.refuse(bodies_full())
        self._pace = ArrivalPace(self.loop.time())
        self._pace_timer = self.loop.call_at(self._pace.due_s, self._check_pace)
        fragments, self.frames = self.frames, []
        for fragment in fragments:
            message.add(bytes(fragment))
        return message

    def _check_pace(self) -> None:
        assert self._pace is not None and self._sieve is not None
        if self.loop.time() < self._pace.due_s:
            self._pace_timer = self.loop.call_at(self._pace.due_s, self._check_pace)
            return
        complaint = self._pace.complaint()
        self._end_pace()
        if self._sieve.message is not None:
            self._sieve.message.refuse(request_error("request_timeout", complaint))

    def _end_pace(self) -> None:
        self._pace = None
        if self._pace_timer is not None:
            self._pace_timer.cancel()
            self._pace_timer = None

    def send_receive_event_to_app(self) -> None:
        self._first_bytes_max = self.config.ws_max_size
        message = None if self._sieve is None else self._sieve.message
        if self._sieve is None or message is None:
            super().send_receive_event_to_app()
            return
        self._sieve.message = None
        self.frames = []
        self._end_pace()
        if self._hold is not None:
            self._hold.complete()
        if self.close_sent:
            message.drop()
            return
        event: dict[str, Any] = {"type": "websocket.receive"}
        if message.refusal is None and len(message.content) <= SMALL_BYTES:  # was compressed
            if message.is_text:
                event["text"] = message.content.decode()
            else:
                event["bytes"] = bytes(message.content)
            message.memory.release()
        else:
            event[LARGE_MESSAGE] = message
            if not message.is_text:
                event["bytes"] = b""
        self.queue.put_nowait(event)
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def fail(self, code: int, reason: str) -> None:
        """Close with `code`: the peer has broken the protocol, or gives no pong."""
        self.conn.send_close(code, reason)
        self.hang_up(code, reason)

    def hang_up(self, code: int, reason: str) -> None:
        self._drop_large()
        super().hang_up(code, reason)

    def connection_lost(self, exc: Exception | None) -> None:
        self._drop_large()
        for event in self.queue.waiting():
            if LARGE_MESSAGE in event:
                event[LARGE_MESSAGE].drop()
        super().connection_lost(exc)

    def _drop_large(self) -> None:
        """Give back the memory of a message that will not become complete."""
        self._end_pace()
        sieve, self._sieve = self._sieve, None
        if sieve is not None and sieve.message is not None:
            sieve.message.drop()
