"""People's own streams in Redis: create, append, close, read, delete.

Every change is one script in the slot of the owner, so an append and the state of its producer, a
fork and the count of forks of its source, change together or not at all. Every coroutine may raise
`Unavailable`: Redis did not answer in time; the call may have happened. A repeated append without a
producer id appends twice; all other calls may be repeated.

`owner` is the digest of an owner in all arguments (`owner_of`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shared.config.settings import Settings
from shared.redis import stream_keys
from shared.redis.client import Client, translated
from shared.redis.keys import digest_of
from shared.redis.pipeline import Pipeline
from shared.redis.scripts import Scripts
from shared.streams.place import ZERO, Place, digest, parse_place
from shared.streams.record import (
    Entry,
    Outcome,
    Segment,
    StreamInfo,
    decode_parents,
    encode_lineage,
    encode_parents,
    parse_entries,
    parse_info,
)

PRODUCERS_MAX = 1_000  # of one stream
PRODUCER_KEPT_S = 7 * 86_400.0  # a silent producer may be forgotten after this, when there are many
FRAME_BYTES_MAX = 65_536  # longer entries are not published; the nodes read them
ENTRIES_AT_ONCE = 2_000  # of one read


def owner_of(name: str) -> str:
    """Return the digest that stands for an owner in keys."""
    return digest_of(name)


class Producer(NamedTuple):
    """The three headers of an idempotent producer."""

    id: str
    epoch: int
    seq: int


class ForkPoint(NamedTuple):
    """Where a fork begins: the source as it was read, and the place in it."""

    source: StreamInfo
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class NewStream:
    """A stream to create.

    Attributes:
        content_type: empty: that of the source.
        ttl_s, expires_at: as they were given; empty: none.
        expires_ms: the time that `expires_at` names.
        data: the first entry, as it is stored; empty: none.
        source: the stream to fork; empty: none.
        fork: the place of the fork as it was given; None: the tail of the source.
        fork_point: what `find_fork_point` has found; None: no fork.
        sub_offset: how much of the entry behind the fork point is taken: values of JSON, or bytes.
        prefix: that much of the entry, as it is stored.
    """

    content_type: str = ""
    media: str = ""
    ttl_s: str = ""
    expires_at: str = ""
    expires_ms: int = 0
    is_closed: bool = False
    data: bytes = b""
    source: str = ""
    fork: Place | None = None
    fork_point: ForkPoint | None = None
    sub_offset: int = 0
    prefix: bytes = b""


class Reading(NamedTuple):
    """The reply to a read.

    Attributes:
        state: `live`, `gone` (deleted, but forks read it), `absent`, or `lost`: the stream does not
            have the bytes that the place names, or not those behind it any more.
        info: None unless the stream is live.
        after: the place behind the entries.
    """

    state: str
    info: StreamInfo | None = None
    entries: Sequence[Entry] = ()
    after: Place = ZERO

    @property
    def is_at_tail(self) -> bool:
        return self.info is not None and self.after == self.info.tail


class StreamStore:
    """The streams of all owners on one Redis."""

    def __init__(self, redis: Client, settings: Settings, pipeline: Pipeline | None = None) -> None:
        self.redis = redis
        self.settings = settings
        self.scripts = Scripts(redis, pipeline)
        self._idle_ms = settings.stream_idle_days * 86_400_000

    @staticmethod
    def channel(owner: str, path: str) -> bytes:
        """Return the live channel of a stream."""
        return stream_keys.live(owner, path).encode()

    # Reading

    async def look(self, owner: str, path: str, *, is_use: bool = False) -> Reading:
        """Return what a stream is, without entries.

        Args:
            is_use: the stream is being used, which moves the end of its life.
        """
        return await self._read(owner, path, None, bytes_max=1, is_use=is_use)

    async def read(self, owner: str, path: str, place: Place, *, bytes_max: int) -> Reading:
        """Return entries behind `place`, at least one if there is one.

        Place zero names the first entry that the stream still has.

        Args:
            bytes_max: of all entries, unless the first one alone is longer.
        """
        reading = await self._read(owner, path, place, bytes_max=bytes_max, is_use=True)
        info = reading.info
        if info is None:
            return reading
        entries = list(reading.entries)
        fork_place = info.fork_place
        if fork_place is not None and place.end < fork_place.end:
            entries = await self._inherited(owner, info.lineage, place, bytes_max)
            size = sum(len(entry.data) for entry in entries)
            if entries and entries[-1].after == fork_place and size < bytes_max:
                more = await self._read(
                    owner, path, fork_place, bytes_max=bytes_max - size, is_use=False
                )
                if more.info is None:
                    return more
                info = more.info
                entries += more.entries
        after = entries[-1].after if entries else place
        if not _is_unbroken(place, entries) or (not entries and place != info.tail):
            return Reading("lost", info)
        return Reading("live", info, entries, after)

    async def _read(
        self, owner: str, path: str, place: Place | None, *, bytes_max: int, is_use: bool
    ) -> Reading:
        keys = [
            stream_keys.meta(owner, path),
            stream_keys.names(owner),
            stream_keys.entries(owner, path),
        ]
        after = "" if place is None else str(place)
        args = ["1" if is_use else "", self._idle_ms, after, bytes_max, ENTRIES_AT_ONCE]
        state, *rest = await self.scripts.run("stream_read", keys, args)
        if state != b"live":
            return Reading(state.decode())
        fields, found = rest
        return Reading("live", parse_info(fields), parse_entries(found))

    async def _inherited(
        self, owner: str, lineage: Sequence[Segment], place: Place, bytes_max: int
    ) -> list[Entry]:
        """Return entries behind `place` that stand in the logs of other streams."""
        entries: list[Entry] = []
        size = 0
        for path, end in lineage:
            last = entries[-1].after if entries else place
            if last.end >= end.end:
                continue
            key, start = stream_keys.entries(owner, path), f"({last.entry_id}"
            up_to = min(end.end, last.end + bytes_max - size)
            with translated():
                found = await self.redis.xrange(key, start, str(up_to), count=ENTRIES_AT_ONCE)
                if not found and not entries:
                    found = await self.redis.xrange(key, start, str(end.end), count=1)
                more = [_entry(name, fields) for name, fields in found]
            entries += more
            size += sum(len(entry.data) for entry in more)
            if not entries or entries[-1].after != end or size >= bytes_max:
                break
        return entries

    async def has_place(self, owner: str, path: str, info: StreamInfo, place: Place) -> bool:
        """Whether `place` is one of this stream: zero, its tail, or the end of an entry."""
        if place in (ZERO, info.tail):
            return True
        log = path
        for segment in info.lineage:
            if place.end <= segment.end.end:
                log = segment.path
                break
        key, name = stream_keys.entries(owner, log), place.entry_id
        with translated():
            return bool(await self.redis.xrange(key, name, name, count=1))

    # Changing

    async def create(self, owner: str, path: str, new: NewStream) -> Outcome:
        """Create a stream, unless it exists. stream_create.lua has the outcomes.

        The digest of the owner is noted first, so that no stream stays for ever after a crash.
        """
        point, source = new.fork_point, new.source or path
        lineage = encode_lineage(lineage_of(new.source, point)) if point else ""
        parents = encode_parents((new.source, *point.source.parents)) if point else ""
        seen = encode_lineage(point.source.lineage) if point and point.source.parents else ""
        keys = [
            stream_keys.meta(owner, path), stream_keys.entries(owner, path),
            stream_keys.names(owner), stream_keys.sums(owner), stream_keys.meta(owner, source),
            stream_keys.tails(owner), stream_keys.subscriptions(owner),
        ]  # fmt: skip
        args = [
            path, new.content_type, new.media, new.ttl_s, new.expires_at, new.expires_ms,
            _flag(new.is_closed), new.data, digest(new.data), new.source,
            str(new.fork or ""), str(point.place) if point else "", new.sub_offset, new.prefix,
            digest(new.prefix), parents, lineage, seen,
            self.settings.streams_max, self.settings.streams_bytes_max, self._idle_ms,
        ]  # fmt: skip
        return _outcome(await self.scripts.run("stream_create", keys, args))

    async def append(
        self,
        owner: str,
        path: str,
        data: bytes,
        *,
        media: str = "",
        closes: bool = False,
        stream_seq: str | None = None,
        producer: Producer | None = None,
    ) -> Outcome:
        """Append one entry, close the stream, or both. stream_append.lua has the outcomes.

        Args:
            data: as it is stored; empty: only close.
            media: the media type of the request.
            stream_seq: the header `Stream-Seq`.
        """
        settings = self.settings
        id_, epoch, seq = producer or ("", "", "")
        keys = [
            stream_keys.meta(owner, path), stream_keys.entries(owner, path),
            stream_keys.producers(owner, path), stream_keys.names(owner), stream_keys.sums(owner),
            stream_keys.tails(owner), stream_keys.subscriptions(owner),
        ]  # fmt: skip
        args = [
            media, data, digest(data), _flag(closes), stream_keys.live(owner, path),
            "" if stream_seq is None else "1" + stream_seq, id_, epoch, seq,
            settings.stream_bytes_max, settings.stream_entries_max, settings.streams_bytes_max,
            PRODUCERS_MAX, self._idle_ms, FRAME_BYTES_MAX, round(PRODUCER_KEPT_S * 1000),
        ]  # fmt: skip
        return _outcome(await self.scripts.run("stream_append", keys, args))

    async def delete(self, owner: str, path: str, *, only_expired: bool = False) -> str:
        """Delete a stream; return the first word of the outcome of stream_delete.lua.

        `changed` is not among them: then the stream is read again.
        """
        outcome = "changed"
        while outcome == "changed":
            raw = await self._parents(owner, path)
            if raw is None:
                return "absent"
            keys = [stream_keys.names(owner), stream_keys.sums(owner), stream_keys.tails(owner)]
            for name in (path, *decode_parents(raw)):
                keys += [
                    stream_keys.meta(owner, name), stream_keys.entries(owner, name),
                    stream_keys.producers(owner, name),
                ]  # fmt: skip
            args = [_flag(only_expired), raw, stream_keys.live(owner, path)]
            reply = await self.scripts.run("stream_delete", keys, args)
            outcome = reply[0].decode()
        return outcome

    async def _parents(self, owner: str, path: str) -> str | None:
        """Return the parents of a stream as they are stored; None: there is no such stream."""
        with translated():
            key = stream_keys.meta(owner, path)
            raw: bytes | None = await self.redis.hget(key, "parents")  # type: ignore[misc]
        return None if raw is None else raw.decode("utf-8", "surrogateescape")


def lineage_of(source_path: str, point: ForkPoint) -> list[Segment]:
    """Return where the entries of a fork stand, the oldest first. Pure."""
    segments: list[Segment] = []
    if point.place == ZERO:
        return segments
    for segment in (*point.source.lineage, Segment(source_path, point.source.tail)):
        if point.place.end <= segment.end.end:
            return [*segments, Segment(segment.path, point.place)]
        segments.append(segment)
    return segments


def _is_unbroken(place: Place, entries: Sequence[Entry]) -> bool:
    """Whether each entry begins where the one before it ends."""
    last = entries[0].before if entries and place == ZERO else place
    for entry in entries:
        if entry.before != last:
            return False
        last = entry.after
    return True


def _outcome(reply: Sequence[bytes]) -> Outcome:
    kind, *rest = (part.decode("utf-8", "surrogateescape") for part in reply)
    tail = parse_place(rest[0]) if rest else None
    if tail is None:
        return Outcome(kind, detail=rest[0] if rest else "")
    is_closed, details = "1" in rest[1:2], rest[2:]
    has_count = kind in ("ok", "created", "exists")
    count = int(details.pop()) if has_count else 0
    return Outcome(kind, tail, is_closed, details[0] if details else "", count)


def _entry(name: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    """Return an entry as redis-py reads it: with its fields by name."""
    return parse_entries([(name, (b"d", fields[b"d"], b"p", fields[b"p"]))])[0]


def _flag(value: bool) -> str:
    return "1" if value else ""
