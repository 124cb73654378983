"""uvicorn's HTTP protocol with deadlines, the node's connection limit, and scope extensions.

* `scope["extensions"]` has three members. `tailrace.transport` is the transport: the hub asks it
  for the number of unsent bytes, and aborts it. `tailrace.wire` writes past `send`.
  `tailrace.handover` lets a handler return before its response ends
  (api/transport/http_handover.py). Code that uses them also works without them, on any ASGI server.
* A request head must be complete 10 s after it began. The rest of a body must be complete 10 s
  after its answer. uvicorn limits neither. The base classes limit how many bytes a peer may send.
* Each connection counts in the node's connection limit (api/transport/connection_limit.py), which
  closes idle connections when others need their place. A request through a trusted proxy counts for
  the address that the proxy names.
* A stopping node answers requests that are on their way before it closes an idle connection.

Knows nothing of generations. Written against uvicorn 0.54; tests/unit/api/transport/test_http.py
drives it over real sockets, so that it fails when an upgrade of uvicorn moves a method.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from api.errors import send_error
from api.transport.close_delimited import close_delimited
from api.transport.connection_limit import NO_LIMIT, ConnectionLimit, address_limit_error
from api.transport.extensions import TRANSPORT, WIRE
from api.transport.http_handover import HandoverHttpProtocol
from api.transport.stalled_peer import CLOSING_STALL_S
from api.transport.wire import HttpWire
from shared.errors import RequestError

HEAD_S = 10.0  # for a complete request head, and for the rest of a body after an early answer
SHUTDOWN_IDLE_S = 0.2  # an idle connection stays open for so long after the node began to stop


class HttpProtocol(HandoverHttpProtocol):
    """One HTTP/1.1 connection.

    `_deadline` runs in two phases: from the connection or the first byte of a request to the end of
    its head, and from an early response to the end of the body. Bytes that arrive do not extend the
    deadline.
    """

    __slots__ = (
        *("_address", "_connection_limit", "_deadline", "_has_completed", "_is_in_head"),
        *("_is_stopping", "wire"),
    )
    head_s = HEAD_S

    def __init__(
        self, *args: Any, connection_limit: ConnectionLimit | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._connection_limit = NO_LIMIT if connection_limit is None else connection_limit
        self._address: str | None = None  # whose count includes the request under way
        self._is_stopping = False
        self._deadline: asyncio.TimerHandle | None = None
        self._is_in_head = True  # a new connection owes its first head
        self._has_completed = False  # the last read completed a request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.wire = HttpWire(transport)
        if refusal := self._connection_limit.add(self, self._peer_host):
            self.refuse(refusal)
        else:
            self._start_deadline()

    @property
    def _peer_host(self) -> str | None:
        return self.client[0] if self.client else None

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        self._connection_limit.remove(self)
        self._release_address()
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
        if self.is_refused or self.transport.is_closing():
            return
        if self._deadline is None and self._owes_head():
            # Also for line ends before a request: they stop uvicorn's keep-alive timer for good.
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
        self._connection_limit.mark_busy(self)
        if self._is_stopping and self.cycle is not None:
            self.cycle.keep_alive = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        limit = self._connection_limit
        address = limit.forwarded_address(self._peer_host, cycle.scope["headers"])
        if address is None or limit.acquire(address):
            self._address = address
        else:
            app = _refuse_address
        if cycle.scope["http_version"] == "1.0":
            app = close_delimited(app, cycle, self.transport)
        super()._start_asgi_task(cycle, app)

    def _release_address(self) -> None:
        if self._address is not None:
            self._connection_limit.release(self._address)
            self._address = None

    def on_message_complete(self) -> None:
        self._has_completed = True
        super().on_message_complete()
        if self.cycle is not None and self.cycle.response_complete:
            self._stop_deadline()

    def on_response_complete(self) -> None:
        self._release_address()
        super().on_response_complete()
        self._mark_idle_if_not_answering()
        # Also for a head that began during the answer, but not while another request is answered.
        owes_bytes = (self.is_in_body or self._is_in_head) and not self.is_refused
        if owes_bytes and self.cycle.response_complete and not self.transport.is_closing():
            self._start_deadline()

    def refuse(self, error: RequestError) -> None:
        self._stop_deadline()
        super().refuse(error)
        self._mark_idle_if_not_answering()

    def _mark_idle_if_not_answering(self) -> None:
        if not self.is_answering:
            self._connection_limit.mark_idle(self)

    def evict(self) -> None:
        self.transport.abort()

    def shutdown(self) -> None:
        self._is_stopping = True
        if self.is_answering:
            super().shutdown()
        else:
            self.loop.call_later(SHUTDOWN_IDLE_S, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if not (self.is_answering or self.transport.is_closing()):
            self.transport.close()
            self.stall.watch(CLOSING_STALL_S)

    def handle_websocket_upgrade(self) -> None:
        self._stop_deadline()
        super().handle_websocket_upgrade()

    def _owes_head(self) -> bool:
        """Whether the last read ended inside a request head while no response is under way."""
        if self.is_in_body or (self._has_completed and not self._is_in_head):
            return False
        return self.cycle is None or self.cycle.response_complete

    def _start_deadline(self) -> None:
        self._stop_deadline()
        self._deadline = self.loop.call_later(self.head_s, self._close_at_deadline)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close_at_deadline(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()
            self.stall.watch(CLOSING_STALL_S)


async def _refuse_address(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application for a request whose client address is at its limit: answer 429."""
    await send_error(send, address_limit_error())
