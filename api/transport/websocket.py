"""uvicorn's WebSocket protocol, with what it leaves open closed, and the wire handed to the app.

* `scope["extensions"]` has the transport and the wire, as for HTTP (api/transport/http.py). The
wire
  has the pings, too: uvicorn's own take two timers and a frame built and parsed for each.
* A handshake that cannot be parsed and a text frame that is no UTF-8 are the client's mistake:
  they get their code, and the log gets no traceback.

How much a peer may send is for the class that this builds on. Knows nothing of generations.
Written against uvicorn 0.54 and websockets 17; tests/unit/api/transport/test_http.py drives it over
real sockets, so an upgrade that moves a method shows there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, cast

from websockets.http11 import Request
from websockets.protocol import CONNECTING, Protocol

from api.errors import CODES
from api.transport.connection_limit import UNBOUNDED, Crowd, too_many
from api.transport.extensions import HANDOVER, TRANSPORT, WIRE
from api.transport.peer import FORWARDED
from api.transport.refusal import answer_of, not_http
from api.transport.websocket_bounds import BoundedWebSocketProtocol
from api.transport.wire import Pauses
from shared.errors import Draining

UNREAD_S = 10.0  # more than any answer takes that a client has to wait for
PING = b"\x89\x04" + os.urandom(4)  # a whole frame
PONG_HEAD, PONG_BYTES = b"\x8a\x84", 10  # of the masked frame that answers it


class _StaysOpen:
    """In the place of a timer, so that uvicorn does not close when a handler returns."""

    def cancel(self) -> None:
        pass


_STAYS_OPEN = _StaysOpen()


class SocketWire(Pauses):
    """The same of a WebSocket: whole frames, and none after a close frame; and its pings."""

    __slots__ = ("_protocol", "_write")

    def __init__(self, protocol: WebSocketProtocol) -> None:
        super().__init__()
        self._protocol, self._write = protocol, protocol.transport.write

    def write(self, data: bytes) -> None:
        if not self._protocol.close_sent:
            self._write(data)

    def beat(self) -> None:
        self._protocol.beat()


class WebSocketProtocol(BoundedWebSocketProtocol):
    """One WebSocket connection, from its handshake on."""

    __slots__ = (
        *("_address", "_awaits_pong", "_behind_since_s", "_crowd", "_is_handed_over"),
        "wire",
    )

    def __init__(self, *args: Any, crowd: Crowd | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._crowd = UNBOUNDED if crowd is None else crowd
        self._address: str | None = None  # for which this socket counts, through a proxy
        self.wire: SocketWire | None = None  # once it is open
        self.scope = None  # type: ignore[assignment]  # until the handshake
        self._is_handed_over = False
        self._awaits_pong = False
        self._behind_since_s = 0.0  # a pong was missed then, and we were not reading

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._crowd.replace(transport.get_protocol(), self)

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
            self._refuse_unread()

    def _refuse_unread(self) -> None:
        """Answer a handshake that websockets cannot parse: in its words, where it has any."""
        answer = b"".join(self.conn.data_to_send())
        self.say_last(answer or answer_of(not_http("this WebSocket handshake cannot be read")))

    def shutdown(self) -> None:
        if self.handshake_complete or self.close_sent or self.initial_response is not None:
            super().shutdown()
        else:
            self.refuse(Draining())

    def handle_connect(self, event: Request) -> None:
        if not self._has_turn(event):
            self.refuse(too_many())
            return
        super().handle_connect(event)
        if self.response.status_code == 101:
            # The application runs in a task that has not started yet.
            extensions = cast(dict[str, Any], self.scope["extensions"])
            extensions[TRANSPORT] = self.transport
            extensions[HANDOVER] = self.hand_over
            self.wire = extensions[WIRE] = SocketWire(self)

    def _has_turn(self, event: Request) -> bool:
        named = [
            (FORWARDED, value.encode("latin-1", "replace"))
            for value in event.headers.get_all("X-Forwarded-For")
        ]
        address = self._crowd.forwarded(self.client[0] if self.client else None, named)
        if address is None:
            return True
        if not self._crowd.take(address):
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
            # A handshake that is no request: there is no frame to close with.
            self._refuse_unread()
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

    # Without a handler (api/readers/conversation_handover.py)

    def hand_over(self, on_received: Callable[[], None]) -> WebSocketProtocol:
        """Let the handler that calls this return; the socket is open until `leave`."""
        self._is_handed_over = True
        self.scope = None  # type: ignore[assignment]
        self.close_timer = _STAYS_OPEN  # type: ignore[assignment]
        self.queue.on_put = on_received
        return self

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        if not self._is_handed_over:
            super().on_task_complete(task)
            return
        self.tasks.discard(task)
        if self.close_timer is _STAYS_OPEN:  # type: ignore[comparison-overlap]
            self.close_timer = None

    @property
    def is_waiting(self) -> bool:
        return not self.queue.empty()

    def leave(self) -> None:
        self.queue.on_put = None
        if self.close_timer is None:
            self.transport.close()
        self.wait_for_close()

    def abort(self) -> None:
        self.transport.abort()

    def evict(self) -> None:
        self.transport.abort()

    def say_last(self, answer: bytes) -> None:
        super().say_last(answer)
        self._crowd.rest(self)

    def hang_up(self, code: int, reason: str) -> None:
        super().hang_up(code, reason)
        self._crowd.rest(self)

    def wait_for_close(self) -> None:
        super().wait_for_close()
        self._crowd.rest(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.leave(self)
        if self._address is not None:
            self._crowd.give_back(self._address)
            self._address = None
        super().connection_lost(exc)
        # What would keep this alive, and be kept alive by it.
        self.wire = None
        if self.scope is not None:
            self.scope["extensions"].clear()

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
        elif message["type"] == "websocket.accept":
            self._forget_handshake()

    def _forget_handshake(self) -> None:
        """Let go of the request; websockets' parser would hold it for as long as it runs."""
        self.request = self.response = None  # type: ignore[assignment]
        if self._is_between_frames():
            self.conn.parser = Protocol.parse(self.conn)
            next(self.conn.parser)

    def _fail(self, code: int, reason: str) -> None:
        self.conn.send_close(code, reason)
        self.hang_up(code, reason)


def _xor(mask: bytes, data: bytes) -> bytes:
    return (int.from_bytes(mask) ^ int.from_bytes(data)).to_bytes(4)
