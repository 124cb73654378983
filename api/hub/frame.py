r"""Parse the messages of a live channel: what the append script publishes.

A message is a frame or a top notice:

    1-41 LF 1-42 SP {"type":"token",…} LF 1-43 SP {"type":"end",…}
    ╰─┬─╯   ╰──────────┬─────────────╯    ╰──────────┬───────────╯
    prev: the id    first entry: id, JSON       further entries
    of the entry before the first one

    top SP 1-43         after a restore, or a close from outside: 1-43 is now the top of the log

Invariant: a `LiveFrame` is a chain: its `seq` numbers rise by one and its ids rise. So a copy
whose top is `prev` may append all entries of the frame. Does no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.log.ids import EventId, parse_event_id
from shared.log.records import Entry as Entry


class FrameInvalid(ValueError):
    """This version cannot read the message. The caller treats it like a lost frame."""


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """Consecutive entries of a log.

    Attributes:
        prev: id of the entry before the first one; START if the frame begins the log.
        entries: in log order, without a gap.
        size: bytes of the message.
    """

    prev: EventId
    entries: tuple[Entry, ...]
    size: int


@dataclass(frozen=True, slots=True)
class TopNotice:
    """The top of the log is now `top`. The message does not contain the entries."""

    top: EventId


def parse_frame(payload: bytes) -> LiveFrame | TopNotice:
    """Parse one message of a live channel.

    Raises:
        FrameInvalid: the message has neither of the two layouts, or its entries are not a chain.
    """
    try:
        if payload.startswith(b"top "):
            return TopNotice(parse_event_id(payload[4:].strip()))
        head, _, rest = payload.partition(b"\n")
        prev = parse_event_id(head)
        entries = tuple(_parse_entry(line) for line in rest.split(b"\n") if line)
    except ValueError as exc:
        raise FrameInvalid(str(exc)) from exc
    _check_chain(prev, entries)
    return LiveFrame(prev, entries, len(payload))


def _parse_entry(line: bytes) -> Entry:
    entry_id, _, raw = line.partition(b" ")
    return parse_event_id(entry_id), raw


def _check_chain(prev: EventId, entries: tuple[Entry, ...]) -> None:
    for event_id, raw in entries:
        if event_id.seq != prev.seq + 1 or event_id < prev or not raw:
            raise FrameInvalid(f"{event_id} after {prev}")
        prev = event_id
