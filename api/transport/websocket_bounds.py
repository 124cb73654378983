"""uvicorn's WebSocket protocol with bounds on what a peer can make the server keep or do at a time.

uvicorn bounds a message. It parses all bytes of a read at once, up to a quarter of a megabyte in
frames of six bytes, and keeps each message as an object. It also keeps any number of empty
fragments, sends a pong for each ping while the peer reads nothing, and leaves a closed connection
open while the peer takes none of the unsent bytes.

Here a read is parsed in slices of `SLICE_BYTES`, and other connections have their turn between two
slices. Parsing stops until the application has taken the messages of the last slice.

Knows nothing of generations. Written against uvicorn 0.54; tests/unit/api/transport/test_http.py
and tests/hostile drive it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from api.transport.lazy_sync import LazyEvent, SingleConsumerQueue
from api.transport.refusal import encode_refusal, end_sending, send_last
from api.transport.stalled_peer import CLOSING_STALL_S, StallTimer
from shared.errors import RequestError

SLICE_BYTES = 4_096
# How long the peer's bytes are read and dropped after our close frame, before the abort.
CLOSE_LINGER_S = 1.0


class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection.

    `__slots__` also lists the attributes that uvicorn sets: a `__dict__` with so many names would
    take 2 kB for each connection.
    """

    __slots__ = (
        *("app", "app_state", "asgi_version", "client", "close_sent", "close_timeout"),
        *("close_timer", "config", "conn", "connections", "curr_msg_data_type"),
        *("default_headers", "disconnected", "frames", "handshake_complete"),
        *("handshake_initiated", "initial_response", "last_ping_rtt", "logger", "loop"),
        *("pending_ping_payload", "ping_interval", "ping_sent_at", "ping_timeout", "ping_timer"),
        *("pong_timer", "queue", "read_paused", "request", "response", "root_path", "scheme"),
        *("scope", "server", "tasks", "transport", "writable"),
        "_drops_input",
        "_is_slice_scheduled",
        "_owed_pong",
        "_unparsed",
        "stall",
    )

    queue: SingleConsumerQueue  # type: ignore[assignment]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.queue = SingleConsumerQueue()
        self.writable = LazyEvent(is_set=True)  # type: ignore[assignment]
        self._unparsed = b""  # received bytes behind the last slice
        self._is_slice_scheduled = False
        self._owed_pong = b""  # for the last ping that arrived while the write buffer was full
        self._drops_input = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.stall = StallTimer(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unparsed = b""
        self.stall.end()
        super().connection_lost(exc)

    # Reading, one slice at a time

    @property
    def is_behind(self) -> bool:
        """Whether the peer may have sent bytes that this side has not parsed yet."""
        return bool(self.read_paused or self._unparsed)

    def data_received(self, data: bytes) -> None:
        if self._drops_input:
            return
        if self.handshake_initiated and (self._unparsed or len(data) > self.slice_bytes):
            self._unparsed += data
            self.transport.pause_reading()
            self._schedule_slice()
        else:
            self.parse_slice(data)

    @property
    def slice_bytes(self) -> int:
        """Return how many bytes of a read are parsed at a time."""
        return SLICE_BYTES

    def parse_slice(self, data: bytes) -> None:
        """Parse one slice."""
        super().data_received(data)

    def refuse(self, error: RequestError) -> None:
        """Refuse the handshake with `error`, before any other answer, and stop reading."""
        self.refuse_with(encode_refusal(error))

    def refuse_with(self, response: bytes) -> None:
        """Refuse the handshake with an encoded response, and stop reading."""
        self.handshake_initiated = self.handshake_complete = True
        self.close_sent = self._drops_input = self.disconnected = True
        send_last(self.transport, self.stall, response)

    def _schedule_slice(self) -> None:
        if not self._is_slice_scheduled:
            self._is_slice_scheduled = True
            self.loop.call_soon(self._parse_next_slice)

    def _parse_next_slice(self) -> None:
        self._is_slice_scheduled = False
        # uvicorn pauses reading until the application has taken the messages.
        if self.read_paused or self.transport.is_closing():
            return
        size = self.slice_bytes
        data, self._unparsed = self._unparsed[:size], self._unparsed[size:]
        if data:
            self.parse_slice(data)
        if self._unparsed:
            self._schedule_slice()
        elif not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self._unparsed and not self.read_paused:
            self._schedule_slice()  # after a close frame uvicorn reads on until the peer's answer

    async def receive(self) -> Any:
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            if self._unparsed:
                self._schedule_slice()
            else:
                self.transport.resume_reading()
        return message

    # Bounds for a peer that reads nothing or sends empty frames

    def handle_cont(self, event: Any) -> None:
        if event.data or event.fin:
            super().handle_cont(event)

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            # Of several unanswered pings only the last needs a pong (RFC 6455, 5.5.3). The first
            # ping flushes everything that this slice queued; for later pings nothing is left.
            self._owed_pong = b"".join(self.conn.data_to_send()) or self._owed_pong

    def resume_writing(self) -> None:
        super().resume_writing()
        pong, self._owed_pong = self._owed_pong, b""
        if pong and not self.close_sent and not self.transport.is_closing():
            self.transport.write(pong)

    # Closing

    def handle_close(self, event: Any) -> None:
        super().handle_close(event)
        self.watch_if_closing()

    def eof_received(self) -> None:
        super().eof_received()
        self.stall.watch(CLOSING_STALL_S)  # the transport closes itself after this callback

    def handle_parser_exception(self) -> None:
        frame = self.conn.close_sent
        assert frame is not None
        self.hang_up(frame.code, frame.reason)

    def hang_up(self, code: int, reason: str) -> None:
        """Send the close frame that `conn` has queued, and drop all bytes that arrive afterwards.

        The peer's bytes are read for `CLOSE_LINGER_S`: to close with unread bytes resets the
        connection, and the peer may lose the close frame with the reason.
        """
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = self._drops_input = True
        self._unparsed = b""
        if not self.transport.is_closing():
            end_sending(self.transport)
            self.transport.resume_reading()
            self.close_timer = self.loop.call_later(CLOSE_LINGER_S, self.transport.abort)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        self.wait_for_close()

    def wait_for_close(self) -> None:
        """Watch the peer after the application has finished: it may still answer a close frame."""
        if not self.disconnected and not self.stall.is_watching:
            self.stall.watch(self.close_timeout + CLOSING_STALL_S)

    def watch_if_closing(self) -> None:
        """Watch a closing transport: with a peer that reads nothing, it would never close."""
        if self.transport.is_closing():
            self.stall.watch(CLOSING_STALL_S)
