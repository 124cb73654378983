"""The runs of tokens in a copy: any stretch of one is a slice of text, whoever asks for it.

Piece borders mean nothing, so a reader that is behind is given a run in one event, under the id of
its last entry. After a node has died its readers come back from a thousand different places; for
each of them this is one cut and not a walk through the log. Only plain tokens are joined, without
decoding: JSON strings concatenate.

Invariant: what `piece` returns for consecutive places is the log, each entry once and in order.
Built when first asked for and bounded per call; anew when the copy was rewritten.
Knows no dialect and no reader. Source: docs/protocol.md, "Events".
"""

from __future__ import annotations

import bisect
import re
from array import array

from api.hub.feed import Feed
from shared.log.event_bytes import TOKEN_PREFIX, TOKEN_SUFFIX
from shared.text.large import FOLD_BYTES_MAX

# The text of an entry that says nothing else. A lone `"` ends it, an escaped one does not.
PLAIN = re.compile(rb'\{"type":"token","text":"((?:[^"\\]|\\.)*+)"\}', re.DOTALL)
ENTRIES_MAX = 1_000  # looked at in one call: about a millisecond


class TokenRuns:
    """The runs of one copy."""

    __slots__ = ("_base", "_breaks", "_ends", "_epoch", "_feed", "_text")

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.forget()

    def forget(self) -> None:
        """Let go of everything; what is asked for is looked at again."""
        self._epoch = self._feed.epoch
        self._base = self._feed.base  # the entries after this one are looked at
        self._text = bytearray()
        self._ends = array("Q", [0])  # where the text of entry base + n ends
        self._breaks: list[int] = []  # the seqs of what is no plain token

    @property
    def bytes_kept(self) -> int:
        return len(self._text) + self._ends.itemsize * (len(self._ends) + len(self._breaks))

    def look(self) -> None:
        """Look at what is new, up to the bound of one call; what was not seen yet is not joined."""
        feed = self._feed
        if self._epoch != feed.epoch or self._base > feed.base:
            self.forget()
        first = self._seen - feed.base
        if first < 0:  # what is missing was trimmed, unseen
            self.forget()
            first = 0
        looked = 0
        for seq, raw in enumerate(feed.raws[first : first + ENTRIES_MAX], self._seen + 1):
            plain = PLAIN.fullmatch(raw)
            if plain is None:
                self._breaks.append(seq)
            else:
                self._text += plain[1]
            self._ends.append(len(self._text))
            looked += len(raw)
            if looked > FOLD_BYTES_MAX:
                break

    @property
    def _seen(self) -> int:
        return self._base + len(self._ends) - 1

    def piece(self, seq: int, *, stop: int, bytes_max: int) -> tuple[bytes, int]:
        """Return what follows entry `seq` as one entry, and the seq of the last one in it.

        Args:
            seq: before the newest entry, and not before the feed's base; `look` was called.
            stop: nothing after this entry is in it; above `seq`.
            bytes_max: of joined text; one entry is returned at least.
        """
        base, ends, breaks = self._base, self._ends, self._breaks
        next_break = bisect.bisect_right(breaks, seq)
        end = min(stop, breaks[next_break] - 1 if next_break < len(breaks) else self._seen)
        if end > seq + 1:
            begin = ends[seq - base]
            if ends[end - base] - begin > bytes_max:
                end = bisect.bisect_right(ends, begin + bytes_max) - 1 + base
        if end <= seq + 1:
            return self._feed.raws[seq - self._feed.base], seq + 1
        text = self._text[ends[seq - base] : ends[end - base]]
        return b"".join((TOKEN_PREFIX, text, TOKEN_SUFFIX)), end
