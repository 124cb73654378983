"""Ids and cursors: how they look, how they are read, how they compare.

A generation id is opaque, URL-safe and unguessable. An event id is `<attempt>-<seq>`, which is the
Redis entry id and the client's `Last-Event-ID` alike. Does no I/O and knows no clock.
Source: docs/protocol.md, "Words".
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import NamedTuple

from shared.errors import CursorInvalid

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u to misread
GENERATION_ID = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)
# At most 19 digits, as Redis entry ids have; neither part starts with a zero unless it is one.
CURSOR = re.compile(r"(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,18})", re.ASCII)
ID_PART_MAX = 2**63 - 1
BATCH_PREFIX = "batch_"


class EventId(NamedTuple):
    """Where an event stands in its log; compares as two integers."""

    attempt: int
    seq: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.seq}"


START = EventId(0, 0)  # the cursor of a reader that has seen nothing


def parse_cursor(text: str) -> EventId:
    """Read a cursor sent by a client; `0-0` means from the start.

    Raises:
        CursorInvalid: not two decimal numbers of at most 19 digits joined by `-`, or one of them 0.
    """
    match = CURSOR.fullmatch(text)
    if match is None:
        raise CursorInvalid(text)
    cursor = EventId(int(match[1]), int(match[2]))
    if cursor != START and not (1 <= cursor.attempt and 1 <= cursor.seq):
        raise CursorInvalid(text)
    return cursor


def parse_event_id(entry_id: bytes) -> EventId:
    """Read an entry id that Redis gave us: trusted, so only split."""
    attempt, _, seq = entry_id.partition(b"-")
    return EventId(int(attempt), int(seq))


def new_generation_id() -> str:
    """Return a fresh id: 130 random bits, 30 characters."""
    return "gen_" + "".join([ALPHABET[byte & 31] for byte in secrets.token_bytes(26)])


def is_generation_id(text: str) -> bool:
    """Whether `text` could be an id; anything else need not be asked of Redis.

    A batch has a log of the same shape, and is no generation: nobody runs it but its holder.
    """
    return GENERATION_ID.fullmatch(text) is not None and not text.startswith(BATCH_PREFIX)


def new_batch_id() -> str:
    """Return a fresh id: 130 random bits."""
    return BATCH_PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(26))


def is_batch_id(text: str) -> bool:
    """Whether `text` could be a batch's id."""
    return GENERATION_ID.fullmatch(text) is not None and text.startswith(BATCH_PREFIX)


def derived_id(prefix: str, *parts: str | int) -> str:
    """Return an id that is a function of `parts`, one of which is as unguessable as an id."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
    number = int.from_bytes(digest[:17], "big")
    return prefix + "".join(ALPHABET[number >> 5 * place & 31] for place in range(26))
