"""Joins the token entries of a feed, so that a reader that is behind gets many tokens as one event.

The protocol gives the borders between pieces of text no meaning. So a reader that is behind is
given a run of tokens as one event, under the id of the last entry of the run. After the death of a
node its readers come back from a thousand different places, and each catch-up has to be one cut of
a buffer and not a walk through the log:

    seq      1      2      3      4          5      6
    entry    token  token  token  tool_call  token  token
             ╰─────── run ──────╯ break      ╰─ run ────╯
    _text    │Hel   │lo,   │ you  │          │OK    │.     │    JSON string contents, joined
    _ends    0      3      6      10         10     12     13

Only plain tokens are joined, without decoding: the contents of JSON strings can be concatenated.
Invariant: the results of `piece` for consecutive places are the log, each entry once and in order.
Built on demand, bounded per call, and built anew after a rewrite of the log.
Knows no dialect and no reader. Source: docs/protocol.md, "Events".
"""

from __future__ import annotations

import bisect
import re
from array import array

from api.hub.feed import Feed
from shared.log.event_bytes import TOKEN_PREFIX, TOKEN_SUFFIX
from shared.text.large import FOLD_BYTES_MAX

# A token entry with no other members. An unescaped `"` ends the text, an escaped one does not.
PLAIN_TOKEN = re.compile(rb'\{"type":"token","text":"((?:[^"\\]|\\.)*+)"\}', re.DOTALL)
SCAN_ENTRIES_MAX = 1_000  # in one call: about a millisecond


class TokenRuns:
    """The runs of one feed."""

    __slots__ = ("_base", "_breaks", "_ends", "_epoch", "_feed", "_text")

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.clear()

    def clear(self) -> None:
        """Free the memory; `scan` scans the feed again."""
        self._epoch = self._feed.epoch
        self._base = self._feed.base  # scanned are the entries after this one
        self._text = bytearray()
        self._ends = array("Q", [0])  # of entry base + n, in `_text`
        self._breaks: list[int] = []  # `seq` of each entry that is no plain token

    @property
    def bytes_kept(self) -> int:
        """The memory of the runs, bytes, approximately."""
        return len(self._text) + self._ends.itemsize * (len(self._ends) + len(self._breaks))

    def scan(self) -> None:
        """Scan new entries; `join_after` joins scanned entries only.

        One call scans `SCAN_ENTRIES_MAX` entries or about `FOLD_BYTES_MAX` bytes at most.
        """
        feed = self._feed
        if self._epoch != feed.epoch or self._base > feed.base:
            self.clear()
        first = self._scanned_seq - feed.base
        if first < 0:  # the feed has trimmed entries that were not scanned
            self.clear()
            first = 0
        scanned_bytes = 0
        unscanned = feed.raws[first : first + SCAN_ENTRIES_MAX]
        for seq, raw in enumerate(unscanned, self._scanned_seq + 1):
            plain = PLAIN_TOKEN.fullmatch(raw)
            if plain is None:
                self._breaks.append(seq)
            else:
                self._text += plain[1]
            self._ends.append(len(self._text))
            scanned_bytes += len(raw)
            if scanned_bytes > FOLD_BYTES_MAX:
                break

    @property
    def _scanned_seq(self) -> int:
        return self._base + len(self._ends) - 1

    def join_after(self, seq: int, *, stop: int, bytes_max: int) -> tuple[bytes, int]:
        """Return the entries after `seq` joined into one, and the `seq` of the last joined entry.

        Call `scan` first. An entry that cannot be joined is returned alone, as it is.

        Args:
            seq: the feed's `base` at least, and below its `count`.
            stop: `seq` of the last entry that may be joined; above `seq`.
            bytes_max: limit of the joined text, bytes; one entry is returned at least.
        """
        base, ends, breaks = self._base, self._ends, self._breaks
        next_break = bisect.bisect_right(breaks, seq)
        end = min(stop, breaks[next_break] - 1 if next_break < len(breaks) else self._scanned_seq)
        if end > seq + 1:
            begin = ends[seq - base]
            if ends[end - base] - begin > bytes_max:
                end = bisect.bisect_right(ends, begin + bytes_max) - 1 + base
        if end <= seq + 1:
            return self._feed.raws[seq - self._feed.base], seq + 1
        text = self._text[ends[seq - base] : ends[end - base]]
        return b"".join((TOKEN_PREFIX, text, TOKEN_SUFFIX)), end
