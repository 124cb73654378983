"""Places in a stream: the offsets of Durable Streams.

    0000000000000042_0519823405172345
    end: bytes before │ tag: 52 bits of a digest of all entries before the place

A place is a text whose order is the order of the stream. The tag follows from the tag before it and
from the bytes of the entry, so a place names what stands before it: after a loss the stream has
other tags, and a place that was lost is not taken for another one. Where the same entries are
written again, they get the same places. Place zero stands before every stream.
shared/redis/scripts/stream_prelude.lua computes the same. Pure.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

DIGITS = 16
_FORM = re.compile(r"[0-9]{16}_[0-9]{16}", re.ASCII)
TAG_MAX = 2**52


class Place(NamedTuple):
    """A place between two entries.

    Attributes:
        end: bytes of the stream before it.
        tag: of the entries before it.
    """

    end: int
    tag: int

    def __str__(self) -> str:
        return f"{self.end:0{DIGITS}d}_{self.tag:0{DIGITS}d}"

    @property
    def entry_id(self) -> str:
        """The id of the entry that ends here, in the Redis stream."""
        return f"{self.end}-{self.tag}"


ZERO = Place(0, 0)


def parse_place(text: str) -> Place | None:
    """Return the place of an offset; None: it is not of the form."""
    if _FORM.fullmatch(text) is None:
        return None
    return Place(int(text[:DIGITS]), int(text[DIGITS + 1 :]))


def place_of_entry(entry_id: bytes) -> Place:
    """Return the place after an entry of a Redis stream."""
    end, _, tag = entry_id.partition(b"-")
    return Place(int(end), int(tag))


def digest(data: bytes) -> str:
    """Return the digest of an entry's bytes from which its tag follows."""
    return hashlib.sha256(data).hexdigest() if data else ""


def after(place: Place, data: bytes) -> Place:
    """Return the place after an entry with these bytes that begins at `place`."""
    chained = hashlib.sha1(f"{place}{digest(data)}".encode(), usedforsecurity=False).hexdigest()
    return Place(place.end + len(data), int(chained[:13], 16))
