"""One WebSocket for one answer: the handshake, one message out, messages in.

The frames are those of the library `websockets`, without its I/O: waits, deadlines and the way to
the server are the same as for HTTP. Invariant: bytes of the server can only raise `ExchangeError`,
or become messages of at most `message_bytes_max`. A message is read no faster than the caller takes
it. Knows no models. Source: RFC 6455.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, PayloadTooBig
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import WebSocketURI

from workers.backends.http.exchange import TLS_ALERT, UNREAD_BYTES_MAX, AnswerIsTls, ExchangeError
from workers.backends.http.waiting import WaitingProtocol


class MessageTooLong(ExchangeError):
    """The server sent a message of more than the limit."""


class Refused(ExchangeError):
    """The server answered the handshake with another status than 101."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"the answer is {response.status_code}")
        self.response = response


class WebSocketExchange(WaitingProtocol):
    """Call `open`, then `send`, then `read` until it returns nothing, then `close`.

    Attributes:
        close_code, close_reason: of the server's close frame; None: it sent none.
    """

    def __init__(self, uri: WebSocketURI, message_bytes_max: int) -> None:
        super().__init__()
        self.close_code: int | None = None
        self.close_reason = ""
        self._frames = ClientProtocol(uri, max_size=message_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._messages: list[bytes] = []  # not read yet
        self._fragments: list[bytes] = []  # of a message that is not complete
        self._size = 0  # of `_messages`
        self._is_open = self._is_over = self._is_paused = False
        self._is_first = True

    async def open(self, headers: Mapping[str, str], deadline: float) -> None:
        """Send the handshake and wait for its answer.

        Raises:
            Refused: the server does not accept the handshake.
            ExchangeError: the answer cannot be read.
            TimeoutError: no answer before `deadline`.
        """
        request = self._frames.connect()
        for name, value in headers.items():
            if name in request.headers:
                del request.headers[name]
            request.headers[name] = value
        self._frames.send_request(request)
        self._flush()
        while not self._is_open:
            await self._wait(deadline)

    def send(self, message: bytes) -> None:
        """Send a text message."""
        self._frames.send_text(message)
        self._flush()

    async def read(self, deadline: float) -> list[bytes]:
        """Return the messages that have arrived, at least one; [] after the server's close frame.

        Raises:
            ExchangeError: the connection broke, or the bytes are no WebSocket frames.
            MessageTooLong: a message exceeds the limit.
            TimeoutError: nothing arrived before `deadline`.
        """
        while not self._messages:
            if self._is_over:
                return []
            await self._wait(deadline)
        messages, self._messages, self._size = self._messages, [], 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return messages

    def close(self, *, is_complete: bool = False) -> None:
        """Tell the server that nothing more is read, and close the connection. May be repeated.

        Args:
            is_complete: the answer is complete: the close is a normal one.
        """
        self._stop_timer()
        transport, self._transport = self._transport, None
        if transport is None:
            return
        if self._frames.state is State.OPEN:
            code = CloseCode.NORMAL_CLOSURE if is_complete else CloseCode.GOING_AWAY
            self._frames.send_close(code)
            transport.writelines(self._frames.data_to_send())
        if transport.get_write_buffer_size():
            transport.abort()  # a server that does not read would keep the connection
        else:
            transport.close()

    # Callbacks of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self._is_over:
            error = ExchangeError("the connection was closed", is_before_response=self._is_first)
            error.__cause__ = exc  # TLS 1.3 refuses a client certificate only now
            self._fail(error)

    def data_received(self, data: bytes) -> None:
        if self._is_over or self._error is not None:
            return
        if self._is_first and data.startswith(TLS_ALERT):
            return self._fail(AnswerIsTls("the answer is TLS and not HTTP"))
        self._is_first = False
        self._frames.receive_data(data)
        for event in self._frames.events_received():
            if isinstance(event, Frame):
                self._take(event)
            else:
                self._is_open = self._frames.handshake_exc is None
        self._flush()
        self._note_errors()
        if self._size > UNREAD_BYTES_MAX and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """Close the connection: the server sends nothing more."""
        if not self._is_over and self._error is None:
            self._frames.receive_eof()  # completes the body of a refused handshake
            for event in self._frames.events_received():
                if isinstance(event, Frame):
                    self._take(event)
            if isinstance(self._frames.handshake_exc, InvalidStatus):
                self._note_errors()
        return False

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            if (close := self._frames.close_rcvd) is not None:
                self.close_code, self.close_reason = int(close.code), close.reason
            self._is_over = True
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            data = bytes(frame.data)
            if not frame.fin or self._fragments:
                self._fragments.append(data)
                if not frame.fin:
                    return
                data = b"".join(self._fragments)
                self._fragments.clear()
            self._messages.append(data)
            self._size += len(data)

    def _note_errors(self) -> None:
        """Keep the fault that the library has found."""
        refused, broken = self._frames.handshake_exc, self._frames.parser_exc
        if isinstance(refused, InvalidStatus):
            self._fail(Refused(refused.response))
        elif refused is not None:
            self._fail(ExchangeError(f"the answer is no WebSocket handshake: {refused}"))
        elif isinstance(broken, PayloadTooBig):
            self._fail(MessageTooLong("a message is too long"))
        elif broken is not None and not self._is_over:
            self._fail(ExchangeError(f"the answer is no WebSocket: {type(broken).__name__}"))

    def _flush(self) -> None:
        """Write the frames of the library itself: pongs, and the answer to a close frame."""
        for data in self._frames.data_to_send():
            if data and self._transport is not None and not self._transport.is_closing():
                self._transport.write(data)
