"""Undoes the `Content-Encoding` of a request body, within the bound of the body itself.

A few kilobytes can stand for gigabytes. So never more than the bound plus one byte is decompressed.
`deflate` is read with and without its zlib header, as clients send both. Pure; the caller bounds
the compressed bytes. Source: RFC 9110, 8.4; RFC 1950 to 1952.
"""

from __future__ import annotations

import zlib

from api.errors import request_error
from shared.errors import RequestError

GZIP, ZLIB, RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS  # zlib's `wbits`
CODINGS = {"gzip": GZIP, "x-gzip": GZIP, "deflate": ZLIB}
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


def decode_body(raw: bytes, coding: str, *, bytes_max: int) -> bytes:
    """Return the decompressed body; it has at most `bytes_max + 1` bytes.

    A longer body is cut there, so that the caller refuses it by its length.

    Args:
        coding: a result of `check_coding`.

    Raises:
        RequestError: 400 `invalid_http`, the bytes are not of this coding, or they are incomplete.
    """
    if not coding:
        return raw
    wbits = CODINGS[coding]
    if wbits == ZLIB and not _has_zlib_header(raw):
        wbits = RAW
    pieces: list[bytes] = []
    left, rest = bytes_max + 1, raw
    try:
        for _ in range(MEMBERS_MAX):
            decoder = zlib.decompressobj(wbits)
            piece = decoder.decompress(rest, left)
            pieces.append(piece)
            left -= len(piece)
            if left <= 0:
                return b"".join(pieces)
            if not decoder.eof:
                raise _broken(coding)
            rest = decoder.unused_data
            if not rest:
                return b"".join(pieces)
            if wbits != GZIP:
                break
    except zlib.error:
        raise _broken(coding) from None
    raise _broken(coding)


def _has_zlib_header(raw: bytes) -> bool:
    """Whether the bytes begin with a header of RFC 1950: method 8, and a multiple of 31."""
    return len(raw) > 1 and raw[0] & 0x0F == 8 and int.from_bytes(raw[:2]) % 31 == 0


def _broken(coding: str) -> RequestError:
    return request_error("invalid_http", f"the body is not complete {coding} data")
