"""uvicorn's HTTP protocol that lets a handler go while its answer goes on.

A handler that has begun a stream calls `scope["extensions"]["tailrace.handover"]` with the reader
that will write the rest, and returns: its task, its frames, the scope and uvicorn's cycle are
freed, which is most of what an idle reader would weigh. What stays is a `HandedOver` in the place
of the cycle. It ends the response as uvicorn would, so keep-alive and requests that wait behind it
go on, or breaks it off; and it tells the reader, once, when the peer has gone. Between requests
there is no parser either: one is made when something comes.

Invariants: of `end`, `break_off` and the reader's `left` whichever comes first counts; nothing is
written after it. Knows nothing of generations. Written against uvicorn 0.54;
tests/unit/api/transport/test_http_handover.py drives it over real sockets.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from api.transport.extensions import HANDOVER
from api.transport.http_bounds import BoundedHttpProtocol

LAST_CHUNK = b"0\r\n\r\n"


class Leaver(Protocol):
    """Who writes an answer that was handed over."""

    def left(self) -> None:
        """The peer has gone."""
        ...


class _Nobody:
    """The event of a cycle that nobody waits for."""

    __slots__ = ()

    def set(self) -> None:
        pass


class HandedOver:
    """An answer without a handler. For uvicorn it is a cycle, of which it asks no more than this.

    Attributes:
        keep_alive: another request may follow; uvicorn takes that back when it stops.
    """

    __slots__ = (
        "_protocol",
        "_reader",
        "disconnected",
        "keep_alive",
        "more_body",
        "response_complete",
    )
    message_event = _Nobody()

    def __init__(self, protocol: HandingHttpProtocol, reader: Leaver, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.disconnected = self.response_complete = self.more_body = False
        self._protocol: HandingHttpProtocol | None = protocol
        self._reader: Leaver | None = reader

    def end(self) -> None:
        """Finish the body. What is before it has been taken, or nearly: no reader ends before."""
        protocol = self._protocol
        if protocol is None:
            return
        self.response_complete = True
        self._let_go()
        protocol.transport.write(LAST_CHUNK)
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()

    def break_off(self) -> None:
        """Leave the body unfinished, so that the client sees an error and not an end."""
        if self._protocol is not None:
            self._protocol.transport.abort()

    def lose(self) -> None:
        """The peer has gone."""
        self.disconnected = True
        reader = self._reader
        self._let_go()
        if reader is not None:
            reader.left()

    def _let_go(self) -> None:
        self._protocol = self._reader = None


class HandingHttpProtocol(BoundedHttpProtocol):
    """One HTTP/1.1 connection."""

    __slots__ = ("_is_parsing",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_parsing = False  # in the middle of a request

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        extensions = cast(dict[str, Any], cycle.scope).setdefault("extensions", {})
        extensions[HANDOVER] = self.hand_over
        super()._start_asgi_task(cycle, app)

    def hand_over(self, reader: Leaver) -> HandedOver:
        """Let the handler that calls this return; `reader` writes the rest of the body as chunks.

        To be called between two chunks; nothing the handler sends afterwards is written.
        """
        cycle = self._running
        assert isinstance(cycle, RequestResponseCycle) and not cycle.response_complete
        assert cycle.chunked_encoding and not cycle.disconnected
        self._withdraw()
        answer = HandedOver(self, reader, keep_alive=cycle.keep_alive)
        cycle.disconnected = True  # as far as the handler goes, so that uvicorn lets it return
        self._running = answer  # type: ignore[assignment]
        if self.cycle is cycle:
            self.cycle = answer  # type: ignore[assignment]
        self.flow.resume_reading()  # what a handler that waited in `receive` would do
        self._forget_request()
        return answer

    def _withdraw(self) -> None:
        """Take the offer back: what was answered, or lost its peer, cannot be handed over.

        The scope and the protocol would keep each other alive, too.
        """
        if isinstance(self._running, RequestResponseCycle):
            cast(dict[str, Any], self._running.scope)["extensions"].pop(HANDOVER, None)

    def on_response_complete(self) -> None:
        self._withdraw()
        super().on_response_complete()

    def _forget_request(self) -> None:
        """Let go of what was only the request's, if nothing that was read belongs to another."""
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
            self.hear_body()  # and dropped: nobody will ask for it
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_parsing = False
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._withdraw()
        if isinstance(self._running, HandedOver):
            self._running.lose()
