"""Decoders of compressed bodies that are as strict as the strictest client."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Protocol

import brotli
import zstandard


class Decoder(Protocol):
    """Decodes a body that arrives in parts."""

    def feed(self, data: bytes) -> bytes:
        """Return everything that the bytes so far make available."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether the body may end here."""
        ...


class GzipDecoder:
    """One member, whose trailer zlib verifies; nothing may follow."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)

    def feed(self, data: bytes) -> bytes:
        plain = self._decoder.decompress(data)
        assert not self._decoder.unused_data, "bytes after the trailer"
        return plain

    @property
    def is_complete(self) -> bool:
        return self._decoder.eof


class ZstdDecoder:
    """One frame, as Node.js reads it; nothing may follow."""

    def __init__(self) -> None:
        self._decoder: Any = zstandard.ZstdDecompressor(max_window_size=1 << 23).decompressobj()

    def feed(self, data: bytes) -> bytes:
        plain = bytes(self._decoder.decompress(data)) if data else b""
        assert not self._decoder.unused_data, "bytes after the frame"
        return plain

    @property
    def is_complete(self) -> bool:
        return bool(self._decoder.eof)


class BrotliDecoder:
    """One stream."""

    def __init__(self) -> None:
        self._decoder = brotli.Decompressor()

    def feed(self, data: bytes) -> bytes:
        return bytes(self._decoder.process(data)) if data else b""

    @property
    def is_complete(self) -> bool:
        return bool(self._decoder.is_finished())


DECODERS: dict[str, Callable[[], Decoder]] = {
    "gzip": GzipDecoder, "zstd": ZstdDecoder, "br": BrotliDecoder,
}  # fmt: skip


def decode(encoding: str, body: bytes) -> bytes:
    """Return the plain bytes of a complete body."""
    decoder = DECODERS[encoding]()
    plain = decoder.feed(body)
    assert decoder.is_complete, "the body is not complete"
    return plain
