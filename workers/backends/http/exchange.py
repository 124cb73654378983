"""One connection to a model server, with at most one HTTP exchange at a time.

An HTTP client of our own, because every token of every answer passes through it: the work of a
general client around each read costs more than the read. Supports what model servers need: a POST;
a response with a length, in chunks, or until the connection closes; compression if a server insists
(workers/backends/http/inflate.py).

Invariant: bytes of the server can only raise `ExchangeError`. Heads, trailers and chunk extensions
are bounded; the body is read no faster than the caller takes it; a body that inflates too much is
refused.

Knows no pool, no URL and no models. Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
from typing import cast

import httptools

from workers.backends.http.inflate import CODINGS, InflateError, Inflater, coding_of
from workers.backends.http.waiting import WaitingProtocol

UNREAD_BYTES_MAX = 131_072  # of the body; with more, the socket is paused: TCP slows the backend
TLS_ALERT = b"\x15\x03"  # the first bytes of a TLS server that reads HTTP (RFC 8446, 5.1)
NON_BODY_BYTES_MAX = 65_536  # of the head, and between two pieces of the body


class ExchangeError(OSError):
    """The connection was closed before the response was complete, or the bytes are not HTTP.

    Attributes:
        is_before_response: no byte of the response had arrived.
    """

    def __init__(self, message: str, *, is_before_response: bool = False) -> None:
        super().__init__(message)
        self.is_before_response = is_before_response


class AnswerIsTls(ExchangeError):
    """The server speaks TLS, and this connection does not."""


class Exchange(WaitingProtocol):
    """A connection. Call `send`, then `head`, then `read` until b"", then `finish`.

    Attributes:
        status: of the response; set when `head` returns.
        headers: names in lower case; of a repeated header the last value.
        is_lost: the connection is closed.
        idle_timer: set by the pool while the connection is idle.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_lost = False
        self.idle_timer: asyncio.TimerHandle | None = None
        super().__init__()
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers = {}
        self._has_head = self._is_complete = self._keeps_alive = False
        self._is_unusable = False  # for another exchange
        self._is_before_response = True
        self._error = None
        self._non_body_bytes = 0  # since the last piece of the body
        self._pieces: list[bytes] = []  # of the body, not read yet
        self._size = 0  # of `_pieces`
        self._is_paused = False
        self._inflater: Inflater | None = None

    # For the backend

    def send(self, request: bytes) -> None:
        """Send a request; begins an exchange.

        Raises:
            ExchangeError: the connection is closed.
        """
        self._reset()
        if self.is_lost or self._transport is None:
            raise ExchangeError("the connection was closed", is_before_response=True)
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(request)

    async def head(self, deadline: float) -> None:
        """Wait for the response head.

        Raises:
            ExchangeError: the response cannot be read.
            TimeoutError: the head did not arrive before `deadline`.
        """
        while not self._has_head:
            await self._wait(deadline)

    async def read(self, deadline: float) -> bytes:
        """Return the part of the body that has arrived, at least one byte; b"" at the end.

        Raises:
            ExchangeError: the response cannot be read to its end.
            TimeoutError: nothing arrived before `deadline`. The rest cannot be read then.
        """
        while not self._pieces:
            if self._is_complete:
                return b""
            await self._wait(deadline)
        pieces, self._pieces, self._size = self._pieces, [], 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def finish(self) -> bool:
        """End the exchange; return whether the connection can be used again. If not, close it."""
        self._stop_timer()
        is_usable = (
            self._is_complete
            and self._keeps_alive
            and not (self._is_unusable or self.is_lost or self._is_paused)
        )
        self._parser = None
        self._pieces = []
        if not is_usable:
            self.abort()
        return is_usable

    def abort(self) -> None:
        """Close the connection at once. May be repeated."""
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: Exception) -> None:
        """See `WaitingProtocol`; the connection cannot be used again."""
        self._is_unusable = True
        super()._fail(error)

    # Callbacks of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports are not instances of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._transport = None
        if self._has_head and exc is None and self._ends_with_the_connection():
            self._is_complete = True
            self._wake()
        elif not self._is_complete:
            is_before = self._is_before_response
            error = ExchangeError("the connection was closed", is_before_response=is_before)
            error.__cause__ = exc  # TLS 1.3 refuses a client certificate only now
            self._fail(error)

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._is_complete or self._error is not None:
            self._is_unusable = True  # bytes that belong to no request
            self.abort()
            return
        is_first, self._is_before_response = self._is_before_response, False
        self._non_body_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._is_unusable = True
            if is_first and data.startswith(TLS_ALERT):
                self._fail(AnswerIsTls("the answer is TLS and not HTTP"))
            elif not self._is_complete:
                self._fail(ExchangeError(f"the answer is not HTTP: {type(exc).__name__}"))
        if self._non_body_bytes > NON_BODY_BYTES_MAX:
            self._fail(ExchangeError(f"headers of more than {NON_BODY_BYTES_MAX} bytes"))
        if self._size > UNREAD_BYTES_MAX and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def _ends_with_the_connection(self) -> bool:
        return (
            "content-length" not in self.headers
            and "chunked" not in self.headers.get("transfer-encoding", "").lower()
        )

    # Callbacks of the parser; none of them may raise

    def on_message_begin(self) -> None:
        if self._is_complete:
            self._is_unusable = True  # a second response

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # trailers are ignored
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        if self._parser is None or self._is_complete:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self.headers = {}  # an informational response: the final one follows
            return
        self.status, self._has_head = status, True
        coding = coding_of(self.headers.get("content-encoding", ""))
        if coding in CODINGS:
            self._inflater = Inflater(coding)
        elif coding:
            self._fail(ExchangeError(f"content-encoding {coding[:40]} is not supported"))

    def on_body(self, body: bytes) -> None:
        if self._is_complete or self._error is not None:
            return
        self._non_body_bytes = 0
        if self._inflater is not None:
            body = self._inflated(self._inflater, body)
        if body:
            self._pieces.append(body)
            self._size += len(body)

    def on_message_complete(self) -> None:
        if self._parser is not None and self._has_head and self._error is None:
            self._is_complete = True
            self._keeps_alive = self._parser.should_keep_alive()

    def _inflated(self, inflater: Inflater, body: bytes) -> bytes:
        try:
            return inflater.feed(body)
        except InflateError as exc:
            self._fail(ExchangeError(str(exc)))
            return b""
