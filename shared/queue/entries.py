"""The entries of the queue: their content, and a worker's delivery of one. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from shared.redis import keys

ENTRY_VERSION = 1


class LaneEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of a queue entry. `v` lets old and new workers share a queue.

    Attributes:
        away_since_ms: since then its model server does not answer, Redis's clock; 0: unknown.
        breaks: how often the server broke off this answer without a counted failure.
        owner: digest of the owner whose turn the entry is (shared/queue/turns.py); "": no turn.
    """

    v: int
    id: str
    priority: str
    model: str
    away_since_ms: int = 0
    breaks: int = 0
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A queue entry that a worker received.

    Attributes:
        ticket: the content; None: this version cannot read it, leave it for other workers.
        is_claimed: taken over from a silent consumer, not read as a new entry.
        tag: of its partition.
    """

    lane: str
    entry_id: bytes
    ticket: LaneEntry | None
    is_claimed: bool = False
    tag: str = keys.QUEUE

    @property
    def stream(self) -> str:
        return keys.lane(self.lane, self.tag)


_tickets = msgspec.json.Decoder(LaneEntry)


def encode_entry(generation_id: str, priority: str, model: str, owner: str = "") -> bytes:
    """Return the content of a queue entry in this version."""
    ticket = LaneEntry(ENTRY_VERSION, generation_id, priority, model, owner=owner)
    return msgspec.json.encode(ticket)


def decode_entry(raw: bytes) -> LaneEntry | None:
    """Decode the content of an entry; None: another version or form."""
    try:
        ticket = _tickets.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return ticket if ticket.v == ENTRY_VERSION else None
