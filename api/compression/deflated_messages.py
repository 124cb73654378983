"""DEFLATE for WebSocket messages (RFC 7692): whole messages, chains of frames, and inflating.

The peer's window holds the text of every compressed message so far; plain messages do not enter it.
A frame from a fresh compressor refers to nothing before it, so it is valid on every socket at any
time. A frame from a compressor that is in use refers to the frames before it:

    chain    K ── f ── f ── … ── f ── K ── f ── f ── …       K: a key frame, of a fresh compressor
             └── KEY_EVERY frames ──┘                        more of them among the first frames

Invariant of a chain: its frames are valid for each socket that has been sent all of its frames
since a key frame, and no compressed frame from elsewhere in between. So one chain serves any number
of sockets, which begin at a key frame, and no socket has a compressor.

Pure: does no I/O, and knows neither sockets nor generations.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

LEVEL = 6
# A chain: 22 kB of memory. A larger window gains 1 % on tokens (docs/compression.md).
CHAIN_WINDOW_BITS, CHAIN_MEMORY_LEVEL = 11, 4
CHAIN_MEMORY_BYTES = 24_000
KEY_EVERY = 32  # frames; one key frame costs as much as five others
# A frame below this is sent plain, unless it is of a chain: it would be hardly shorter.
COMPRESSED_BYTES_MIN = 512
COMPRESSED_STEP_BYTES = 8_192  # compressed at a time: about 0.3 ms
CHAINED_BYTES_MAX = 16_384  # a longer frame of a chain is sent plain: about 0.5 ms
LARGE_WINDOW_BITS, LARGE_MEMORY_LEVEL = 15, 8  # for messages above a step
SMALL_WINDOW_BITS, SMALL_MEMORY_LEVEL = 13, 5
WINDOW_BITS_MAX = 15

INFLATED_BYTES = 65_536  # of one piece of an inflated message
INFLATER_BYTES = 44_000  # memory of an inflater with the largest window
WINDOW_BYTES = 1 << WINDOW_BITS_MAX
FINAL_BLOCKS_MAX = 16  # of one message; each needs another inflater
_TAIL = b"\x00\x00\xff\xff"  # what each compressed message is sent without (RFC 7692, 7.2.1)
_FINAL = b"\x01\x00\x00\xff\xff"  # an empty last block: inflates only at the end of another block


class InvalidDeflate(Exception):
    """The bytes of a message are not DEFLATE data, or end within a block."""


def text_frame(payload: bytes, *, is_compressed: bool = False) -> bytes:
    """Return a text message of a server: one frame, not masked (RFC 6455, 5.2)."""
    first, size = 0xC1 if is_compressed else 0x81, len(payload)
    if size < 126:
        return b"%c%c%b" % (first, size, payload)
    if size < 65_536:
        return b"%c\x7e%b%b" % (first, size.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (first, size.to_bytes(8, "big"), payload)


def compress_steps(payload: bytes, window_bits: int) -> Iterator[bytes]:
    """Compress a message with a fresh compressor, `COMPRESSED_STEP_BYTES` at a time.

    Args:
        window_bits: the largest window that the peer allows.

    Yields:
        Pieces, some of them empty; joined they are the payload of a compressed frame.
    """
    is_large = len(payload) > COMPRESSED_STEP_BYTES
    bits = LARGE_WINDOW_BITS if is_large else SMALL_WINDOW_BITS
    level = LARGE_MEMORY_LEVEL if is_large else SMALL_MEMORY_LEVEL
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, -min(bits, window_bits), level)
    for at in range(0, len(payload), COMPRESSED_STEP_BYTES):
        yield compressor.compress(payload[at : at + COMPRESSED_STEP_BYTES])
    yield compressor.flush(zlib.Z_SYNC_FLUSH)[: -len(_TAIL)]


def compressed_or_none(payload: bytes, window_bits: int = WINDOW_BITS_MAX) -> bytes | None:
    """Return a message compressed with a fresh compressor; None: it would not become shorter."""
    if len(payload) < COMPRESSED_BYTES_MIN:
        return None
    compressed = b"".join(compress_steps(payload, window_bits))
    return compressed if len(compressed) < len(payload) else None


def lone_frame(payload: bytes) -> bytes:
    """Return a text frame that is valid on every socket, compressed if that makes it shorter."""
    compressed = None if len(payload) > CHAINED_BYTES_MAX else compressed_or_none(payload)
    if compressed is None:
        return text_frame(payload)
    return text_frame(compressed, is_compressed=True)


def last_key(count: int) -> int:
    """Return after how many frames, at most `count`, the last key frame of a chain follows.

    Key frames follow after 0, 1, 2, 4, 8, 16 and 32 frames, and then after each `KEY_EVERY`: many
    readers come shortly after the start of an answer.
    """
    if count < KEY_EVERY:
        return 1 << count.bit_length() >> 1
    return count - count % KEY_EVERY


class FrameChain:
    """The frames of one chain; the module docstring has its invariant."""

    __slots__ = ("_compressor", "_count")

    def __init__(self) -> None:
        self._count = 0
        self._compressor: zlib._Compress | None = None

    def add(self, payload: bytes) -> bytes:
        """Return the next text frame."""
        if last_key(self._count) == self._count:
            self._compressor = None
        self._count += 1
        if len(payload) > CHAINED_BYTES_MAX:
            return text_frame(payload)
        compressor = self._compressor
        if compressor is None:
            compressor = self._compressor = zlib.compressobj(
                LEVEL, zlib.DEFLATED, -CHAIN_WINDOW_BITS, CHAIN_MEMORY_LEVEL
            )
        # Sent also if it is not shorter: later frames refer to it.
        data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return text_frame(data[: -len(_TAIL)], is_compressed=True)

    def release(self) -> None:
        """Free the compressor; a later frame would be a key frame."""
        self._compressor = None


class Inflater:
    """Inflates one message whose compressor began with an empty window.

    Args:
        inflated: what the caller has kept of this message so far. A message may have several
            final blocks, and the blocks behind one may refer to bytes before it. The bytes and not
            their owner: a circle of objects would keep a large message until the next collection.
    """

    __slots__ = ("_decoder", "_final_blocks", "_inflated", "_is_begun")

    def __init__(self, inflated: bytearray) -> None:
        self._inflated = inflated
        self._decoder: zlib._Decompress | None = None  # before the first, and after a final block
        self._final_blocks = 0
        self._is_begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` stands for, at most `INFLATED_BYTES` at a time.

        The caller may stop at any piece if it drops the message.

        Raises:
            InvalidDeflate: no DEFLATE data.
        """
        self._is_begun = self._is_begun or bool(data)
        piece = b""
        while data or len(piece) == INFLATED_BYTES:
            decoder = self._decoder
            if decoder is None:
                if not data:
                    return
                decoder = self._decoder = self._next_decoder()
            try:
                piece = decoder.decompress(data, INFLATED_BYTES)
            except zlib.error:
                raise InvalidDeflate("a compressed message is not DEFLATE data") from None
            data = decoder.unconsumed_tail
            if decoder.eof:
                data, self._decoder = decoder.unused_data, None
            if piece:
                yield piece

    def finish(self) -> Iterator[bytes]:
        """Yield the rest, after the last byte of the message.

        Raises:
            InvalidDeflate: the message ends within a block.
        """
        if not self._is_begun or self._decoder is None:
            return  # an empty message, or one that ended with a final block
        yield from self.feed(_TAIL + _FINAL)
        if self._decoder is not None:
            raise InvalidDeflate("a compressed message is cut off")

    def _next_decoder(self) -> zlib._Decompress:
        if self._final_blocks > FINAL_BLOCKS_MAX:
            raise InvalidDeflate("a compressed message has too many final blocks")
        self._final_blocks += 1
        if self._final_blocks == 1:
            return zlib.decompressobj(-WINDOW_BITS_MAX)
        return zlib.decompressobj(-WINDOW_BITS_MAX, bytes(self._inflated[-WINDOW_BYTES:]))
