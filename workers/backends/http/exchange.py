"""One connection to a model server, and the one exchange on it that is under way.

An HTTP client of our own, because every token of every answer comes this way: what a general one
does around a request and around each read costs more than reading it. It knows just what a model
server needs: a POST, an answer with a length, in chunks or until the connection closes, gzip where
a server insists. What a server sends can only make it raise `Broken`: heads, trailers and chunk
extensions are bounded, a body is read no faster than it is taken, one that expands is refused.

Knows no pool, no URL and no models. Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
import math
import zlib
from typing import cast

import httptools

READ_BYTES = 131_072  # with so much untaken, the socket is not read on: a fast backend is slowed
HEAD_BYTES_MAX = 65_536  # of a head, and of whatever else is no body
INFLATED_BYTES_MAX = 4_194_304  # of one read
IDENTITY = ("", "identity")
DEFLATED = ("gzip", "x-gzip", "deflate")


class Broken(OSError):
    """The connection was closed before the answer was whole, or what came is no HTTP.

    Attributes:
        is_untouched: not a byte of the answer had come.
    """

    def __init__(self, message: str, *, is_untouched: bool = False) -> None:
        super().__init__(message)
        self.is_untouched = is_untouched


class Exchange(asyncio.Protocol):
    """A connection; `send` begins an exchange, and the answer is there to be read after `head`.

    Each wait has a deadline on the loop's clock, and all waits of an answer share one timer: it
    stays where it is while deadlines move on, and looks again when it rings. Setting and cancelling
    one for each token costs as much as reading the token.

    Attributes:
        status: of the answer, once `head` has returned.
        headers: names in lower case; of a repeated one the last counts.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_lost = False
        self.idle_timer: asyncio.TimerHandle | None = None  # its owner's
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers = {}
        self._has_head = self._is_whole = self._keeps_alive = self._is_spoilt = False
        self._is_untouched = True
        self._error: Exception | None = None
        self._other_bytes = 0  # since the last piece of the body
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_paused = False
        self._inflate: zlib._Decompress | None = None
        self._deadline = math.inf  # of the wait that is under way, if one is

    # For whoever asks

    def send(self, request: bytes) -> None:
        """Begin an exchange.

        Raises:
            Broken: the connection has gone meanwhile.
        """
        self._reset()
        if self.is_lost or self._transport is None:
            raise Broken("the connection was closed", is_untouched=True)
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(request)

    async def head(self, deadline: float) -> None:
        """Wait for the answer's head.

        Raises:
            Broken; TimeoutError: it did not come before `deadline`.
        """
        while not self._has_head:
            await self._wait(deadline)

    async def read(self, deadline: float) -> bytes:
        """Return what of the body has arrived, b"" at its end.

        Raises:
            Broken; TimeoutError: nothing came before `deadline`. The rest cannot be read then.
        """
        while not self._pieces:
            if self._is_whole:
                return b""
            await self._wait(deadline)
        pieces, self._pieces, self._size = self._pieces, [], 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def finish(self) -> bool:
        """End the exchange; True: the connection may be used again, else it is closed."""
        self._stop_timer()
        is_usable = (
            self._is_whole
            and self._keeps_alive
            and not (self._is_spoilt or self.is_lost or self._is_paused)
        )
        self._parser = None
        self._pieces = []
        if not is_usable:
            self.abort()
        return is_usable

    def abort(self) -> None:
        """Close it at once; harmless when repeated."""
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()

    # Waiting

    async def _wait(self, deadline: float) -> None:
        if self._error is not None:
            raise self._error
        self._deadline = deadline
        if self._timer is None or self._timer.when() > deadline:
            self._stop_timer()
            self._timer = self._loop.call_at(deadline, self._ring)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter, self._deadline = None, math.inf

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _ring(self) -> None:
        self._timer = None
        if self._loop.time() >= self._deadline:
            self._fail(TimeoutError())
        elif self._deadline < math.inf:
            self._timer = self._loop.call_at(self._deadline, self._ring)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail(self, error: Exception) -> None:
        """What has come stands, and is read first; whoever waits for more is told."""
        self._error = self._error or error
        self._is_spoilt = True
        self._wake()

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports are not instances of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._transport = None
        if self._has_head and exc is None and self._ends_with_the_connection():
            self._is_whole = True
            self._wake()
        elif not self._is_whole:
            broken = Broken("the connection was closed", is_untouched=self._is_untouched)
            self._fail(broken)

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._is_whole or self._error is not None:
            self._is_spoilt = True  # nobody has asked for this
            self.abort()
            return
        self._is_untouched = False
        self._other_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._is_spoilt = True
            if not self._is_whole:
                self._fail(Broken(f"no HTTP: {type(exc).__name__}"))
        if self._other_bytes > HEAD_BYTES_MAX:
            self._fail(Broken("a head without end"))
        if self._size > READ_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def _ends_with_the_connection(self) -> bool:
        return (
            "content-length" not in self.headers
            and "chunked" not in self.headers.get("transfer-encoding", "").lower()
        )

    # What the parser says; none of these may raise

    def on_message_begin(self) -> None:
        if self._is_whole:
            self._is_spoilt = True  # a second answer

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # a trailer is nobody's
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        if self._parser is None or self._is_whole:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self.headers = {}  # only an information: the answer follows
            return
        self.status, self._has_head = status, True
        coding = self.headers.get("content-encoding", "").lower()
        if coding in DEFLATED:
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        elif coding not in IDENTITY:
            self._fail(Broken("an encoding that was not asked for"))

    def on_body(self, body: bytes) -> None:
        if self._is_whole or self._error is not None:
            return
        self._other_bytes = 0
        if self._inflate is not None:
            body = self._inflated(body)
        if body:
            self._pieces.append(body)
            self._size += len(body)

    def on_message_complete(self) -> None:
        if self._parser is not None and self._has_head and self._error is None:
            self._is_whole = True
            self._keeps_alive = self._parser.should_keep_alive()

    def _inflated(self, body: bytes) -> bytes:
        assert self._inflate is not None
        try:
            inflated = self._inflate.decompress(body, INFLATED_BYTES_MAX)
        except zlib.error as exc:
            self._fail(Broken(f"no gzip: {exc}"))
            return b""
        if self._inflate.unconsumed_tail:
            self._fail(Broken("an answer that expands"))
        return inflated
