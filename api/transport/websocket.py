"""uvicorn's WebSocket protocol with the connection limit, our own pings, and scope extensions.

* `scope["extensions"]` has the transport, the wire and the handover, as for HTTP
  (api/transport/http.py). The wire also sends pings: uvicorn's pings take two timers for each
  connection, and build and parse a frame for each ping.
* A handshake that cannot be parsed and a text frame that is not UTF-8 are errors of the client:
  they get a status or a close code, and the log gets no traceback.

The base class limits how many bytes a peer may send. Knows nothing of generations. Written against
uvicorn 0.54 and websockets 17; tests/unit/api/transport/test_http.py drives it over real sockets,
so that it fails when an upgrade moves a method.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, cast

from websockets.http11 import Request
from websockets.protocol import CONNECTING, Protocol

from api.errors import CODES
from api.transport.connection_limit import NO_LIMIT, ConnectionLimit, address_limit_error
from api.transport.extensions import HANDOVER, TRANSPORT, WIRE
from api.transport.peer import FORWARDED
from api.transport.refusal import encode_refusal, invalid_http
from api.transport.websocket_deflate import Deflate, DeflatingProtocol
from api.transport.wire import Backpressure
from shared.errors import Draining

# A missing pong is excused for so long while this side has unparsed bytes, which may contain it.
# No request keeps the application busy for longer.
PONG_EXCUSE_S = 10.0
PING = b"\x89\x04" + os.urandom(4)  # a complete frame with a random payload
VERSION_HEADER = (b"sec-websocket-version", b"13")  # of a refused handshake (RFC 6455, 4.4)
PONG_HEAD, PONG_BYTES = b"\x8a\x84", 10  # the masked pong frame that answers `PING`


class _OpenTimer:
    """A placeholder in `close_timer`, so that uvicorn does not close when a handler returns."""

    def cancel(self) -> None:
        pass


_OPEN_TIMER = _OpenTimer()


class WebSocketWire(Backpressure):
    """`scope["extensions"]["tailrace.wire"]` of a WebSocket.

    It writes complete frames and pings; after a close frame it writes nothing.
    """

    __slots__ = ("_protocol", "_write")

    def __init__(self, protocol: WebSocketProtocol) -> None:
        super().__init__()
        self._protocol, self._write = protocol, protocol.transport.write

    def write(self, data: bytes) -> None:
        if not self._protocol.close_sent:
            self._write(data)

    def beat(self) -> None:
        self._protocol.beat()

    @property
    def deflate(self) -> Deflate | None:
        """The extension permessage-deflate of this socket."""
        return self._protocol.deflate

    @property
    def is_receiving(self) -> bool:
        """Whether a large message is arriving, which is no idle socket."""
        return self._protocol.is_receiving


class WebSocketProtocol(DeflatingProtocol):
    """One WebSocket connection, from its handshake to its end."""

    __slots__ = (
        *("_address", "_awaits_pong", "_behind_since_s", "_connection_limit", "_is_handed_over"),
        "wire",
    )

    def __init__(
        self, *args: Any, connection_limit: ConnectionLimit | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._connection_limit = NO_LIMIT if connection_limit is None else connection_limit
        self._address: str | None = None  # whose count includes this socket, behind a proxy
        self.wire: WebSocketWire | None = None  # from the end of the handshake
        self.scope = None  # type: ignore[assignment]  # until the handshake
        self._is_handed_over = False
        self._awaits_pong = False
        self._behind_since_s = 0.0  # the first missing pong while `is_behind`; 0: none

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._connection_limit.replace(transport.get_protocol(), self)

    def data_received(self, data: bytes) -> None:
        if len(data) != PONG_BYTES or not self._take_lone_pong(data):
            super().data_received(data)

    def _take_lone_pong(self, data: bytes) -> bool:
        """Take a read that is only the pong for our ping, without the parser.

        Idle peers send almost nothing else.
        """
        is_ours = data.startswith(PONG_HEAD) and _xor(data[2:6], data[6:]) == PING[2:]
        if not is_ours or self._unparsed or self._drops_input or not self._is_between_frames():
            return False
        self._note_pong()
        return True

    def _is_between_frames(self) -> bool:
        if not self.is_between_frames:
            return False
        # The innermost generator of websockets' parser has this name between two frames. If an
        # upgrade renames the generator, each pong is parsed, and the result is the same.
        generator: Any = self.conn.parser
        while inner := getattr(generator, "gi_yieldfrom", None):
            generator = inner
        return getattr(generator, "__name__", "") == "at_eof"

    def parse_slice(self, data: bytes) -> None:
        super().parse_slice(data)
        if not self.handshake_initiated and not self.transport.is_closing():
            # The HTTP parser has read a complete request, but websockets' parser refuses it (the
            # line is too long, or has a forbidden byte). uvicorn would wait for more bytes.
            self._refuse_unparsable()

    def _refuse_unparsable(self) -> None:
        """Refuse a handshake that websockets cannot parse, with its own answer if there is one."""
        answer = b"".join(self.conn.data_to_send())
        self.refuse_with(
            answer or encode_refusal(invalid_http("this WebSocket handshake cannot be read"))
        )

    def shutdown(self) -> None:
        if self.handshake_complete or self.close_sent or self.initial_response is not None:
            super().shutdown()
        else:
            self.refuse(Draining())

    def handle_connect(self, event: Request) -> None:
        if not self._acquire_address(event):
            self.refuse(address_limit_error())
            return
        # uvicorn would send the answer of websockets: text, and a status for each kind of mistake.
        if self.conn.accept(event).status_code != 101:
            reason = str(self.conn.handshake_exc)[:200]
            refusal = invalid_http(f"this is no handshake of a WebSocket: {reason}")
            self.refuse_with(encode_refusal(refusal, VERSION_HEADER))
            return
        super().handle_connect(event)
        # uvicorn has created the application's task, but the task has not started yet.
        extensions = cast(dict[str, Any], self.scope["extensions"])
        extensions[TRANSPORT] = self.transport
        extensions[HANDOVER] = self.hand_over
        self.wire = extensions[WIRE] = WebSocketWire(self)

    def _acquire_address(self, event: Request) -> bool:
        """Count the socket for the address that a trusted proxy names; False: at its limit."""
        forwarded = [
            (FORWARDED, value.encode("latin-1", "replace"))
            for value in event.headers.get_all("X-Forwarded-For")
        ]
        host = self.client[0] if self.client else None
        address = self._connection_limit.forwarded_address(host, forwarded)
        if address is None:
            return True
        if not self._connection_limit.acquire(address):
            return False
        self._address = address
        return True

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
            # Before the end of the handshake there is no close frame.
            self._refuse_unparsable()
            return
        super().handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        is_large = self._sieve is not None and self._sieve.message is not None
        if self.curr_msg_data_type == "text" and not (is_large or self.close_sent):
            data = b"".join(self.frames)
            try:
                data.decode()
            except UnicodeDecodeError:
                self.frames = []
                self.fail(1007, "text frames are UTF-8")
                return
            self.frames = [data]
        super().send_receive_event_to_app()

    # After the handover (api/readers/conversation_handover.py)

    def hand_over(self, on_received: Callable[[], None]) -> WebSocketProtocol:
        """Let the calling handler return; the socket stays open until `leave`.

        Args:
            on_received: called when a message is queued and no task waits in `receive`.
        """
        self._is_handed_over = True
        self.scope = None  # type: ignore[assignment]
        self.close_timer = _OPEN_TIMER  # type: ignore[assignment]
        self.queue.on_put = on_received
        return self

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        if not self._is_handed_over:
            super().on_task_complete(task)
            return
        self.tasks.discard(task)
        if self.close_timer is _OPEN_TIMER:  # type: ignore[comparison-overlap]
            self.close_timer = None

    @property
    def has_message(self) -> bool:
        """Whether a received message waits for `receive`."""
        return not self.queue.empty()

    def leave(self) -> None:
        """End the conversation after the handover; without a close frame, close the transport."""
        self.queue.on_put = None
        if self.close_timer is None:
            self.transport.close()
        self.wait_for_close()

    def abort(self) -> None:
        self.transport.abort()

    def evict(self) -> None:
        self.transport.abort()

    def refuse_with(self, response: bytes) -> None:
        super().refuse_with(response)
        self._connection_limit.mark_idle(self)

    def hang_up(self, code: int, reason: str) -> None:
        super().hang_up(code, reason)
        self._connection_limit.mark_idle(self)

    def wait_for_close(self) -> None:
        super().wait_for_close()
        self._connection_limit.mark_idle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection_limit.remove(self)
        if self._address is not None:
            self._connection_limit.release(self._address)
            self._address = None
        super().connection_lost(exc)
        # Break the reference cycles with the wire and the scope.
        self.wire = None
        if self.scope is not None:
            self.scope["extensions"].clear()

    # Pings: the hub calls `beat`, so that a connection needs no timers of its own

    def beat(self) -> None:
        """Send a ping, once in each heartbeat; close with 4008 if the last ping got no pong."""
        if self.close_sent or self.transport.is_closing():
            return
        has_progress = self.has_progress()
        if self._awaits_pong and not (has_progress or self._is_excused()):
            self.fail(CODES["too_slow"].close, "no pong in two heartbeats")
            return
        self._awaits_pong = True
        self.transport.write(PING)

    def _is_excused(self) -> bool:
        """Whether the missing pong may be in bytes that were not parsed yet."""
        if not self.is_behind:
            return False
        now_s = self.loop.time()
        self._behind_since_s = self._behind_since_s or now_s
        return now_s - self._behind_since_s < PONG_EXCUSE_S

    def handle_pong(self, event: Any) -> None:
        if bytes(event.data) == PING[2:]:
            self._note_pong()

    def _note_pong(self) -> None:
        self._awaits_pong = False
        self._behind_since_s = 0.0

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # refused with a response: uvicorn must not log an error
        elif message["type"] == "websocket.accept":
            self._forget_handshake()

    def _forget_handshake(self) -> None:
        """Free the request, which websockets' parser would keep until the connection ends."""
        self.request = self.response = None  # type: ignore[assignment]
        if self._is_between_frames():
            self.conn.parser = Protocol.parse(self.conn)
            next(self.conn.parser)


def _xor(mask: bytes, data: bytes) -> bytes:
    return (int.from_bytes(mask) ^ int.from_bytes(data)).to_bytes(4)
