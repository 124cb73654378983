"""Undoes the `Content-Encoding` of a request body, within the bound of the body itself.

A few kilobytes can stand for gigabytes. So the bytes are decompressed in pieces, and the caller
stops when they exceed its bound. `deflate` is read with and without its zlib header, as clients
send both. Pure; the caller bounds the compressed bytes. Source: RFC 9110, 8.4; RFC 1950 to 1952.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from api.errors import request_error
from shared.errors import RequestError

GZIP, ZLIB, RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS  # zlib's `wbits`
CODINGS = {"gzip": GZIP, "x-gzip": GZIP, "deflate": ZLIB}
DECODED_BYTES = 262_144  # in one piece; less than 1 ms
MEMBERS_MAX = 100  # gzip members in a row, each of which may be empty


def check_coding(header: str) -> str:
    """Return the coding of a body in lower case; empty: the body is not encoded.

    Raises:
        RequestError: 415, another coding than gzip and deflate, or several.
    """
    coding = header.strip().lower()
    if coding in ("", "identity"):
        return ""
    if coding not in CODINGS:
        raise request_error(
            "unsupported_media_type", "Content-Encoding: send gzip, deflate, or no encoding"
        )
    return coding


class BodyDecoder:
    """Decompresses one body, piece by piece.

    Args:
        coding: a result of `check_coding`; empty: the pieces pass unchanged.
    """

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._wbits = CODINGS.get(coding, 0)
        self._first = b""  # a lone first byte: two bytes tell the two forms of `deflate` apart
        self._decoder: zlib._Decompress | None = None
        self._members = 0
        self._has_bytes = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the bytes that `data` stands for, in pieces of at most `DECODED_BYTES`.

        Raises:
            RequestError: 400 `invalid_http`, the bytes are not of this coding.
        """
        if not self._coding:
            if data:
                yield data
            return
        data, self._first = self._first + data, b""
        if len(data) < 2 and not self._has_bytes:
            self._first = data
            return
        self._has_bytes = True
        while data:
            if self._decoder is None or self._decoder.eof:
                self._decoder = self._next_decoder(data)
            try:
                piece = self._decoder.decompress(data, DECODED_BYTES)
            except zlib.error:
                raise _broken(self._coding) from None
            data = self._decoder.unconsumed_tail or self._decoder.unused_data
            if piece:
                yield piece

    def _next_decoder(self, data: bytes) -> zlib._Decompress:
        if self._decoder is None and self._wbits == ZLIB and not _has_zlib_header(data):
            self._wbits = RAW
        self._members += 1
        if self._members > (MEMBERS_MAX if self._wbits == GZIP else 1):
            raise _broken(self._coding)
        return zlib.decompressobj(self._wbits)

    def finish(self) -> None:
        """Check, after the last piece, that the data is complete.

        Raises:
            RequestError: 400 `invalid_http`, it is not.
        """
        if self._coding and (self._decoder is None or not self._decoder.eof):
            raise _broken(self._coding)


def _has_zlib_header(raw: bytes) -> bool:
    """Whether the bytes begin with a header of RFC 1950: method 8, and a multiple of 31."""
    return len(raw) > 1 and raw[0] & 0x0F == 8 and int.from_bytes(raw[:2]) % 31 == 0


def _broken(coding: str) -> RequestError:
    return request_error("invalid_http", f"the body is not complete {coding} data")
