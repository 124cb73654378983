"""Tells a closing summary from a piece of text: some servers end by sending the whole text again.

A summary comes as `message`, or as a `delta` in or after the chunk with the finish reason. Of a
summary only the text that has not arrived yet is new. Pure.
"""

from __future__ import annotations

from io import StringIO


class TextSoFar:
    """One text of an answer so far.

    Attributes:
        add: adds a piece that is not the first. It is the buffer's own method, because every token
            passes it; a list of the pieces would cost three times as much.
    """

    __slots__ = ("_buffer", "_first_chars", "add")

    def __init__(self) -> None:
        self._buffer = StringIO()
        self._first_chars = 0
        self.add = self._buffer.write

    def __bool__(self) -> bool:
        return self._buffer.tell() > 0

    def add_any(self, text: str) -> None:
        """Add a piece, also the first one."""
        if not self:
            self._first_chars = len(text)
        self.add(text)

    def new_part(self, text: str, *, is_message: bool, is_closing: bool) -> str:
        """Return what `text` adds to the answer.

        Args:
            is_message: the server says that `text` is whole. A text that differs from the pieces is
                dropped: readers already have the pieces.
            is_closing: the finish reason is here. A delta that equals at least two pieces is a
                summary; one that equals a single piece may be a repeated word.
        """
        if not self or not (is_message or is_closing):
            return text
        so_far = self._buffer.getvalue()
        if is_message:
            return text[len(so_far) :] if text.startswith(so_far) else ""
        has_several = len(so_far) > self._first_chars
        is_summary = has_several and text.startswith(so_far)
        return text[len(so_far) :] if is_summary else text
