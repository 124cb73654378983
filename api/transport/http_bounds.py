"""uvicorn's HTTP protocol with a bound on what a peer can make it keep, and an answer to all of it.

uvicorn bounds a body. It keeps all else that is sent: headers by the thousand, trailers and chunk
extensions without end, requests that wait behind a stream. A connection that it closes stays for
as long as the peer takes nothing of what is left, and of requests that wait behind one another it
tells only the last that the peer has gone.

Here a request has at most `HEADERS_MAX` headers in about `HEAD_BYTES_MAX`, or it is refused;
trailers are not kept; at most `PIPELINED_MAX` requests wait for the one before them; and no
connection is waited for whose peer takes nothing (api/transport/stalled_peer.py).

What cannot be served is refused with an answer, in its turn: requests before it are answered first
(`refuse`). An `Upgrade` to anything but a WebSocket is ignored, as RFC 9110, 7.8 allows: the head
is read once more without that header, so that its body and what follows are read as HTTP.

Knows nothing of deadlines for what a peer owes us, nor of generations. Written against uvicorn
0.54; tests/unit/api/transport/test_http.py and tests/hostile drive it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.transport.lazy_sync import LeanFlow, LeanLine
from api.transport.refusal import answer_of, finish, head_too_large, not_http
from api.transport.stalled_peer import FLUSH_S, OPEN_S, Stall
from shared.errors import RequestError

HEAD_BYTES_MAX = 65_536
HEADERS_MAX = 100
PIPELINED_MAX = 100


class Refused(Exception):
    """Stops the parser; `error` is the answer."""

    def __init__(self, error: RequestError) -> None:
        self.error = error
        super().__init__(error.code)


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
        "_again",
        "_is_over",
        "_is_silent",
        "_kept_bytes",
        "_last",
        "_running",
        "is_in_body",
        "stall",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pipeline = LeanLine()  # type: ignore[assignment]
        self.is_in_body = False
        self._again = b""  # a head whose Upgrade is ignored, without it
        self._last: bytes | None = None  # the answer that ends the connection
        self._is_over = False  # and it was said
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

    # Reading

    def new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        return parser

    @property
    def is_refused(self) -> bool:
        """Whether nothing more is read: the last answer is said, or waits for its turn."""
        return self._last is not None

    def data_received(self, data: bytes) -> None:
        if self.is_refused:
            return
        self._is_silent = True
        self._unset_keepalive_if_required()
        self._parse(data)
        if self._is_silent and not (self.is_refused or self.transport.is_closing()):
            self._kept_bytes += len(data)
            if self._kept_bytes > HEAD_BYTES_MAX:
                self.refuse(head_too_large())

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if not self._again:
                    self.handle_websocket_upgrade()
                    return
                # The head without the header, and what followed it. The parser reads no further
                # where the request was to be the last one.
                data, self._again = self._again + data[upgrade.args[0] :], b""
                self.parser = self.new_parser()
            except httptools.HttpParserError as exc:
                why = exc.__context__
                self.refuse(why.error if isinstance(why, Refused) else not_http())
                return

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.is_in_body = False
        self._kept_bytes = 0

    def on_url(self, url: bytes) -> None:
        if self.parser.get_method() == b"PRI":  # the parser would wait for what stands behind it
            raise Refused(not_http("HTTP/2 is not spoken here"))
        self._keep(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._keep(len(name) + len(value))
        if not self.is_in_body:  # a trailer is nobody's
            # The parser takes spaces from around a value, and leaves tabs (RFC 9110, 5.5).
            super().on_header(name, value.strip(b" \t"))
            if len(self.headers) > HEADERS_MAX:
                raise Refused(head_too_large())

    def on_headers_complete(self) -> None:
        self._kept_bytes = 0
        if self.parser.should_upgrade() and not self._is_handshake():
            self._again = self._without_upgrade()
            return
        super().on_headers_complete()
        self.is_in_body = True
        if len(self.pipeline) > PIPELINED_MAX:
            raise Refused(not_http(f"more than {PIPELINED_MAX} requests wait for an answer"))

    def _is_handshake(self) -> bool:
        """Whether the request opens a WebSocket; False: its `Upgrade` is ignored.

        Raises:
            Refused: it is a CONNECT, or a handshake with a body.
        """
        if self.parser.get_method() == b"CONNECT":
            raise Refused(not_http("this is no proxy: CONNECT has nothing to connect to"))
        if not self._should_upgrade():
            return False
        for name, value in self.headers:
            if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")):
                raise Refused(not_http("a WebSocket handshake has no body: leave it out"))
        return True

    def _without_upgrade(self) -> bytes:
        """Return the head that was just read, without its `Upgrade`."""
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

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
        if not self._again:  # else it begins only now
            super().on_message_complete()

    def _keep(self, count: int) -> None:
        self._is_silent = False
        self._kept_bytes += count
        if self._kept_bytes > HEAD_BYTES_MAX:
            raise Refused(head_too_large())

    # Refusing, and closing

    def refuse(self, error: RequestError) -> None:
        """Answer what was read last with `error`, in its turn; read no more; close."""
        self._last = answer_of(error)
        if self.is_in_body:
            self._give_up_request()
        self._say_last_in_turn()

    def _give_up_request(self) -> None:
        """The rest of a request cannot be read: its answer is the last one, unless it has begun."""
        self.is_in_body = False
        cycle = self.cycle
        if self.pipeline and self.pipeline[0][0] is cycle:
            del self.pipeline[0]
        elif isinstance(cycle, RequestResponseCycle) and not cycle.response_started:
            cycle.disconnected = True
            cycle.message_event.set()
        else:
            self._last = b""

    def _say_last_in_turn(self) -> None:
        """Say the last answer, if there is one and no other is under way before it."""
        if self._last is not None and not (self.is_answering or self._is_over):
            self._is_over = True
            finish(self.transport, self.stall, self._last)

    @property
    def is_answering(self) -> bool:
        """Whether a request is under way whose peer is there."""
        cycle = self._running
        return cycle is not None and not (cycle.response_complete or cycle.disconnected)

    def eof_received(self) -> None:
        super().eof_received()
        self.stall.watch(FLUSH_S)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self.stall.watch(FLUSH_S)
        else:
            self._say_last_in_turn()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self.stall.watch(FLUSH_S)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stall.watch(OPEN_S)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not (self._is_over or self.transport.is_closing()):
            self.stall.stop()

    def handle_websocket_upgrade(self) -> None:
        if self.is_answering:
            # uvicorn would switch in mid-answer, and nobody would ever tell whoever writes that.
            self.refuse(not_http("a WebSocket handshake waits for the answers before it"))
            return
        self.stall.stop()
        super().handle_websocket_upgrade()
        self.parser = None  # type: ignore[assignment]  # it holds us, and nobody else does now
