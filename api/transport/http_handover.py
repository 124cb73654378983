"""uvicorn's HTTP protocol with a handover: a handler returns while its response goes on.

A handler that has begun a stream calls `scope["extensions"]["tailrace.handover"]` with the reader
that writes the rest, and returns. Then the handler's task and frames, the scope and uvicorn's cycle
are freed, which is most of the memory of an idle reader. A `HandedOver` replaces the cycle. It
finishes the response as uvicorn would, so that keep-alive and pipelined requests work, or aborts
the connection. When the peer disconnects, it notifies the reader once. A connection without a
request under way has no parser either: one is created when bytes arrive.

Invariant: only the first of `end`, `break_off` and the reader's `left` has an effect; nothing is
written afterwards. Knows nothing of generations. Written against uvicorn 0.54;
tests/unit/api/transport/test_http_handover.py drives it over real sockets.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from api.transport.extensions import HANDOVER
from api.transport.http_bounds import BoundedHttpProtocol

LAST_CHUNK = b"0\r\n\r\n"


class HandoverReader(Protocol):
    """The writer of a response after the handover."""

    def left(self) -> None:
        """Stop writing, because the peer has disconnected."""
        ...


class _NoOpEvent:
    """The `message_event` of a cycle without a handler: uvicorn sets it, no task waits for it."""

    __slots__ = ()

    def set(self) -> None:
        pass


class HandedOver:
    """A response without a handler. It has all members of a cycle that uvicorn uses.

    Attributes:
        keep_alive: another request may follow on this connection; uvicorn sets False when it stops.
    """

    __slots__ = (
        "_protocol",
        "_reader",
        "disconnected",
        "keep_alive",
        "more_body",
        "response_complete",
    )
    message_event = _NoOpEvent()

    def __init__(
        self, protocol: HandoverHttpProtocol, reader: HandoverReader, *, keep_alive: bool
    ) -> None:
        self.keep_alive = keep_alive
        self.disconnected = self.response_complete = self.more_body = False
        self._protocol: HandoverHttpProtocol | None = protocol
        self._reader: HandoverReader | None = reader

    def end(self) -> None:
        """Finish the body with the last chunk. Readers call this with an almost empty buffer."""
        protocol = self._protocol
        if protocol is None:
            return
        self.response_complete = True
        self._release()
        protocol.transport.write(LAST_CHUNK)
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()

    def break_off(self) -> None:
        """Abort the connection without the last chunk, so that the client sees an error."""
        if self._protocol is not None:
            self._protocol.transport.abort()

    def disconnect(self) -> None:
        """Notify the reader that the peer has disconnected."""
        self.disconnected = True
        reader = self._reader
        self._release()
        if reader is not None:
            reader.left()

    def _release(self) -> None:
        self._protocol = self._reader = None


class HandoverHttpProtocol(BoundedHttpProtocol):
    """One HTTP/1.1 connection."""

    __slots__ = ("_is_parsing",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_parsing = False  # a request has begun, and its end was not read yet

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        extensions = cast(dict[str, Any], cycle.scope).setdefault("extensions", {})
        extensions[HANDOVER] = self.hand_over
        super()._start_asgi_task(cycle, app)

    def hand_over(self, reader: HandoverReader) -> HandedOver:
        """Let the calling handler return; `reader` writes the rest of the body as chunks.

        The handler calls this between two chunks. What it sends afterwards is dropped.
        """
        cycle = self._running
        assert isinstance(cycle, RequestResponseCycle) and not cycle.response_complete
        assert cycle.chunked_encoding and not cycle.disconnected
        self._withdraw_handover()
        response = HandedOver(self, reader, keep_alive=cycle.keep_alive)
        cycle.disconnected = True  # for uvicorn: the handler may return without a complete response
        self._running = response  # type: ignore[assignment]
        if self.cycle is cycle:
            self.cycle = response  # type: ignore[assignment]
        self.flow.resume_reading()  # a handler that waits in `receive` would resume it
        self._release_request()
        return response

    def _withdraw_handover(self) -> None:
        """Remove the extension: a finished or disconnected response cannot be handed over.

        The removal also breaks a reference cycle between the scope and the protocol.
        """
        if isinstance(self._running, RequestResponseCycle):
            cast(dict[str, Any], self._running.scope)["extensions"].pop(HANDOVER, None)

    def on_response_complete(self) -> None:
        self._withdraw_handover()
        super().on_response_complete()

    def _release_request(self) -> None:
        """Free the objects of the request, unless a later request was read or has begun."""
        cycle = self.cycle
        if not isinstance(cycle, HandedOver) or self._is_parsing:
            return
        self.scope = self.headers = None
        if cycle.keep_alive and not self.parser.should_upgrade():
            self.parser = None

    def data_received(self, data: bytes) -> None:
        if self.parser is None:
            self.parser = self.new_parser()
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._is_parsing = True
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        if isinstance(self.cycle, HandedOver):
            self.note_body(
                len(body)
            )  # and drop the bytes: the handler that could read them has returned
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_parsing = False
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._withdraw_handover()
        if isinstance(self._running, HandedOver):
            self._running.disconnect()
