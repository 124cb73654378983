"""permessage-deflate (RFC 7692) on a WebSocket: its negotiation, and the messages of this side.

    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits        offered
    Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover    answered

The client's messages never refer to earlier ones, so no socket has a decompressor between two
messages. No socket has a compressor either: its own messages come from fresh compressors, and the
frames of a shared chain (api/compression/deflated_messages.py) are written as they are. While a
reading of the socket follows a chain, all other messages are plain.

api/transport/large_messages.py inflates the client's messages. Written against websockets 17.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from websockets.exceptions import (
    DuplicateParameter,
    InvalidParameterName,
    InvalidParameterValue,
    NegotiationError,
)
from websockets.extensions.base import Extension, ServerExtensionFactory
from websockets.frames import Frame, Opcode
from websockets.typing import ExtensionName, ExtensionParameter

from api.compression.deflated_messages import (
    CHAIN_WINDOW_BITS,
    COMPRESSED_STEP_BYTES,
    WINDOW_BITS_MAX,
    compress_steps,
    compressed_or_none,
)
from api.transport.extensions import DEFLATE
from api.transport.websocket_large import LargeMessageProtocol

_NAME = ExtensionName("permessage-deflate")
_HEADER = "Sec-WebSocket-Extensions"
_BITS = {str(bits): bits for bits in range(8, WINDOW_BITS_MAX + 1)}
_ENCODER_BITS_MIN = 9  # zlib writes no raw stream with a smaller window


class Deflate(Extension):
    """The extension on one socket.

    Attributes:
        window_bits: the largest window that the client allows.
        may_chain: frames may refer to earlier ones within `CHAIN_WINDOW_BITS`.
        is_chained: a reading of this socket follows a chain.
        ready: the next message, compressed already, and its length before.
    """

    name = _NAME

    def __init__(self, window_bits: int, *, keeps_context: bool) -> None:
        self.window_bits = window_bits
        self.may_chain = keeps_context and window_bits >= CHAIN_WINDOW_BITS
        self.is_chained = False
        self.ready: tuple[int, bytes] | None = None

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Return the frame: messages are inflated before the parser sees them."""
        return frame

    def encode(self, frame: Frame) -> Frame:
        """Compress a text message if that makes it shorter, and no chain forbids it."""
        if frame.opcode is not Opcode.TEXT or self.is_chained:
            return frame
        payload, ready = bytes(frame.data), self.ready
        self.ready = None
        if ready is not None and ready[0] == len(payload):
            compressed: bytes | None = ready[1]
        else:
            compressed = compressed_or_none(payload, self.window_bits)
        if compressed is None or len(compressed) >= len(payload):
            return frame
        return Frame(frame.opcode, compressed, frame.fin, rsv1=True)


class DeflateFactory(ServerExtensionFactory):
    """Accepts the first offer that this side can keep."""

    name = _NAME

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], Deflate]:
        """Return the answer to one offer. Raises NegotiationError: the offer is declined."""
        if accepted_extensions:
            raise NegotiationError("one offer was accepted already")
        return negotiate(params)


_FACTORIES = (DeflateFactory(),)  # of every connection


def negotiate(offer: Sequence[ExtensionParameter]) -> tuple[list[ExtensionParameter], Deflate]:
    """Return the answer to one offer (RFC 7692, 7.1).

    Raises:
        NegotiationError: the offer is malformed, or asks for a window of 8 bits.
    """
    offered = _read_offer(offer)
    bits = offered.get("server_max_window_bits")
    if bits is not None and bits < _ENCODER_BITS_MIN:
        raise NegotiationError("server_max_window_bits: 9 to 15")
    answer: list[ExtensionParameter] = [("client_no_context_takeover", None)]
    keeps_context = "server_no_context_takeover" not in offered
    if not keeps_context:
        answer.append(("server_no_context_takeover", None))
    if bits is not None:
        answer.append(("server_max_window_bits", str(bits)))
    return answer, Deflate(bits or WINDOW_BITS_MAX, keeps_context=keeps_context)


def _read_offer(offer: Sequence[ExtensionParameter]) -> dict[str, int | None]:
    """Return the bits of each parameter, None for one without a value."""
    offered: dict[str, int | None] = {}
    for name, value in offer:
        if name in offered:
            raise DuplicateParameter(name)
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            is_valid = value is None
        elif name == "client_max_window_bits":
            is_valid = value is None or value in _BITS
        elif name == "server_max_window_bits":
            is_valid = value in _BITS
        else:
            raise InvalidParameterName(name)
        if not is_valid:
            raise InvalidParameterValue(name, value)
        offered[name] = None if value is None else _BITS[value]
    return offered


class DeflatingProtocol(LargeMessageProtocol):
    """One WebSocket connection that may have negotiated permessage-deflate.

    Args:
        is_deflating: accept offers, unless the application declines them (`DEFLATE`).

    Attributes:
        deflate: the extension of this socket; None: there is none.
    """

    __slots__ = ("deflate",)

    def __init__(self, *args: Any, is_deflating: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deflate: Deflate | None = None
        if is_deflating:
            self.conn.available_extensions = _FACTORIES

    @property
    def inflates(self) -> bool:
        return self.deflate is not None

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.accept":
            self._settle(is_wanted=message.get(DEFLATE, True))
        elif self.deflate is not None and len(message.get("text") or "") > COMPRESSED_STEP_BYTES:
            await self._prepare(self.deflate, message["text"].encode())
        await super().send(message)

    def _settle(self, *, is_wanted: bool) -> None:
        """Keep the extension, or take it out of the handshake: the application does not want it."""
        if is_wanted and self.conn.extensions:
            (extension,) = self.conn.extensions
            assert isinstance(extension, Deflate)
            self.deflate = extension
        else:
            self.conn.extensions = []
            self.response.headers.pop(_HEADER, None)

    async def _prepare(self, deflate: Deflate, payload: bytes) -> None:
        """Compress a large message in steps; other connections have their turn in between."""
        if deflate.is_chained:
            return
        pieces = []
        for piece in compress_steps(payload, deflate.window_bits):
            pieces.append(piece)
            await asyncio.sleep(0)
        deflate.ready = (len(payload), b"".join(pieces))
