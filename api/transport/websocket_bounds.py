"""uvicorn's WebSocket protocol with a bound on what a peer can make it keep, or do at a time.

uvicorn bounds a message. It reads whatever has arrived in one go, a quarter of a megabyte of
frames of six bytes, and keeps every message in it as an object; it keeps empty fragments without
end, and a pong for every ping while the peer reads nothing; and a closed connection stays for as
long as the peer takes nothing of what is left.

Here `SLICE_BYTES` are taken at a time, with everybody else's turn in between, and no more while
the application has not had the messages in them.

Knows nothing of generations. Written against uvicorn 0.54; tests/unit/api/transport/test_http.py
and tests/hostile drive it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from api.transport.lazy_sync import LeanEvent, LeanQueue
from api.transport.refusal import answer_of, finish
from api.transport.stalled_peer import CLOSE_S, Stall
from shared.errors import RequestError

SLICE_BYTES = 4_096


class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection.

    The slots are for what uvicorn sets, too: a dictionary of so many names would be 2 kB.
    """

    __slots__ = (
        *("app", "app_state", "asgi_version", "client", "close_sent", "close_timeout"),
        *("close_timer", "config", "conn", "connections", "curr_msg_data_type"),
        *("default_headers", "disconnected", "frames", "handshake_complete"),
        *("handshake_initiated", "initial_response", "last_ping_rtt", "logger", "loop"),
        *("pending_ping_payload", "ping_interval", "ping_sent_at", "ping_timeout", "ping_timer"),
        *("pong_timer", "queue", "read_paused", "request", "response", "root_path", "scheme"),
        *("scope", "server", "tasks", "transport", "writable"),
        "_is_deaf",
        "_is_going_on",
        "_owed_pong",
        "_unread",
        "stall",
    )

    queue: LeanQueue  # type: ignore[assignment]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.queue = LeanQueue()
        self.writable = LeanEvent(is_set=True)  # type: ignore[assignment]
        self._unread = b""
        self._is_going_on = False
        self._owed_pong = b""
        self._is_deaf = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.stall = Stall(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unread = b""
        self.stall.end()
        super().connection_lost(exc)

    # Reading, a slice at a time

    @property
    def is_behind(self) -> bool:
        """Whether the peer has sent what was not read yet, and why is on this side."""
        return bool(self.read_paused or self._unread)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        if self.handshake_initiated and (self._unread or len(data) > SLICE_BYTES):
            self._unread += data
            self.transport.pause_reading()
            self._go_on_soon()
        else:
            self.take(data)

    def take(self, data: bytes) -> None:
        """Read one slice."""
        super().data_received(data)

    def refuse(self, error: RequestError) -> None:
        """Refuse the handshake: nothing was answered yet, and nothing more is read."""
        self.say_last(answer_of(error))

    def say_last(self, answer: bytes) -> None:
        """The same with an answer that is ready to be sent."""
        self.handshake_initiated = self.handshake_complete = True
        self.close_sent = self._is_deaf = self.disconnected = True
        finish(self.transport, self.stall, answer)

    def _go_on_soon(self) -> None:
        if not self._is_going_on:
            self._is_going_on = True
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._is_going_on = False
        # While uvicorn has paused reading, the application has not taken the messages so far.
        if self.read_paused or self.transport.is_closing():
            return
        data, self._unread = self._unread[:SLICE_BYTES], self._unread[SLICE_BYTES:]
        if data:
            self.take(data)
        if self._unread:
            self._go_on_soon()
        elif not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self._unread and not self.read_paused:
            self._go_on_soon()  # uvicorn reads on for the answer to a close frame

    async def receive(self) -> Any:
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            if self._unread:
                self._go_on_soon()
            else:
                self.transport.resume_reading()
        return message

    # What is kept of a peer that does not read, or does not say anything

    def handle_cont(self, event: Any) -> None:
        if event.data or event.fin:
            super().handle_cont(event)

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            # Of pings that wait only the last needs its pong (RFC 6455, 5.5.3). What a slice made
            # to be sent is all taken at its first ping.
            self._owed_pong = b"".join(self.conn.data_to_send()) or self._owed_pong

    def resume_writing(self) -> None:
        super().resume_writing()
        pong, self._owed_pong = self._owed_pong, b""
        if pong and not self.close_sent and not self.transport.is_closing():
            self.transport.write(pong)

    # Closing

    def handle_close(self, event: Any) -> None:
        super().handle_close(event)
        self.end_soon()

    def eof_received(self) -> None:
        super().eof_received()
        self.stall.watch(CLOSE_S)  # the transport closes itself after this

    def handle_parser_exception(self) -> None:
        why = self.conn.close_sent
        assert why is not None
        self.hang_up(why.code, why.reason)

    def hang_up(self, code: int, reason: str) -> None:
        """Send the close frame that is ready, and listen no more.

        What the peer still sends is read for `CLOSE_S` and dropped: to close with something unread
        resets the connection, and the peer may never see the frame that says why.
        """
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = self._is_deaf = True
        self._unread = b""
        if not self.transport.is_closing():
            self.transport.write_eof()
            self.transport.resume_reading()
            self.close_timer = self.loop.call_later(CLOSE_S, self.transport.abort)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        self.wait_for_close()

    def wait_for_close(self) -> None:
        """The application has done with it."""
        if not self.disconnected and not self.stall.is_watching:
            # The peer may still answer a close frame with its own.
            self.stall.watch(self.close_timeout + CLOSE_S)

    def end_soon(self) -> None:
        """Closing waits until what is unsent has gone; a peer that reads nothing would hold it."""
        if self.transport.is_closing():
            self.stall.watch(CLOSE_S)
