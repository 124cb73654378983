"""uvicorn's protocols, with what they leave open closed, and the transport handed to the app.

* The transport is in `scope["extensions"]["tailrace.transport"]`: the hub asks it how much is
  unsent, and breaks off with it. Beside it, `tailrace.wire` is the way past `send`. Code that uses
  them works without them, on any ASGI server.
* A request head must be complete 10 s after it began, and so must the rest of a body that was
  answered before it was read. uvicorn limits neither. How much a peer may send is for the classes
  that these build on.
* A WebSocket handshake that cannot be parsed and a text frame that is no UTF-8 are the client's
  mistake: they get their code, and the log gets no traceback.

Knows nothing of generations. Written against uvicorn 0.54; tests/unit/api/test_http_protocol.py
drives it over real sockets, so an upgrade that moves a method shows there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from websockets.http11 import Request
from websockets.protocol import CONNECTING

from api.errors import CODES, TRANSPORT, WIRE
from api.http_bounds import BoundedHttpProtocol
from api.socket_bounds import BoundedWebSocketProtocol
from api.stall import CLOSE_S

UNREAD_S = 10.0  # more than any answer takes that a client has to wait for
HEAD_S = 10.0  # for a request head, and for the rest of a body that nobody waits for


class DirectWire:
    """What `scope["extensions"]["tailrace.wire"]` is: the transport's `write`, and when to stop.

    Chunks that are written here stand between those of `send`, which keeps none back. The protocol
    that owns it tells it of the transport's pauses.
    """

    __slots__ = ("is_paused", "on_paused", "on_resumed", "write")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.write: Callable[[bytes], None] = transport.write
        self.is_paused = False
        self.release()

    def release(self) -> None:
        """Nobody writes here any more."""
        self.on_paused = self.on_resumed = _nothing

    def pause(self) -> None:
        self.is_paused = True
        self.on_paused()

    def resume(self) -> None:
        self.is_paused = False
        self.on_resumed()


def _nothing() -> None:
    pass


class SocketWire(DirectWire):
    """The same of a WebSocket: whole frames, and none after a close frame."""

    __slots__ = ("_protocol", "_write")

    def __init__(self, transport: asyncio.Transport, protocol: WebSocketProtocol) -> None:
        super().__init__(transport)
        self._write, self._protocol = self.write, protocol
        self.write = self._write_frames

    def _write_frames(self, data: bytes) -> None:
        if not self._protocol.close_sent:
            self._write(data)


class HttpProtocol(BoundedHttpProtocol):
    """One HTTP/1.1 connection.

    `_deadline` runs while the peer owes us bytes: from the connection or the first byte of a
    request to the end of its head, and from an early response to the end of the body. It is not
    pushed on by bytes that trickle in.
    """

    head_s = HEAD_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._is_in_head = True  # a connection owes its first head from the start
        self._has_completed = False  # a request, within one read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.wire = DirectWire(transport)
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.wire.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.wire.resume()

    def data_received(self, data: bytes) -> None:
        self._has_completed = False
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._deadline is None and self._owes_bytes():
            # Also line ends before a request, which stop uvicorn's keep-alive timer for good.
            self._start_deadline()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = {TRANSPORT: self.transport, WIRE: self.wire}
        self.scope["extensions"] = extensions
        self._is_in_head = True

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._stop_deadline()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._has_completed = True
        super().on_message_complete()
        if self.cycle is not None and self.cycle.response_complete:
            self._stop_deadline()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # Also a head that began meanwhile; but not while another request waits for its answer.
        owes = self.is_in_body or self._is_in_head
        if owes and self.cycle.response_complete and not self.transport.is_closing():
            self._start_deadline()

    def handle_websocket_upgrade(self) -> None:
        self._stop_deadline()
        super().handle_websocket_upgrade()

    def _owes_bytes(self) -> bool:
        """Whether what was read last belongs to a head, and no response is under way."""
        if self.is_in_body or (self._has_completed and not self._is_in_head):
            return False
        return self.cycle is None or self.cycle.response_complete

    def _start_deadline(self) -> None:
        self._stop_deadline()
        self._deadline = self.loop.call_later(self.head_s, self._give_up)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()
            self.stall.watch(CLOSE_S)


class WebSocketProtocol(BoundedWebSocketProtocol):
    """One WebSocket connection, from its handshake on."""

    wire: DirectWire | None = None  # once it is open
    _behind_since_s = 0.0  # a pong was missed then, and we were not reading

    def take(self, data: bytes) -> None:
        super().take(data)
        if not self.handshake_initiated and not self.transport.is_closing():
            # The HTTP parser has handed over a whole request; websockets' own would not have it
            # (a line too long, a byte that it refuses), and uvicorn would wait for more.
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            # The application runs in a task that has not started yet.
            extensions = cast(dict[str, Any], self.scope["extensions"])
            extensions[TRANSPORT] = self.transport
            self.wire = extensions[WIRE] = SocketWire(self.transport, self)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.wire is not None:
            self.wire.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.wire is not None:
            self.wire.resume()

    def handle_parser_exception(self) -> None:
        if self.conn.state is CONNECTING:
            # A handshake that is no request: there is no frame to close with.
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
            return
        super().handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent:
            data = b"".join(self.frames)
            try:
                data.decode()
            except UnicodeDecodeError:
                self.frames = []
                self._fail(1007, "text frames are UTF-8")
                return
            self.frames = [data]
        super().send_receive_event_to_app()

    def keepalive_timeout(self) -> None:
        # Not uvicorn's 1011: a reader that was away for a while has to be told to come back.
        self.pong_timer = None
        self.pending_ping_payload = None
        if self.close_sent or self.transport.is_closing():
            return
        now_s = self.loop.time()
        if self.is_behind and now_s - (self._behind_since_s or now_s) < UNREAD_S:
            self._behind_since_s = self._behind_since_s or now_s
            self.schedule_ping()  # its pong may be among what we have not read yet
            return
        self._fail(CODES["too_slow"].close, "no pong in two heartbeats")

    def handle_pong(self, event: Any) -> None:
        super().handle_pong(event)
        self._behind_since_s = 0.0

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # refused, and answered: nothing to complain of

    def _fail(self, code: int, reason: str) -> None:
        self.conn.send_close(code, reason)
        self.hang_up(code, reason)
