r"""Live frames: what the append script publishes, read back.

    <id of the entry before the first one> LF <id> SP <json> LF <id> SP <json> …
    top SP <id>                         a heal or a close from elsewhere: "the top is now this"

Invariant: a `Frame` is a chain. Its entries follow one another without a hole, so whoever has the
entry that `prev` names may append all of them. Does no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.log.ids import EventId, parse_event_id

Entry = tuple[EventId, bytes]


class FrameInvalid(ValueError):
    """Not a frame that this version can read; treat it as a frame that was lost."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Entries in order, and the id of the entry before the first one."""

    prev: EventId
    entries: tuple[Entry, ...]
    size: int  # bytes, as it came


@dataclass(frozen=True, slots=True)
class Notice:
    """The top of the log is now `top`; its entries have to be read."""

    top: EventId


def parse_frame(payload: bytes) -> Frame | Notice:
    """Read one message of a live channel.

    Raises:
        FrameInvalid: a layout that is not one of the two above, or a chain with a hole.
    """
    try:
        if payload.startswith(b"top "):
            return Notice(parse_event_id(payload[4:].strip()))
        head, _, rest = payload.partition(b"\n")
        prev = parse_event_id(head)
        entries = tuple(_parse_entry(line) for line in rest.split(b"\n") if line)
    except ValueError as exc:
        raise FrameInvalid(str(exc)) from exc
    _check_chain(prev, entries)
    return Frame(prev, entries, len(payload))


def _parse_entry(line: bytes) -> Entry:
    entry_id, _, raw = line.partition(b" ")
    return parse_event_id(entry_id), raw


def _check_chain(prev: EventId, entries: tuple[Entry, ...]) -> None:
    for event_id, raw in entries:
        if event_id.seq != prev.seq + 1 or event_id < prev or not raw:
            raise FrameInvalid(f"{event_id} after {prev}")
        prev = event_id
