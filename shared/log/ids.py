"""Ids and cursors: their form, and how to parse, create and compare them.

A generation id is opaque, URL-safe and unguessable. An event id is `<attempt>-<seq>`, which is the
Redis entry id and also the client's `Last-Event-ID`. This module does no I/O and knows no clock.
Source: docs/protocol.md, "Words".
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import NamedTuple

from shared.errors import CursorInvalid

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, without i, l, o, u
GENERATION_ID = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)
# At most 19 digits, as in Redis entry ids; no leading zero, except in the number 0 itself.
CURSOR = re.compile(r"(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,18})", re.ASCII)
ID_PART_MAX = 2**63 - 1
GENERATION_PREFIX = "gen_"
BATCH_PREFIX = "batch_"


class EventId(NamedTuple):
    """The place of an event in its log; compares as two integers, attempt first."""

    attempt: int
    seq: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.seq}"


START = EventId(0, 0)  # the cursor before the first event


def parse_cursor(text: str) -> EventId:
    """Parse a cursor that a client sent; `0-0` means from the start.

    Raises:
        CursorInvalid: not two decimal numbers of at most 19 digits joined by `-`, or only one of
            them is 0.
    """
    match = CURSOR.fullmatch(text)
    if match is None:
        raise CursorInvalid(text)
    cursor = EventId(int(match[1]), int(match[2]))
    if cursor != START and not (1 <= cursor.attempt and 1 <= cursor.seq):
        raise CursorInvalid(text)
    return cursor


def parse_event_id(entry_id: bytes) -> EventId:
    """Parse an entry id that Redis returned. It needs no check."""
    attempt, _, seq = entry_id.partition(b"-")
    return EventId(int(attempt), int(seq))


def new_generation_id() -> str:
    """Return a new id: 130 random bits, 30 characters."""
    return GENERATION_PREFIX + "".join([ALPHABET[byte & 31] for byte in secrets.token_bytes(26)])


def is_generation_id(text: str) -> bool:
    """Whether `text` has the form of an id; for any other text Redis need not be asked.

    The id of a batch is refused: its log has the same form, but only its own holder may run it.
    """
    return GENERATION_ID.fullmatch(text) is not None and not text.startswith(BATCH_PREFIX)


def new_batch_id() -> str:
    """Return a new id: 130 random bits."""
    return BATCH_PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(26))


def is_batch_id(text: str) -> bool:
    """Whether `text` has the form of a batch id."""
    return GENERATION_ID.fullmatch(text) is not None and text.startswith(BATCH_PREFIX)


def derived_id(prefix: str, *parts: str | int) -> str:
    """Return an id that is a function of `parts`. One part must be as unguessable as an id."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
    number = int.from_bytes(digest[:17], "big")
    return prefix + "".join(ALPHABET[number >> 5 * place & 31] for place in range(26))
