"""CRCs of joined strings, against zlib."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from api.compression.crc32 import shift_crc32


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_the_crc_of_joined_strings_follows_from_their_crcs(first: bytes, second: bytes) -> None:
    joined = shift_crc32(zlib.crc32(first), len(second)) ^ zlib.crc32(second)
    assert joined == zlib.crc32(first + second)


def test_lengths_above_four_gigabytes_are_possible() -> None:
    zeros = 2**33  # as two shifts in a row: no string of this size is made
    assert shift_crc32(shift_crc32(1, 2**32), 2**32) == shift_crc32(1, zeros)
