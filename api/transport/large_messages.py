"""Takes large messages out of the bytes of a WebSocket before the frame parser sees them.

The parser keeps a frame until it is complete, then copies and unmasks it at once, and its only
answer to a too large one is to close the socket. `MessageSieve` reads the head of each frame. The
payload of a large message is unmasked and checked while it arrives, and the parser gets a frame
with the same head and without payload: so the parser still judges the order of frames. A message
beyond the bound is dropped while it arrives, and the socket lives.

    bytes of the peer ─▶ MessageSieve ─▶ small frames, and empty ones for large ─▶ parser
                              └─▶ LargeMessage, which the empty last frame of the message releases

With permessage-deflate a compressed message of any size is taken out, and inflated while it
arrives; the bound is that of the inflated bytes. The parser sees its frames without RSV1.

Invariant: of one message at most `bytes_max` bytes are kept. Frames that break the protocol (a
reserved bit, no mask, an unknown opcode) pass unchanged: the parser closes the socket. Pure: does
no I/O. Sources: RFC 6455, section 5.2; RFC 7692, section 6.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from typing import Protocol

from websockets.frames import apply_mask  # type: ignore[attr-defined]

from api.compression.deflated_messages import INFLATER_BYTES, Inflater, InvalidDeflate
from api.errors import request_error
from shared.errors import RequestError

SMALL_BYTES = 65_536  # a message up to here is the parser's
BINARY_BYTES_MAX = 66_561  # of a binary message: a line of 1,024 bytes, and 64 KiB of audio
DROPPED_FACTOR = 8  # times the bound: a longer message closes the socket with 1009

_CONTINUATION, _TEXT, _BINARY = 0, 1, 2
_FIN, _RESERVED, _COMPRESSED = 0x80, 0x70, 0x40
_OPCODE, _MASKED, _LENGTH = 0x0F, 0x80, 0x7F
_EMPTY_MASKED = b"\x80\x00\x00\x00\x00"  # the rest of a head: no payload, and a mask of zeros


class BrokenMessage(Exception):
    """The socket must close with `code`, because of the message that arrives."""

    def __init__(self, code: int, reason: str) -> None:
        self.code, self.reason = code, reason
        super().__init__(reason)


class Grower(Protocol):
    """The part of the node's memory (api/body_room.py) that large messages use."""

    def grow(self, count: int) -> None:
        """Take `count` bytes. Raises RequestError without room."""

    def lend(self, on_given_up: Callable[[], None]) -> None:
        """Keep the bytes of a message that waits, until others need them: `on_given_up`."""

    def release(self) -> None: ...


class LargeMessage:
    """One message that is taken out of the stream of frames.

    Attributes:
        content: the bytes so far; empty after a refusal.
        refusal: why the message is dropped; None: it is complete when its last frame is.
        received: payload bytes so far, also dropped ones.
    """

    __slots__ = ("_bytes_max", "_decoder", "content", "is_text", "memory", "received", "refusal")

    def __init__(self, memory: Grower, *, is_text: bool, bytes_max: int) -> None:
        self.memory = memory
        self.is_text = is_text
        self.content = bytearray()
        self.refusal: RequestError | None = None
        self.received = 0
        self._bytes_max = bytes_max
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def add(self, piece: bytes) -> None:
        """Take the next unmasked bytes.

        Raises:
            BrokenMessage: a text message is not UTF-8.
        """
        self.received += len(piece)
        if self.refusal is not None:
            return
        if self.received > self._bytes_max:
            self.refuse(too_large(self._bytes_max))
        else:
            self._keep(piece)

    def _keep(self, piece: bytes, *, is_last: bool = False) -> None:
        try:
            if self.is_text:
                self._decoder.decode(piece, is_last)
        except UnicodeDecodeError:
            raise BrokenMessage(1007, "text frames are UTF-8") from None
        try:
            self.memory.grow(len(piece))
        except RequestError as error:
            self.refuse(error)
        else:
            self.content += piece

    def finish(self) -> None:
        """Check, after the last byte, that no character is cut. Raises BrokenMessage."""
        if self.refusal is None and self.is_text:
            self._keep(b"", is_last=True)

    def binary(self) -> tuple[bytes, RequestError | None]:
        """Return the bytes of a complete binary message, or why it was dropped."""
        return bytes(self.content), self.refusal

    def refuse(self, error: RequestError) -> None:
        """Give the memory back, and drop the rest of the message."""
        self.refusal = self.refusal or error
        self.drop()

    def drop(self) -> None:
        """Free the content: the message is refused, or will not become complete."""
        self.content = bytearray()
        self.memory.release()


class CompressedMessage(LargeMessage):
    """One compressed message; `received` counts inflated bytes, and dropped ones as they come."""

    __slots__ = ("_inflater",)

    def __init__(self, memory: Grower, *, is_text: bool, bytes_max: int) -> None:
        super().__init__(memory, is_text=is_text, bytes_max=bytes_max)
        self._inflater: Inflater | None = Inflater(self.content)
        try:
            memory.grow(INFLATER_BYTES)
        except RequestError as error:
            self.refuse(error)

    def add(self, piece: bytes) -> None:
        """Take the next unmasked bytes. Raises BrokenMessage: no DEFLATE data, or no UTF-8."""
        if self._inflater is None:
            super().add(piece)
        else:
            self._take(self._inflater.feed(piece))

    def finish(self) -> None:
        """Check that the message is whole. Raises BrokenMessage."""
        if self._inflater is not None:
            self._take(self._inflater.finish())
            self._inflater = None
        super().finish()

    def drop(self) -> None:
        super().drop()
        self._inflater = None

    def _take(self, inflated: Iterator[bytes]) -> None:
        try:
            for piece in inflated:
                super().add(piece)
                if self.refusal is not None:
                    return
        except InvalidDeflate as exc:
            raise BrokenMessage(1007, str(exc)) from None


class MessageSieve:
    """The frames of one connection.

    Args:
        bytes_max: the longest message.
        begin: called when a message becomes large, with `is_text` and `is_compressed`. It returns
            the `LargeMessage`, which holds the fragments that the parser has already delivered.
        inflates: permessage-deflate is negotiated.

    Attributes:
        message: the large message that arrives now, or has just arrived.
    """

    __slots__ = (
        *("_begin", "_bytes_max", "_head", "_inflates", "_is_compressed", "_is_text", "_left"),
        *("_mask", "_message_bytes", "_passes", "_synthetic", "message"),
    )

    def __init__(
        self, bytes_max: int, begin: Callable[[bool, bool], LargeMessage], *, inflates: bool = False
    ) -> None:
        self._bytes_max = bytes_max
        self._begin = begin
        self._inflates = inflates
        self._head = bytearray()  # of the next frame, while it is incomplete
        self._left = 0  # payload bytes of this frame that have not come
        self._passes = True  # this frame goes to the parser
        self._mask = b""
        self._synthetic = b""  # the parser's frame in place of this one
        # Of the present message; None: the last message is complete.
        self._message_bytes: int | None = None
        self._is_text = self._is_compressed = False
        self.message: LargeMessage | None = None

    @property
    def is_between_frames(self) -> bool:
        """Whether the next byte is the first one of a frame."""
        return not (self._head or self._left)

    @property
    def large_bytes_left(self) -> int:
        """Return how many bytes of a large payload may come next that need no parser.

        Compressed bytes do not count until their message is dropped.
        """
        inflates = self._is_compressed and self.message is not None and not self.message.refusal
        return 0 if self._passes or inflates else self._left

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield bytes for the parser. The parser must take each before the next is asked for.

        After bytes that end a large message, `message` is this message.

        Raises:
            BrokenMessage: the socket must close.
        """
        at, passing = 0, bytearray()
        while at < len(data):
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                if self._passes:
                    passing += piece
                    continue
                self._take(piece)
            else:
                taken = self._read_head(data, at)
                if taken is None:
                    break
                at = taken
                if self._decide():
                    passing += self._head
                    self._head.clear()
                    continue
                # Fragments before this frame must reach the parser before the message begins.
                if passing:
                    yield bytes(passing)
                    passing.clear()
                self._start_taking()
            if not self._left:
                yield self._end_frame()
        if passing:
            yield bytes(passing)

    def _read_head(self, data: bytes, at: int) -> int | None:
        """Complete the head of a frame; return the place behind it, or None: bytes are missing."""
        head = self._head
        while (missing := _head_bytes(head) - len(head)) > 0:
            piece = data[at : at + missing]
            if not piece:
                return None
            head += piece
            at += len(piece)
        return at

    def _decide(self) -> bool:
        """Note the frame whose head is complete; return whether it goes to the parser."""
        first, opcode = self._head[0], self._head[0] & _OPCODE
        length = _payload_bytes(self._head)
        self._left, self._passes = length, True
        is_begun = self._message_bytes is not None
        is_compressed = self._begins_compressed(first)
        if opcode > _BINARY or not self._head[1] & _MASKED:
            return True
        if first & _RESERVED and not is_compressed:
            return True
        if is_begun != (opcode == _CONTINUATION):  # an error, which the parser finds
            return True
        if opcode != _CONTINUATION:
            self.message, self._is_text = None, opcode == _TEXT
            self._is_compressed = is_compressed
        size = (self._message_bytes or 0) + length
        self._message_bytes = None if first & _FIN else size
        if size > DROPPED_FACTOR * self._bytes_max:
            raise BrokenMessage(1009, f"longer than {DROPPED_FACTOR} messages may be")
        is_small = size <= min(SMALL_BYTES, self._bytes_max)
        self._passes = self.message is None and is_small and not self._is_compressed
        return self._passes

    def _begins_compressed(self, first: int) -> bool:
        """Whether `first` is the first byte of a compressed message."""
        begins = self._message_bytes is None and first & _OPCODE in (_TEXT, _BINARY)
        return self._inflates and begins and first & _RESERVED == _COMPRESSED

    def _start_taking(self) -> None:
        if self.message is None:
            self.message = self._begin(self._is_text, self._is_compressed)
        self._mask = bytes(self._head[-4:])
        self._synthetic = bytes([self._head[0] & ~_COMPRESSED]) + _EMPTY_MASKED
        self._head.clear()

    def _take(self, piece: bytes) -> None:
        assert self.message is not None
        self.message.add(apply_mask(piece, self._mask))
        turned = len(piece) % 4
        self._mask = self._mask[turned:] + self._mask[:turned]

    def _end_frame(self) -> bytes:
        assert self.message is not None
        if self._message_bytes is None:
            self.message.finish()
        return self._synthetic


def _head_bytes(head: bytearray) -> int:
    """Return the length of a frame's head, as far as its first bytes tell."""
    if len(head) < 2:
        return 2
    length, mask = head[1] & _LENGTH, 4 if head[1] & _MASKED else 0
    return 2 + {126: 2, 127: 8}.get(length, 0) + mask


def _payload_bytes(head: bytearray) -> int:
    length = head[1] & _LENGTH
    if length == 126:
        return int.from_bytes(head[2:4])
    return int.from_bytes(head[2:10]) if length == 127 else length


def too_large(bytes_max: int) -> RequestError:
    """Return the error for a message of more than `bytes_max` bytes."""
    return request_error("body_too_large", f"the message is larger than {bytes_max} bytes")
