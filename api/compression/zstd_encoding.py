"""Zstandard (RFC 8878, RFC 9659), with one compressor for each reader.

Blocks of a frame share more than the window (codes, repeated distances), so readers could share
pieces only from the beginning of a frame on, and a body would have several frames. The format
allows that, but Node.js drops every frame after the first one of a write
(https://github.com/nodejs/node/issues/64741). So a body is one frame, and readers share nothing.
The package `zstandard` is in the extra `compression`.
"""

from __future__ import annotations

import zstandard

LEVEL = 3
WINDOW_LOG = 13  # 8 KiB: a larger window saves 0.1 bytes of an event
TABLE_LOG = 10  # 64 KB for a context instead of 840 KB, with the same size of events

PARAMETERS = zstandard.ZstdCompressionParameters.from_level(
    LEVEL,
    window_log=WINDOW_LOG,
    hash_log=TABLE_LOG,
    chain_log=TABLE_LOG,
    write_content_size=False,
    write_checksum=False,
)


class ZstdContext:
    """A compressor whose pieces are blocks of one frame."""

    __slots__ = ("_stream",)

    def __init__(self) -> None:
        compressor = zstandard.ZstdCompressor(compression_params=PARAMETERS)
        self._stream = compressor.compressobj()

    def piece(self, plain: bytes) -> bytes:
        stream = self._stream
        return stream.compress(plain) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def closing(self, crc: int, count: int) -> bytes:
        return self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH)


class ZstdEncoding:
    """Zstandard for streams; see `Encoding`."""

    name = "zstd"
    opening = b""

    def context(self) -> ZstdContext:
        return ZstdContext()
