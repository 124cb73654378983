"""Decompresses the body of a response, piece by piece. Pure.

Requests ask for no compression, but some servers and gateways compress all the same. This module
reads gzip (RFC 1952) with any number of members, zlib (RFC 1950), and raw deflate (RFC 1951), which
some servers send as `deflate`. The first two bytes say which form it is.
"""

from __future__ import annotations

import zlib

INFLATED_BYTES_MAX = 4_194_304  # of one piece of the body
IDENTITY = ("", "identity")
CODINGS = ("gzip", "x-gzip", "deflate")
# zlib copies the rest of its input at the end of each gzip member. Small steps bound these copies
# when one read holds thousands of members.
INFLATED_AT_ONCE_BYTES = 4_096
_GZIP = b"\x1f\x8b"
_HEADER_BYTES = 2


class InflateError(ValueError):
    """The body is not compressed as its header says, or inflates too much."""


def coding_of(header: str) -> str:
    """Return the one coding that a `Content-Encoding` names besides `identity`; "": none.

    Two codings on top of each other are returned as they are; nothing can read them.
    """
    names = [name.strip().lower() for name in header.split(",")]
    return ", ".join(name for name in names if name not in IDENTITY)


class Inflater:
    """The decompression of one body.

    Args:
        coding: one of `CODINGS`.
    """

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._start = b""  # the first bytes of a member, until the form is known
        self._stream: zlib._Decompress | None = None
        self._has_member = False  # at least one member is complete
        self._is_over = False  # bytes have come that belong to no member

    def feed(self, data: bytes) -> bytes:
        """Return what `data` inflates to.

        Raises:
            InflateError: the bytes are not of this coding, or inflate to more than
                `INFLATED_BYTES_MAX`.
        """
        pieces: list[bytes] = []
        room = INFLATED_BYTES_MAX
        for at in range(0, len(data), INFLATED_AT_ONCE_BYTES):
            rest = data[at : at + INFLATED_AT_ONCE_BYTES]
            while rest:
                piece, rest = self._step(rest, room)
                pieces.append(piece)
                room -= len(piece)
        return b"".join(pieces)

    def _step(self, data: bytes, room: int) -> tuple[bytes, bytes]:
        """Inflate up to the end of the present member; return the piece and the bytes after it."""
        if self._stream is None:
            data = self._start + data
            self._start = b""
            if len(data) < _HEADER_BYTES:
                self._start = data
                return b"", b""
            if self._has_member and not data.startswith(_GZIP):
                self._is_over = True  # padding after the last member; gzip ignores it as well
            if self._is_over:
                return b"", b""
            self._stream = self._open(data[:_HEADER_BYTES])
        try:
            # One byte more than allowed: zlib reads a limit of 0 as no limit.
            piece = self._stream.decompress(data, room + 1)
        except zlib.error as exc:
            raise InflateError(f"the answer is not {self._coding}: {exc}") from exc
        if len(piece) > room:
            raise InflateError("the compressed answer inflates too much")
        rest = self._stream.unused_data
        if self._stream.eof:
            self._stream, self._has_member = None, True
        return piece, rest

    def _open(self, header: bytes) -> zlib._Decompress:
        if header == _GZIP:
            return zlib.decompressobj(zlib.MAX_WBITS | 16)
        # RFC 1950, 2.2: the method 8 with a window of at most 32 KiB; both bytes divide by 31.
        is_zlib = header[0] & 0x8F == 8 and int.from_bytes(header) % 31 == 0
        if self._coding == "deflate" and not is_zlib:
            return zlib.decompressobj(-zlib.MAX_WBITS)
        return zlib.decompressobj(zlib.MAX_WBITS)
