"""CRC-32 of joined byte strings, computed from the CRCs of the parts.

The trailer of gzip has the CRC of all bytes of one body. Readers of one log share most of these
bytes, so the CRC of a shared range is computed once and joined to that of each reader.
Source: `crc32_combine` of zlib; polynomials modulo `POLYNOMIAL`, their lowest power in the highest
bit.
"""

from __future__ import annotations

from functools import lru_cache

POLYNOMIAL = 0xEDB88320
ONE = 1 << 31  # the polynomial 1
X8 = 1 << 23  # x to the power of 8: one byte


def shift_crc32(crc: int, count: int) -> int:
    """Return what the CRC `crc` contributes to the CRC of a string that is `count` bytes longer.

    The CRC of two joined strings is that of the first, shifted by the length of the second, XOR
    that of the second.
    """
    return _multiply(_power_of_bytes(count), crc)


@lru_cache(maxsize=256)  # readers that leave a log together have the same counts
def _power_of_bytes(count: int) -> int:
    """Return x to the power of 8 times `count`."""
    power, square = ONE, X8
    while count:
        if count & 1:
            power = _multiply(square, power)
        square = _multiply(square, square)
        count >>= 1
    return power


def _multiply(a: int, b: int) -> int:
    product = 0
    for place in range(31, -1, -1):
        if a >> place & 1:
            product ^= b
        b = b >> 1 ^ POLYNOMIAL if b & 1 else b >> 1
    return product
