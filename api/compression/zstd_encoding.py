r"""Zstandard (RFC 8878, RFC 9659): a body is a row of frames, and a frame is a row of blocks.

    opening         head of a frame
    fresh piece     end of the frame before, head of a frame, blocks
    key frame       end of the frame before, head of a frame, blocks
    other piece     blocks
    closing         end of the frame before

The end of a frame is an empty last block, which is the same for all frames without a checksum. So
every body has one open frame between two pieces, whatever its pieces were. Blocks depend on earlier
blocks of their frame in more than the window (codes, repeated distances). So a body may go on with
a context only from a key frame on. The package `zstandard` is in the extra `compression`.
"""

from __future__ import annotations

import struct

import zstandard

from api.compression.encoding import COMPRESSED_BYTES_MAX, FRESH_BYTES_MIN

LEVEL = 3
WINDOW_LOG = 13  # 8 KiB: a larger window saves 0.1 bytes of an event
TABLE_LOG = 10  # 64 KB for a context instead of 840 KB, with the same size of events
FRESH_WINDOW_LOG = 17

END_OF_FRAME = b"\x01\x00\x00"  # an empty raw block, the last one
MAGIC = b"\x28\xb5\x2f\xfd"
STORED_BYTES_MAX = 1 << FRESH_WINDOW_LOG  # of a raw block: the window, at most 128 KiB


def _head(window_log: int) -> bytes:
    return MAGIC + bytes((0, (window_log - 10) << 3))  # no checksum, no size, no dictionary


def _parameters(window_log: int, **more: int) -> zstandard.ZstdCompressionParameters:
    return zstandard.ZstdCompressionParameters.from_level(
        LEVEL, window_log=window_log, write_content_size=False, write_checksum=False, **more
    )


_CONTEXT = _parameters(WINDOW_LOG, hash_log=TABLE_LOG, chain_log=TABLE_LOG)


class ZstdContext:
    """A compressor whose pieces are blocks of one frame, until it is restarted."""

    __slots__ = ("_compressor", "_is_key_frame", "_stream")
    bytes_kept = _CONTEXT.estimated_compression_context_size()

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(compression_params=_CONTEXT)
        self._stream = self._compressor.compressobj()
        self._is_key_frame = True

    def piece(self, plain: bytes) -> bytes:
        if len(plain) > COMPRESSED_BYTES_MAX:
            self.restart()
            return stored(plain)
        stream = self._stream
        piece = stream.compress(plain) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        if self._is_key_frame:
            self._is_key_frame = False
            return END_OF_FRAME + piece
        return piece

    def restart(self) -> None:
        self._stream = self._compressor.compressobj()
        self._is_key_frame = True

    def closing(self, crc: int, count: int) -> bytes:
        return END_OF_FRAME


class ZstdEncoding:
    """Zstandard for streams; see `SharedEncoding`."""

    name = "zstd"
    opening = _head(WINDOW_LOG)
    window = 0

    def __init__(self) -> None:
        parameters = _parameters(FRESH_WINDOW_LOG)
        self._fresh = zstandard.ZstdCompressor(compression_params=parameters)

    def context(self) -> ZstdContext:
        return ZstdContext()

    def fresh(self, plain: bytes) -> bytes:
        if not FRESH_BYTES_MIN <= len(plain) <= COMPRESSED_BYTES_MAX:
            return stored(plain)
        stream = self._fresh.compressobj()
        blocks = stream.compress(plain) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        return END_OF_FRAME + blocks

    def closing(self, crc: int, count: int) -> bytes:
        return END_OF_FRAME


def stored(plain: bytes) -> bytes:
    """Return a fresh piece with the bytes as they are: 9 bytes more, and 3 for each 128 KiB."""
    parts = [END_OF_FRAME, _head(FRESH_WINDOW_LOG)]
    for start in range(0, len(plain), STORED_BYTES_MAX):
        part = plain[start : start + STORED_BYTES_MAX]
        parts += [struct.pack("<I", len(part) << 3)[:3], part]
    return b"".join(parts)
