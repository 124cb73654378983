"""How many values JSON has, counted before it is decoded.

A decoder cannot be interrupted, and the time that it takes depends on the number of values far more
than on the number of bytes: a megabyte of `[],` took a quarter of a second, one of `1e300,` took
two and a half. Everything here is one pass of C over the bytes; nothing is done in Python once per
byte or once per bracket. Pure; knows nothing of what the JSON means. Source: RFC 8259.
"""

from __future__ import annotations

VALUES_MAX = 50_000  # of a document; a conversation of 5,000 messages has half as many
EXPONENT_VALUES = 100  # what an exponent counts for
DIGITS_LONG = 19  # fewer always fit 64 bits
DIGITS_VALUES = 20  # what so many digits in a row count for

_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_SPACE = b" \t\r\n"


def without_strings(raw: bytes) -> bytes | None:
    """Return what stands outside of strings, without spaces; None: there are too many strings.

    Of bytes that are no JSON it is right up to the first error, and no decoder comes further.
    """
    if b"\\" in raw:
        raw = raw.replace(rb"\\", b"").replace(rb"\"", b"")
    # Each value may be a string, and have a name that is one.
    if raw.count(b'"') > 4 * VALUES_MAX:
        return None
    return b"".join(raw.split(b'"')[::2]).translate(None, _SPACE)


def count_values(bare: bytes) -> int:
    """Count the values of what `without_strings` returned, and weigh slow numbers.

    A value is told by what stands before it. A number beyond 1e289 or below 1e-291 takes a decoder
    10 us, two hundred times as long as any other; written without an exponent it has as many
    digits. Long integers are looked at one by one afterwards.
    """
    count = sum(map(bare.count, (b"[", b"{", b",", b":")))
    if count > VALUES_MAX:
        return count
    words = bare.replace(b"true", b"").replace(b"false", b"")
    exponents = words.count(b"e") + words.count(b"E")
    return count + EXPONENT_VALUES * exponents + DIGITS_VALUES * long_runs(bare)


def long_runs(bare: bytes) -> int:
    """Count how often `DIGITS_LONG` digits stand in a row."""
    return bare.translate(_DIGITS).count(b"0" * DIGITS_LONG)


def has_too_many_values(raw: bytes) -> bool:
    """Whether JSON has more values than may be decoded at once."""
    bare = without_strings(raw)
    return bare is None or count_values(bare) > VALUES_MAX
