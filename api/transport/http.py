"""uvicorn's HTTP protocol, with what it leaves open closed, and the transport handed to the app.

* The transport is in `scope["extensions"]["tailrace.transport"]`: the hub asks it how much is
  unsent, and breaks off with it. Beside it, `tailrace.wire` is the way past `send`, and
  `tailrace.handover` lets a handler return before its answer is over
  (api/transport/http_handover.py). Code that uses them works without them, on any ASGI server.
* A request head must be complete 10 s after it began, and so must the rest of a body that was
  answered before it was read. uvicorn limits neither. How much a peer may send is for the classes
  that this builds on.
* A connection is in the node's crowd (api/transport/connection_limit.py), which closes it when it
is idle and others
  need its place. A request through a trusted proxy counts for the address that the proxy names.
* A node that stops answers what was on its way to it, before it closes an idle connection.

Knows nothing of generations. Written against uvicorn 0.54; tests/unit/api/transport/test_http.py
drives it over real sockets, so an upgrade that moves a method shows there.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from api.errors import respond
from api.transport.connection_limit import UNBOUNDED, Crowd, too_many
from api.transport.extensions import TRANSPORT, WIRE
from api.transport.http_handover import HandingHttpProtocol
from api.transport.stalled_peer import CLOSE_S
from api.transport.wire import DirectWire
from shared.errors import RequestError

HEAD_S = 10.0  # for a request head, and for the rest of a body that nobody waits for
LEAVE_S = 0.2  # for a request that was on its way when the node stopped


class HttpProtocol(HandingHttpProtocol):
    """One HTTP/1.1 connection.

    `_deadline` runs while the peer owes us bytes: from the connection or the first byte of a
    request to the end of its head, and from an early response to the end of the body. It is not
    pushed on by bytes that trickle in.
    """

    __slots__ = (
        *("_address", "_crowd", "_deadline", "_has_completed", "_is_in_head", "_is_leaving"),
        "wire",
    )
    head_s = HEAD_S

    def __init__(self, *args: Any, crowd: Crowd | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._crowd = UNBOUNDED if crowd is None else crowd
        self._address: str | None = None  # for which the request under way counts
        self._is_leaving = False
        self._deadline: asyncio.TimerHandle | None = None
        self._is_in_head = True  # a connection owes its first head from the start
        self._has_completed = False  # a request, within one read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.wire = DirectWire(transport)
        if refusal := self._crowd.enter(self, self._host):
            self.refuse(refusal)
        else:
            self._start_deadline()

    @property
    def _host(self) -> str | None:
        return self.client[0] if self.client else None

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        self._crowd.leave(self)
        self._give_address_back()
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
        self._crowd.work(self)
        if self._is_leaving and self.cycle is not None:
            self.cycle.keep_alive = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        address = self._crowd.forwarded(self._host, cycle.scope["headers"])
        if address is None or self._crowd.take(address):
            self._address = address
        else:
            app = _refuse_address
        super()._start_asgi_task(cycle, app)

    def _give_address_back(self) -> None:
        if self._address is not None:
            self._crowd.give_back(self._address)
            self._address = None

    def on_message_complete(self) -> None:
        self._has_completed = True
        super().on_message_complete()
        if self.cycle is not None and self.cycle.response_complete:
            self._stop_deadline()

    def on_response_complete(self) -> None:
        self._give_address_back()
        super().on_response_complete()
        self._rest_if_idle()
        # Also a head that began meanwhile; but not while another request waits for its answer.
        owes = (self.is_in_body or self._is_in_head) and not self.is_refused
        if owes and self.cycle.response_complete and not self.transport.is_closing():
            self._start_deadline()

    def refuse(self, error: RequestError) -> None:
        self._stop_deadline()
        super().refuse(error)
        self._rest_if_idle()

    def _rest_if_idle(self) -> None:
        if not self.is_answering:
            self._crowd.rest(self)

    def evict(self) -> None:
        self.transport.abort()

    def shutdown(self) -> None:
        self._is_leaving = True
        if self.is_answering:
            super().shutdown()
        else:
            self.loop.call_later(LEAVE_S, self._leave)

    def _leave(self) -> None:
        if not (self.is_answering or self.transport.is_closing()):
            self.transport.close()
            self.stall.watch(CLOSE_S)

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


async def _refuse_address(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, too_many())
