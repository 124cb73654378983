r"""Joins characters whose two halves come in two pieces of text: `"\ud83d"` and then `"\ude80"`.

A server that cuts its text by UTF-16 units sends such pieces. A half that stays alone becomes
U+FFFD, at its place. Pure.
"""

from __future__ import annotations

from collections.abc import Hashable

from shared.text.surrogates import join_halves

_HIGH_FIRST, _HIGH_LAST = "\ud800", "\udbff"

CONTENT, REASONING = "content", "reasoning"  # the places of an answer's texts


class HalfPairs:
    """The first halves that wait, one for each text of the answer at most.

    Attributes:
        has_lone: a half stayed alone and was replaced.
    """

    def __init__(self) -> None:
        self._waiting: dict[Hashable, str] = {}
        self.has_lone = False

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def join(self, place: Hashable, text: str) -> str:
        """Return a piece of the text at `place` without lone halves; may be empty."""
        if not self._waiting and text.isascii():
            return text
        text = self._waiting.pop(place, "") + text
        if text and _HIGH_FIRST <= text[-1] <= _HIGH_LAST:
            self._waiting[place] = text[-1]
            text = text[:-1]
        whole = join_halves(text)
        # A joined pair is one character instead of two; a replaced half keeps the number.
        self.has_lone = self.has_lone or whole.count("\ufffd") > text.count("\ufffd")
        return whole

    def release(self, place: Hashable) -> str:
        """Return U+FFFD if a half waits at `place`, because its text has ended; else nothing."""
        if self._waiting.pop(place, None) is None:
            return ""
        self.has_lone = True
        return "\ufffd"
