"""The bytes of one log in all forms that readers of this node have asked for, and their rows.

Each dialect has one encoded log and one group of rows; each dialect in an encoding has one
compressed log, which has a group of its own. Made when first asked for, and kept: readers hold
their log, and wait in its group. Invariant: the fold of a log that has rows needs no trimmed entry,
because rows cannot ask for a refill. Knows no reader.
"""

from __future__ import annotations

from collections.abc import Iterator

from api.compression.encoding import SharedEncoding
from api.hub.broadcast import BroadcastGroup, BroadcastHost
from api.hub.compressed import CompressedLog
from api.hub.encoded import EncodedLog
from api.hub.feed import Feed
from shared.log.fold import Dialect
from shared.log.records import Meta


class EncodedLogs:
    """All encoded logs of one feed.

    Attributes:
        groups: every group of rows.
    """

    def __init__(self, feed: Feed, host: BroadcastHost) -> None:
        self.groups: dict[str, BroadcastGroup] = {}
        self._feed = feed
        self._host = host
        self._logs: dict[str, EncodedLog] = {}
        self._compressed: dict[str, CompressedLog] = {}

    @property
    def bytes_kept(self) -> int:
        """The memory of all logs, bytes, approximately."""
        return sum(log.bytes_kept for log in self._logs.values()) + self.compressed_bytes

    @property
    def compressed_bytes(self) -> int:
        """The part of compressors and their pieces."""
        return sum(log.bytes_kept for log in self._compressed.values())

    def log(self, dialect: Dialect, meta: Meta) -> EncodedLog:
        """Return the log in `dialect`."""
        log = self._logs.get(dialect.name)
        if log is None:
            log = self._logs[dialect.name] = EncodedLog(self._feed, dialect, meta)
        return log

    def group(self, dialect: Dialect, meta: Meta, *, is_chunked: bool) -> BroadcastGroup:
        """Return the rows of `dialect`; `is_chunked` must always be the same for one dialect."""
        group = self.groups.get(dialect.name)
        if group is None:
            log = self.log(dialect, meta)
            group = BroadcastGroup(log, self._feed, self._host, is_chunked=is_chunked)
            self.groups[dialect.name] = group
        return group

    def compressed(self, dialect: Dialect, meta: Meta, encoding: SharedEncoding) -> CompressedLog:
        """Return the log in `dialect` and `encoding`."""
        name = f"{dialect.name} {encoding.name}"
        log = self._compressed.get(name)
        if log is None:
            log = CompressedLog(self.log(dialect, meta), self._feed, self._host, encoding)
            self._compressed[name] = log
            self.groups[name] = log.group
        return log

    def forget_fresh(self) -> None:
        """Free the fresh pieces, because the log has no readers."""
        for log in self._compressed.values():
            log.forget_fresh()

    def needed_after(self) -> Iterator[int]:
        """For each group that has rows, yield the place after which the group needs the entries."""
        for group in self.groups.values():
            if (seq := group.needed_after) is not None:
                yield seq

    def trim(self, target: int) -> None:
        """Free the bytes of the entries up to `target`.

        A log that is not folded so far has no rows, and its other readers ask for a refill. The log
        keeps its fold, so that these readers get on although the next trim may come soon.

        Args:
            target: not above the place of any reader or any value of `needed_after`.
        """
        for log in self._logs.values():
            if log.count >= target:
                log.trim(max(target, log.base))
            elif log.count and log.dialect.state_bytes:
                log.start_again()  # the state of this fold takes more memory than the bytes
            elif log.count:
                log.trim(log.count)
        for group in self.groups.values():
            if group.is_folding:
                group.note_change()  # the rows fold on, so that the next trim frees more

    def erase(self) -> None:
        """Drop all bytes for good, because the feed was emptied."""
        for log in self._logs.values():
            log.erase()
