r"""gzip (RFC 1952): a header, one stream of deflate blocks, and a trailer with CRC and length.

    header 1f 8b 08 00 … │ blocks, 00 00 00 ff ff │ blocks, 00 00 00 ff ff │ 03 00 │ CRC │ length
                           a piece                  a piece                  last block

Deflate refers to earlier bytes by their distance, at most the window. Nothing else joins one block
to another. So pieces of several compressors may follow one another, if each of them refers only to
bytes that the body has at that distance. Each piece ends with an empty stored block, which aligns
the piece to whole bytes; some decoders (Go's) give their bytes out only there.
"""

from __future__ import annotations

import struct
import zlib

from api.compression.encoding import COMPRESSED_BYTES_MAX, FRESH_BYTES_MIN

LEVEL = 6
WINDOW_BITS = 12  # 4 KiB, about 70 events; 32 KiB saves 0.4 bytes of an event, for 220 KB more
MEMORY_LEVEL = 5
FRESH_LEVEL = 3  # of slices up to 64 KiB: a third of the time of level 6
CONTEXT_BYTES = (1 << WINDOW_BITS + 2) + (1 << MEMORY_LEVEL + 9)  # zconf.h, without the small parts

HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # no name, no time, system unknown
FLUSHED = b"\x00\x00\x00\xff\xff"  # an empty stored block
LAST_BLOCK = b"\x03\x00"  # empty, with fixed codes
STORED_BYTES_MAX = 65_535  # of one stored block


class GzipContext:
    """A compressor of raw deflate with a small window."""

    __slots__ = ("_compressor",)
    bytes_kept = CONTEXT_BYTES

    def __init__(self) -> None:
        self.restart()

    def piece(self, plain: bytes) -> bytes:
        if len(plain) > COMPRESSED_BYTES_MAX:
            self.restart()  # its window does not have these bytes
            return stored(plain)
        compressor = self._compressor
        return compressor.compress(plain) + compressor.flush(zlib.Z_SYNC_FLUSH)

    def restart(self) -> None:
        self._compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, -WINDOW_BITS, MEMORY_LEVEL)

    def closing(self, crc: int, count: int) -> bytes:
        return closing(crc, count)


class GzipEncoding:
    """gzip for streams; see `SharedEncoding`."""

    name = "gzip"
    opening = HEADER
    window = 1 << WINDOW_BITS

    def context(self) -> GzipContext:
        return GzipContext()

    def fresh(self, plain: bytes) -> bytes:
        if not FRESH_BYTES_MIN <= len(plain) <= COMPRESSED_BYTES_MAX:
            return stored(plain)
        compressor = zlib.compressobj(FRESH_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        return compressor.compress(plain) + compressor.flush(zlib.Z_SYNC_FLUSH)

    def closing(self, crc: int, count: int) -> bytes:
        return closing(crc, count)


def stored(plain: bytes) -> bytes:
    """Return a piece with the bytes as they are: 5 bytes more for each 64 KiB, and 5 at the end."""
    blocks = []
    for start in range(0, len(plain), STORED_BYTES_MAX):
        part = plain[start : start + STORED_BYTES_MAX]
        blocks += [struct.pack("<BHH", 0, len(part), len(part) ^ 0xFFFF), part]
    return b"".join([*blocks, FLUSHED])


def closing(crc: int, count: int) -> bytes:
    """Return the last block and the trailer."""
    return LAST_BLOCK + struct.pack("<II", crc, count & 0xFFFFFFFF)
