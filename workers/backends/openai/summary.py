"""Tells a closing summary from a piece of text: some servers end by sending the whole text again.

A summary comes as `message`, or as a `delta` in or after the chunk with the finish reason. Of a
summary only the text that has not arrived yet is new. Pure.
"""

from __future__ import annotations


class TextSoFar:
    """One text of an answer: its pieces so far. The hot path appends to `pieces` directly."""

    __slots__ = ("pieces",)

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def new_part(self, text: str, *, is_message: bool, is_closing: bool) -> str:
        """Return what `text` adds to the answer.

        Args:
            is_message: the server says that `text` is whole. A text that differs from the pieces is
                dropped: readers already have the pieces.
            is_closing: the finish reason is here. A delta that equals at least two pieces is a
                summary; one that equals a single piece may be a repeated word.
        """
        if not self.pieces or not (is_message or is_closing):
            return text
        so_far = "".join(self.pieces)
        if is_message:
            return text[len(so_far) :] if text.startswith(so_far) else ""
        is_summary = len(self.pieces) > 1 and text.startswith(so_far)
        return text[len(so_far) :] if is_summary else text
