"""uvicorn's HTTP protocol with a bound on what a peer can make it keep.

uvicorn bounds a body. It keeps all else that is sent: headers by the thousand, trailers and chunk
extensions without end, requests that wait behind a stream. A connection that it closes stays for
as long as the peer takes nothing of what is left, and of requests that wait behind one another it
tells only the last that the peer has gone.

Here a request has at most `HEADERS_MAX` headers in about `HEAD_BYTES_MAX`, or it is refused;
trailers are not kept; at most `PIPELINED_MAX` requests wait for the one before them; and no
connection is waited for whose peer takes nothing (api/stall.py).

Knows nothing of deadlines for what a peer owes us, nor of generations. Written against uvicorn
0.54; tests/unit/api/test_http_protocol.py and tests/hostile drive it.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.lean import LeanFlow, LeanLine
from api.stall import FLUSH_S, OPEN_S, Stall

HEAD_BYTES_MAX = 65_536
HEADERS_MAX = 100
PIPELINED_MAX = 100

_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: application/json\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)


# What Java's HTTP client and curl's --http2 ask for beside every plain request. A server may ignore
# it (RFC 9110, 7.8); the parser would take the body for another protocol's.
_H2C = re.compile(rb"\r\nupgrade:[ \t]*h2c[ \t]*(?=\r\n|$)", re.IGNORECASE)


class HeadTooLarge(Exception):
    """Stops the parser; the answer is 431."""


class TooManyRequests(Exception):
    """Stops the parser: too many requests wait for the one before them."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One HTTP/1.1 connection.

    The slots are for what uvicorn sets, too: a dictionary of so many names would be 2 kB.
    """

    __slots__ = (
        *("access_log", "access_logger", "app", "app_state", "asgi_version", "client", "config"),
        *("connections", "cycle", "expect_100_continue", "flow", "headers", "limit_concurrency"),
        *("logger", "loop", "parser", "pipeline", "root_path", "scheme", "scope", "server"),
        *("server_state", "tasks", "timeout_keep_alive", "timeout_keep_alive_task", "transport"),
        *("url", "ws_protocol_class"),
        "_is_silent",
        "_is_too_large",
        "_kept_bytes",
        "_running",
        "is_in_body",
        "stall",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pipeline = LeanLine()  # type: ignore[assignment]
        self.is_in_body = False
        self._is_too_large = False
        self._kept_bytes = 0  # of a head, or of what stands behind a body
        self._is_silent = True  # the parser has said nothing of this read: it keeps it
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = LeanFlow(transport)
        self.stall = Stall(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.stall.end()
        super().connection_lost(exc)
        # uvicorn tells the request that was read last, which may be waiting behind this one.
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        self._is_silent = True
        if b"h2c" in data and not self.is_in_body:
            head, end, rest = data.partition(b"\r\n\r\n")
            data = _H2C.sub(b"", head) + end + rest
        super().data_received(data)
        if self._is_silent and not self.transport.is_closing():
            self._kept_bytes += len(data)
            if self._kept_bytes > HEAD_BYTES_MAX:
                self._is_too_large = True
                self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.is_in_body = False
        self._kept_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._keep(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._keep(len(name) + len(value))
        if not self.is_in_body:  # a trailer is nobody's
            # The parser takes spaces from around a value, and leaves tabs (RFC 9110, 5.5).
            super().on_header(name, value.strip(b" \t"))
            if len(self.headers) > HEADERS_MAX:
                self._refuse_head()

    def on_headers_complete(self) -> None:
        self.is_in_body = True
        self._kept_bytes = 0
        super().on_headers_complete()
        if len(self.pipeline) > PIPELINED_MAX:
            raise TooManyRequests

    def on_body(self, body: bytes) -> None:
        self.hear_body()
        super().on_body(body)

    def hear_body(self) -> None:
        """Bytes of a body are not counted here."""
        self._is_silent = False
        self._kept_bytes = 0

    def on_message_complete(self) -> None:
        self.is_in_body = False
        self._kept_bytes = 0
        super().on_message_complete()

    def _keep(self, count: int) -> None:
        self._is_silent = False
        self._kept_bytes += count
        if self._kept_bytes > HEAD_BYTES_MAX:
            self._refuse_head()

    def _refuse_head(self) -> None:
        self._is_too_large = True
        raise HeadTooLarge

    def send_400_response(self, msg: str) -> None:
        if self._is_too_large:
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()
        else:
            super().send_400_response(msg)
        self.stall.watch(FLUSH_S)

    def eof_received(self) -> None:
        super().eof_received()
        self.stall.watch(FLUSH_S)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self.stall.watch(FLUSH_S)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self.stall.watch(FLUSH_S)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stall.watch(OPEN_S)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self.stall.stop()

    def handle_websocket_upgrade(self) -> None:
        if self._running is not None and not self._running.response_complete:
            # uvicorn would switch in mid-answer, and nobody would ever tell whoever writes that.
            self.send_400_response("")
            return
        self.stall.stop()
        super().handle_websocket_upgrade()
        self.parser = None  # type: ignore[assignment]  # it holds us, and nobody else does now
