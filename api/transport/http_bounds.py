"""uvicorn's HTTP protocol with bounds on what a peer can make the server keep.

uvicorn bounds a body. It does not bound the number of headers, the size of trailers and chunk
extensions, or the number of pipelined requests. A connection that it closes stays open while the
peer takes none of the unsent bytes. When the peer of pipelined requests disconnects, uvicorn
notifies only the request that was read last.

Here a request is refused if it has more than `HEADERS_MAX` headers, or if its head, its trailers or
a chunk extension have more than about `HEAD_BYTES_MAX`. Trailers are dropped. At most
`PIPELINED_MAX` requests wait for the request before them. A connection whose peer takes no bytes is
aborted (api/transport/stalled_peer.py).

Invariant: a refused request gets an answer, after the answers of the requests before it (`refuse`).
An `Upgrade` to another protocol than WebSocket is ignored, as RFC 9110, 7.8 allows: the head is
parsed again without that header, so that its body and the next requests are read as HTTP.

Knows nothing of the deadlines for request heads, and nothing of generations. Written against
uvicorn 0.54; tests/unit/api/transport/test_http.py and tests/hostile drive it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.transport.lazy_sync import LazyFlowControl, PipelineList
from api.transport.refusal import (
    encode_refusal,
    head_too_large,
    invalid_http,
    send_last,
    unsupported_transfer_encoding,
    unsupported_version,
)
from api.transport.stalled_peer import FLUSHING_STALL_S, OPEN_STALL_S, StallTimer
from shared.errors import RequestError

HEAD_BYTES_MAX = 65_536
HEADERS_MAX = 100
PIPELINED_MAX = 100
# The parser does not report how many bytes of a read belong to a chunk extension. So a read is
# parsed in pieces, and a piece without a callback counts as a part of a head or an extension. The
# pieces with the first and the last byte of an extension are not counted: an extension of up to
# `HEAD_BYTES_MAX` plus 16 KiB may pass.
PIECE_BYTES = 8_192
VERSIONS = frozenset({"1.0", "1.1"})
PARSER_VERSION_ERROR = "Invalid HTTP version"  # llhttp's reason for a version that it does not know


class Refused(Exception):
    """Raised in a parser callback to stop the parser; `error` is the answer to the peer."""

    def __init__(self, error: RequestError) -> None:
        self.error = error
        super().__init__(error.code)


class BoundedHttpProtocol(HttpToolsProtocol):
    """One HTTP/1.1 connection.

    `__slots__` also lists the attributes that uvicorn sets: a `__dict__` with so many names would
    take 2 kB for each connection.
    """

    __slots__ = (
        *("access_log", "access_logger", "app", "app_state", "asgi_version", "client", "config"),
        *("connections", "cycle", "expect_100_continue", "flow", "headers", "limit_concurrency"),
        *("logger", "loop", "parser", "pipeline", "root_path", "scheme", "scope", "server"),
        *("server_state", "tasks", "timeout_keep_alive", "timeout_keep_alive_task", "transport"),
        *("url", "ws_protocol_class"),
        "_body_bytes_left",
        "_head_bytes",
        "_head_without_upgrade",
        "_is_last_sent",
        "_is_silent",
        "_last_response",
        "_running",
        "_silent_bytes",
        "is_in_body",
        "stall",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pipeline = PipelineList()  # type: ignore[assignment]
        self.is_in_body = False
        # A head that is parsed again, because its Upgrade is ignored.
        self._head_without_upgrade = b""
        self._last_response: bytes | None = None  # after which the connection is closed
        self._is_last_sent = False
        self._head_bytes = 0  # of the current head or trailers, as reported by callbacks
        self._silent_bytes = 0  # in pieces without a callback, since the last callback
        self._is_silent = True  # the parser has called no callback in the current piece
        self._body_bytes_left = 0  # of a body with Content-Length; at most 0 in other cases
        self._running: RequestResponseCycle | None = None  # the request that is answered now

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = LazyFlowControl(transport)
        self.stall = StallTimer(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.stall.end()
        super().connection_lost(exc)
        # uvicorn notifies only the request that was read last, which may wait behind this request.
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    # Reading

    def new_parser(self) -> httptools.HttpRequestParser:
        """Return a parser with uvicorn's options that calls this protocol."""
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    @property
    def is_refused(self) -> bool:
        """Whether a request was refused: no more bytes are read."""
        return self._last_response is not None

    def data_received(self, data: bytes) -> None:
        if self.is_refused:
            return
        self._unset_keepalive_if_required()
        start = 0
        # Without a parser: the connection has become a WebSocket.
        while start < len(data) and self.parser is not None and not self.is_refused:
            # A body with Content-Length needs no pieces, because its length is known.
            size = max(PIECE_BYTES, self._body_bytes_left)
            piece = data[start : start + size]
            start += size
            self._is_silent = True
            self._parse(piece)
            if self._is_silent:
                self._count_silent_bytes(len(piece))

    def _count_silent_bytes(self, count: int) -> None:
        self._silent_bytes += count
        is_open = not (self.is_refused or self.transport.is_closing())
        if is_open and self._head_bytes + self._silent_bytes > HEAD_BYTES_MAX:
            self.refuse(head_too_large())

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if not self._head_without_upgrade:
                    self.handle_websocket_upgrade()
                    return
                # Parse the head without the header again, then the bytes behind the head. A new
                # parser, because this parser reads nothing behind an upgrade.
                data = self._head_without_upgrade + data[upgrade.args[0] :]
                self._head_without_upgrade = b""
                self.parser = self.new_parser()
            except httptools.HttpParserError as exc:
                self.refuse(_refusal_of(exc))
                return

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.is_in_body = False
        self._reset_counts()
        self._body_bytes_left = 0

    def _reset_counts(self) -> None:
        self._is_silent = False
        self._head_bytes = self._silent_bytes = 0

    def on_url(self, url: bytes) -> None:
        if self.parser.get_method() == b"PRI":  # the parser would wait for the HTTP/2 preface
            raise Refused(invalid_http("HTTP/2 is not spoken here"))
        self._count_head_bytes(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head_bytes(len(name) + len(value))
        if not self.is_in_body:  # trailers are dropped
            # The parser strips spaces around a value, but not tabs (RFC 9110, 5.5).
            super().on_header(name, value.strip(b" \t"))
            if len(self.headers) > HEADERS_MAX:
                raise Refused(head_too_large())

    def on_headers_complete(self) -> None:
        self._reset_counts()
        # llhttp also accepts 2.0, 0.9 and a line without a version, which is HTTP/0.9.
        if self.parser.get_http_version() not in VERSIONS:
            raise Refused(unsupported_version())
        if self.parser.should_upgrade() and not self._is_handshake():
            self._head_without_upgrade = self._encode_head_without_upgrade()
            return
        self._read_framing()
        super().on_headers_complete()
        self.is_in_body = True
        if len(self.pipeline) > PIPELINED_MAX:
            raise Refused(invalid_http(f"more than {PIPELINED_MAX} requests wait for an answer"))

    def _read_framing(self) -> None:
        """Note the body's length, and refuse codings beside `chunked`.

        llhttp would read a body with other codings as if `chunked` were its only coding.

        Raises:
            Refused: there is a coding other than `chunked`, in one header line or in several.
        """
        for name, value in self.headers:
            if name == b"content-length":
                self._body_bytes_left = int(value)
            elif name == b"transfer-encoding" and value.lower() != b"chunked":
                raise Refused(unsupported_transfer_encoding())

    def _is_handshake(self) -> bool:
        """Whether the request is a WebSocket handshake; False: its `Upgrade` is ignored.

        Raises:
            Refused: the method is CONNECT, or the handshake has a body.
        """
        if self.parser.get_method() == b"CONNECT":
            raise Refused(invalid_http("this is no proxy: CONNECT has nothing to connect to"))
        if not self._should_upgrade():
            return False
        for name, value in self.headers:
            if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")):
                raise Refused(invalid_http("a WebSocket handshake has no body: leave it out"))
        return True

    def _encode_head_without_upgrade(self) -> bytes:
        """Return the bytes of the current request head, without its `Upgrade` header."""
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def on_body(self, body: bytes) -> None:
        self.note_body(len(body))
        super().on_body(body)

    def note_body(self, count: int) -> None:
        """Count `count` body bytes: they do not belong to a head, trailers or an extension."""
        self._reset_counts()
        self._body_bytes_left -= count

    def on_message_complete(self) -> None:
        self.is_in_body = False
        self._reset_counts()
        self._body_bytes_left = 0
        if not self._head_without_upgrade:  # else the request starts when its head is parsed again
            super().on_message_complete()

    def _count_head_bytes(self, count: int) -> None:
        self._is_silent = False
        # The silent pieces held the same bytes, or spaces around them.
        self._head_bytes += max(count, self._silent_bytes)
        self._silent_bytes = 0
        if self._head_bytes > HEAD_BYTES_MAX:
            raise Refused(head_too_large())

    # Refusing and closing

    def refuse(self, error: RequestError) -> None:
        """Stop reading; answer the current request with `error` after earlier answers; close."""
        self._last_response = encode_refusal(error)
        if self.is_in_body:
            self._abandon_request()
        self._send_last_in_turn()

    def _abandon_request(self) -> None:
        """Give up the current request, because the rest of its body cannot be read.

        The refusal becomes its answer, unless its own answer has begun: then nothing is sent behind
        that answer.
        """
        self.is_in_body = False
        cycle = self.cycle
        if self.pipeline and self.pipeline[0][0] is cycle:
            del self.pipeline[0]
        elif isinstance(cycle, RequestResponseCycle) and not cycle.response_started:
            cycle.disconnected = True
            cycle.message_event.set()
        else:
            self._last_response = b""

    def _send_last_in_turn(self) -> None:
        """Send the last response, if a request was refused and no earlier answer is under way."""
        if self._last_response is not None and not (self.is_answering or self._is_last_sent):
            self._is_last_sent = True
            send_last(self.transport, self.stall, self._last_response)

    @property
    def is_answering(self) -> bool:
        """Whether a request is under way and its peer is connected."""
        cycle = self._running
        return cycle is not None and not (cycle.response_complete or cycle.disconnected)

    def eof_received(self) -> None:
        super().eof_received()
        self.stall.watch(FLUSHING_STALL_S)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self.stall.watch(FLUSHING_STALL_S)
        else:
            self._send_last_in_turn()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self.stall.watch(FLUSHING_STALL_S)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stall.watch(OPEN_STALL_S)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not (self._is_last_sent or self.transport.is_closing()):
            self.stall.stop()

    def handle_websocket_upgrade(self) -> None:
        if self.is_answering:
            # uvicorn would switch the protocol during the answer, and the writer of the answer
            # would never learn that the connection is lost.
            self.refuse(invalid_http("a WebSocket handshake waits for the answers before it"))
            return
        self.stall.stop()
        super().handle_websocket_upgrade()
        self.parser = None  # type: ignore[assignment]  # break the reference cycle with the parser


def _refusal_of(parser_error: httptools.HttpParserError) -> RequestError:
    """Return the error to answer a request that the parser or one of its callbacks refused."""
    cause = parser_error.__context__
    if isinstance(cause, Refused):
        return cause.error
    return unsupported_version() if str(parser_error) == PARSER_VERSION_ERROR else invalid_http()
