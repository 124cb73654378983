"""Brotli (RFC 7932), with one compressor for each reader.

Readers cannot share pieces of Brotli. A piece refers to its built-in dictionary by a distance that
depends on the number of bytes before the piece, and to the last four distances, which the encoder's
interface cannot reset. The package `brotli` is in the extra `compression`.
"""

from __future__ import annotations

import brotli

QUALITY = 5  # 4 has 6 bytes more in an event for the same time
WINDOW_LOG = 16  # 64 KiB


class BrotliContext:
    """A compressor of one body."""

    __slots__ = ("_compressor",)

    def __init__(self) -> None:
        self._compressor = brotli.Compressor(
            mode=brotli.MODE_TEXT, quality=QUALITY, lgwin=WINDOW_LOG
        )

    def piece(self, plain: bytes) -> bytes:
        return bytes(self._compressor.process(plain) + self._compressor.flush())

    def closing(self, crc: int, count: int) -> bytes:
        return bytes(self._compressor.finish())


class BrotliEncoding:
    """Brotli for streams; see `Encoding`."""

    name = "br"
    opening = b""

    def context(self) -> BrotliContext:
        return BrotliContext()
