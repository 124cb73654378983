"""What the scripts of people's own streams answer, as types. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from shared.streams.place import Place, parse_place, place_of_entry


class Segment(NamedTuple):
    """A part of a fork that stands in the log of another stream: up to and with `end`."""

    path: str
    end: Place


class Entry(NamedTuple):
    """One append, as it was stored.

    Attributes:
        before: the place where it begins.
        after: the place where it ends.
    """

    before: Place
    after: Place
    data: bytes


class StreamInfo(NamedTuple):
    """One stream.

    Attributes:
        content_type: as it was given.
        media: the same without parameters.
        tail: the place where the next append begins.
        start: the place of the first entry in the stream's own log.
        ttl_s: as it was given; empty: none.
        expires_at: as it was given; empty: none.
        parents: the streams from which it was forked, the nearest first.
        lineage: where its inherited entries stand, the oldest first.
        until_ms: when it expires, if it is not used any more.
    """

    content_type: str
    media: str
    tail: Place
    start: Place
    is_closed: bool
    ttl_s: str
    expires_at: str
    parents: tuple[str, ...]
    lineage: tuple[Segment, ...]
    until_ms: int

    @property
    def fork_place(self) -> Place | None:
        """The place up to which the entries are those of other streams; None: it is no fork."""
        return self.lineage[-1].end if self.lineage else None


class Outcome(NamedTuple):
    """The answer of a script that changes a stream.

    Attributes:
        kind: its first word, as the script describes it.
        tail: None: the answer has none.
        subscriptions: of the owner, for one of which this change may be news.
        detail: a further word: a sequence number, an epoch, a content type, the name of a limit.
    """

    kind: str
    tail: Place | None = None
    is_closed: bool = False
    detail: str = ""
    subscriptions: int = 0


def parse_info(fields: Sequence[bytes]) -> StreamInfo:
    """Return a stream from the fields of stream_read.lua."""
    content_type, media, tail, start, closed, ttl, shown, parents, lineage, until = (
        field.decode("utf-8", "surrogateescape") for field in fields
    )
    return StreamInfo(
        content_type, media, read_place(tail), read_place(start), closed == "1", ttl, shown,
        decode_parents(parents), decode_lineage(lineage), int(until),
    )  # fmt: skip


def parse_entries(found: Sequence[Any]) -> list[Entry]:
    """Return the entries of a reply of XRANGE."""
    entries = []
    for entry_id, (_d, data, _p, tag) in found:
        end = place_of_entry(entry_id)
        entries.append(Entry(Place(end.end - len(data), int(tag)), end, data))
    return entries


def read_place(text: str) -> Place:
    place = parse_place(text)
    assert place is not None, text
    return place


def encode_parents(parents: Sequence[str]) -> str:
    return msgspec.json.encode(list(parents)).decode()


def decode_parents(text: str) -> tuple[str, ...]:
    return tuple(msgspec.json.decode(text, type=list[str])) if text else ()


def encode_lineage(lineage: Sequence[Segment]) -> str:
    return msgspec.json.encode([[path, str(end)] for path, end in lineage]).decode()


def decode_lineage(text: str) -> tuple[Segment, ...]:
    if not text:
        return ()
    rows = msgspec.json.decode(text, type=list[tuple[str, str]])
    return tuple(Segment(path, read_place(end)) for path, end in rows)
