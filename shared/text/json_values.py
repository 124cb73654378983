"""Counts the values of a JSON document before it is decoded.

A decoder cannot be interrupted. Its time depends much more on the number of values than on the
number of bytes: a megabyte of `[],` took 0.25 s, a megabyte of `1e300,` took 2.5 s. Each step here
is one pass of C code over the bytes; no Python code runs per byte or per bracket. Pure; knows no
meaning of the JSON. Source: RFC 8259.
"""

from __future__ import annotations

import msgspec

INTEGERS = range(-(2**63), 2**64)  # msgspec can encode these
VALUES_MAX = 50_000  # in one document; a conversation of 5,000 messages has half as many
EXPONENT_VALUES = 100  # a number with an exponent counts as so many values
LONG_DIGITS = 19  # fewer digits always fit into 64 bits
LONG_DIGITS_VALUES = 20  # each `LONG_DIGITS` digits in a row count as so many values

_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_SPACE = b" \t\r\n"
_scan = msgspec.json.Decoder(msgspec.Raw).decode


def without_strings(raw: bytes) -> bytes | None:
    """Remove strings and spaces from JSON; None: there are too many strings.

    For bytes that are not JSON the result is correct up to the first error, where a decoder stops.
    """
    if b"\\" in raw:
        raw = raw.replace(rb"\\", b"").replace(rb"\"", b"")
    # Each value may be a string and have a name, with two quotes each.
    if raw.count(b'"') > 4 * VALUES_MAX:
        return None
    return b"".join(raw.split(b'"')[::2]).translate(None, _SPACE)


def count_values(bare: bytes) -> int:
    """Count the values in the output of `without_strings`, with a higher weight for slow numbers.

    Each value follows one of `[{,:`. A number above 1e289 or below 1e-291 takes a decoder 10 us,
    200 times as long as any other number; without an exponent it has as many digits. Long
    integers are checked one by one later (api/intake/strict_json.py).
    """
    count = count_brackets(bare)
    if count > VALUES_MAX:
        return count
    words = bare.replace(b"true", b"").replace(b"false", b"")
    exponents = words.count(b"e") + words.count(b"E")
    return count + EXPONENT_VALUES * exponents + LONG_DIGITS_VALUES * long_runs(bare)


def count_brackets(bare: bytes) -> int:
    """Count the bytes `[{,:`, one before each value."""
    return sum(map(bare.count, (b"[", b"{", b",", b":")))


def long_runs(bare: bytes) -> int:
    """Count the runs of `LONG_DIGITS` digits."""
    return bare.translate(_DIGITS).count(b"0" * LONG_DIGITS)


def has_too_many_values(raw: bytes) -> bool:
    """Whether a JSON document has more than `VALUES_MAX` values."""
    bare = without_strings(raw)
    return bare is None or count_values(bare) > VALUES_MAX


def is_json(raw: bytes | str) -> bool:
    """Whether `raw` is one JSON document. Only checks the text, and builds no values."""
    try:
        _scan(raw)
    except (ValueError, RecursionError):
        return False
    return True
