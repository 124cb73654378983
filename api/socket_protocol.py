"""uvicorn's WebSocket protocol, with what it leaves open closed, and the wire handed to the app.

* `scope["extensions"]` has the transport and the wire, as for HTTP (api/http_protocol.py). The wire
  has the pings, too: uvicorn's own take two timers and a frame built and parsed for each.
* A handshake that cannot be parsed and a text frame that is no UTF-8 are the client's mistake:
  they get their code, and the log gets no traceback.

How much a peer may send is for the class that this builds on. Knows nothing of generations.
Written against uvicorn 0.54 and websockets 17; tests/unit/api/test_http_protocol.py drives it over
real sockets, so an upgrade that moves a method shows there.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, cast

from websockets.http11 import Request
from websockets.protocol import CONNECTING

from api.errors import CODES, TRANSPORT, WIRE
from api.socket_bounds import BoundedWebSocketProtocol
from api.wire import DirectWire

UNREAD_S = 10.0  # more than any answer takes that a client has to wait for
PING = b"\x89\x04" + os.urandom(4)  # a whole frame
PONG_HEAD, PONG_BYTES = b"\x8a\x84", 10  # of the masked frame that answers it


class SocketWire(DirectWire):
    """The same of a WebSocket: whole frames, and none after a close frame; and its pings."""

    __slots__ = ("_protocol", "_write", "beat")

    def __init__(self, transport: asyncio.Transport, protocol: WebSocketProtocol) -> None:
        super().__init__(transport)
        self._write, self._protocol = self.write, protocol
        self.write = self._write_frames
        self.beat = protocol.beat

    def _write_frames(self, data: bytes) -> None:
        if not self._protocol.close_sent:
            self._write(data)


class WebSocketProtocol(BoundedWebSocketProtocol):
    """One WebSocket connection, from its handshake on."""

    wire: DirectWire | None = None  # once it is open
    _awaits_pong = False
    _behind_since_s = 0.0  # a pong was missed then, and we were not reading

    def data_received(self, data: bytes) -> None:
        if len(data) != PONG_BYTES or not self._is_pong_alone(data):
            super().data_received(data)

    def _is_pong_alone(self, data: bytes) -> bool:
        """Take what nearly every idle peer sends, the answer to our ping, without parsing it."""
        is_ours = data.startswith(PONG_HEAD) and _xor(data[2:6], data[6:]) == PING[2:]
        if not is_ours or self._unread or self._is_deaf or not self._is_between_frames():
            return False
        self._hear_pong()
        return True

    def _is_between_frames(self) -> bool:
        # Where websockets' parser waits. If that were ever called otherwise, each pong is parsed.
        waiting: Any = self.conn.parser
        while inner := getattr(waiting, "gi_yieldfrom", None):
            waiting = inner
        return getattr(waiting, "__name__", "") == "at_eof"

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

    # Signs of life: instead of uvicorn's timers for each connection, the hub says when

    def beat(self) -> None:
        """Ping, once a heartbeat; who has not answered the last one has to come back."""
        if self.close_sent or self.transport.is_closing():
            return
        if self._awaits_pong and not self._is_excused():
            self._fail(CODES["too_slow"].close, "no pong in two heartbeats")
            return
        self._awaits_pong = True
        self.transport.write(PING)

    def _is_excused(self) -> bool:
        """Whether the pong may be among what we have not read yet."""
        if not self.is_behind:
            return False
        now_s = self.loop.time()
        self._behind_since_s = self._behind_since_s or now_s
        return now_s - self._behind_since_s < UNREAD_S

    def handle_pong(self, event: Any) -> None:
        if bytes(event.data) == PING[2:]:
            self._hear_pong()

    def _hear_pong(self) -> None:
        self._awaits_pong = False
        self._behind_since_s = 0.0

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # refused, and answered: nothing to complain of

    def _fail(self, code: int, reason: str) -> None:
        self.conn.send_close(code, reason)
        self.hang_up(code, reason)


def _xor(mask: bytes, data: bytes) -> bytes:
    return (int.from_bytes(mask) ^ int.from_bytes(data)).to_bytes(4)
