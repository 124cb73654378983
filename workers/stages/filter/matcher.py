"""Filters one text that arrives in pieces: the answer, or the thoughts, or one tool call. Pure.

What may still become a match is held back, and nothing else. The output has as many characters as
the input, so a server that repeats an answer is compared by its length (workers/takeover/
repetition.py). A match is replaced by a row of mask characters. No match contains a mask character,
so a worker that finds only the masked text in the log goes on with the same results.

    ├─ before ─┼─────── held ───────┤          before: the last visible character, for borders
                 shown ─┤                       shown: left already: the text was interrupted
"""

from __future__ import annotations

from workers.stages.filter.finder_cache import OUTSIDE, Finder, FinderCache
from workers.stages.filter.symbols import INVISIBLE_MAX, is_invisible

PIECE_MAX = 512  # characters in which matches are looked for at once


class Matcher:
    """One text and one finder.

    Args:
        known: what is known of the finder, shared by all texts.
        stops: the text ends before the first match.

    Attributes:
        text: what is held back, with what is `shown`.
        shown: so many characters of `text` have left, because other content interrupted the text.
        is_stopped: a match has ended the text.
    """

    __slots__ = (
        "_before", "_find", "_known", "_mask", "_needs_before", "_pieces", "_places", "_seams",
        "_stops", "is_stopped", "shown", "text",
    )  # fmt: skip

    def __init__(
        self, finder: Finder, mask: str, *, stops: bool, known: FinderCache | None = None
    ) -> None:
        self._find = finder.find
        self._known = known or FinderCache(finder)
        self._pieces, self._seams = self._known.pieces, self._known.seams
        self._places = self._known.places
        self._needs_before = finder.needs_before
        self._mask = mask
        self._stops = stops
        self._before = self.text = ""
        self.shown = 0
        self.is_stopped = False

    @property
    def held(self) -> int:
        """The number of characters that are held back."""
        return len(self.text) - self.shown

    def feed(self, text: str) -> str:
        """Return the text that may leave now."""
        if self.shown:
            return self._search(text)
        held = self.text
        before = place = OUTSIDE
        if self._needs_before:
            before = self._places[self._before]
            place = self._places[held[-1]] if held else before
        # The usual case: the piece has come before, and no match goes on from what is held.
        known = self._pieces[place].get(text)
        if known and not (held and self._seams[before].get(held + text[0]) is not False):
            left, self.text = known
            if held:
                left = held + left
            if self._needs_before and left:
                self._before = left[-1]
            return left
        self._known.learn(text, place)
        if held:
            self._known.learn_seam(held, text[:1], before)
        return self._search(text)

    def _search(self, text: str) -> str:
        """Return the same as `feed`, of a piece that is not known or has a match."""
        if len(text) > PIECE_MAX:
            return self._feed_long(text)
        if self.shown:
            return self._advance(text, is_whole=False)
        before = self._before
        whole = before + self.text + text
        found = self._find(whole, len(before), False)
        at, end = found or (len(whole), len(whole))
        if end < len(whole):
            return self._advance(text, is_whole=False)
        # No match, and perhaps the beginning of a match at the end.
        self.text = whole[at:]
        left = whole[len(before) : at]
        if left and self._needs_before:
            last = left[-1]
            self._before = last if last < "\x80" else _last(before + left)
        return left

    def _feed_long(self, text: str) -> str:
        """Return the same as `feed`, piece by piece: each match copies the text around it."""
        left: list[str] = []
        for at in range(0, len(text), PIECE_MAX):
            left.append(self.feed(text[at : at + PIECE_MAX]))
            if self.is_stopped:
                break
        return "".join(left)

    def interrupt(self) -> str:
        """Return what is held back, because other content follows.

        A match that may still grow is masked as it is. If the text goes on later and completes a
        match that has begun, the rest of this match is masked.
        """
        before, shown = self._before, self.text[: self.shown]
        left = self.flush()
        if not self.is_stopped:
            self._before, self.text, self.shown = before, "", 0
            self.fold(shown + left)
        return left

    def flush(self) -> str:
        """Return what is held back, because the text is whole."""
        return self._advance("", is_whole=True)

    def fold(self, text: str) -> None:
        """Take text that has left in an earlier attempt."""
        for at in range(0, len(text), PIECE_MAX):
            self._advance(text[at : at + PIECE_MAX], is_whole=False)
            self.shown = len(self.text)
        self.is_stopped = False

    def _advance(self, text: str, *, is_whole: bool) -> str:
        text = self._before + self.text + text
        begin = at = len(self._before)
        while (found := self._find(text, at, is_whole)) is not None:
            start, end = found
            if end == len(text) and not is_whole:
                at = start
                break
            if self._stops and end > begin + self.shown:
                self.is_stopped = True
                return self._leave(text[begin:start], "")
            text = text[:start] + self._mask * (end - start) + text[end:]
            at = end
        else:
            at = len(text)
        return self._leave(text[begin:at], text[at:])

    def _leave(self, text: str, held: str) -> str:
        if self._needs_before and text:
            self._before = _last(self._before + text)
        shown = self.shown
        self.shown = max(shown - len(text), 0)
        self.text = held
        return text[shown:]


def _last(text: str) -> str:
    """Return the last visible character, and what is behind it."""
    at = len(text) - 1
    least = at - INVISIBLE_MAX - 1
    while at > 0 and at > least and is_invisible(text[at]):
        at -= 1
    return text[at:]
