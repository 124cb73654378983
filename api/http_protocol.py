"""uvicorn's HTTP protocol, with what it leaves open closed, and the transport handed to the app.

* The transport is in `scope["extensions"]["tailrace.transport"]`: the hub asks it how much is
  unsent, and breaks off with it. Beside it, `tailrace.wire` is the way past `send`, and
  `tailrace.handover` lets a handler return before its answer is over (api/handover.py). Code that
  uses them works without them, on any ASGI server.
* A request head must be complete 10 s after it began, and so must the rest of a body that was
  answered before it was read. uvicorn limits neither. How much a peer may send is for the classes
  that this builds on.

Knows nothing of generations. Written against uvicorn 0.54; tests/unit/api/test_http_protocol.py
drives it over real sockets, so an upgrade that moves a method shows there.
"""

from __future__ import annotations

import asyncio
from typing import Any

from api.errors import TRANSPORT, WIRE
from api.handover import HandingHttpProtocol
from api.stall import CLOSE_S
from api.wire import DirectWire

HEAD_S = 10.0  # for a request head, and for the rest of a body that nobody waits for


class HttpProtocol(HandingHttpProtocol):
    """One HTTP/1.1 connection.

    `_deadline` runs while the peer owes us bytes: from the connection or the first byte of a
    request to the end of its head, and from an early response to the end of the body. It is not
    pushed on by bytes that trickle in.
    """

    __slots__ = ("_deadline", "_has_completed", "_is_in_head", "wire")
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
