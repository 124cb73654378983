"""Splits the bytes of a file into lines with number and offset, of bounded length. Pure.

A byte order mark at the start of the file is no part of the first line. Invariant: the lines do not
depend on the borders between the pieces.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from typing import NamedTuple


class InputLine(NamedTuple):
    """One line that is not blank.

    Attributes:
        number: from 1; blank lines count.
        offset: the byte where it begins.
        after: the byte where the next line begins.
        raw: its bytes without line end and outer spaces; None: the line is too long.
    """

    number: int
    offset: int
    after: int
    raw: bytes | None

    @property
    def length(self) -> int:
        return self.after - self.offset


class LineSplitter:
    """Splits pieces into lines.

    Args:
        line: the number of lines before the first piece.
        offset: the byte of the file where the first piece begins.
        bytes_max: the content of a longer line is dropped.
    """

    def __init__(self, *, line: int = 0, offset: int = 0, bytes_max: int) -> None:
        self.line = line
        self.offset = offset  # where the present, incomplete line begins
        self._bytes_max = bytes_max
        self._begun = bytearray()
        self._skipped = 0  # dropped bytes of the present line, which is too long

    def feed(self, piece: bytes) -> list[InputLine]:
        """Take the next piece, and return the lines that it completes."""
        *ends, rest = piece.split(b"\n")
        found = [line for end in ends if (line := self._complete(end, 1)) is not None]
        self._keep(rest)
        return found

    def close(self) -> list[InputLine]:
        """Take the end of the file, and return the last line if it has no line end."""
        if not self._begun and not self._skipped:
            return []
        line = self._complete(b"", 0)
        return [line] if line is not None else []

    def _keep(self, rest: bytes) -> None:
        self._begun += rest
        if self._skipped or len(self._begun) > self._bytes_max + 1:  # the 1 is for a CR
            self._skipped += len(self._begun)
            self._begun.clear()

    def _complete(self, end: bytes, break_bytes: int) -> InputLine | None:
        raw = bytes(self._begun) + end if self._begun else end
        after = self.offset + self._skipped + len(raw) + break_bytes
        is_long = bool(self._skipped) or len(raw.rstrip(b"\r")) > self._bytes_max
        self.line += 1
        begin = self.offset
        if begin == 0 and not is_long and raw.startswith(BOM_UTF8):  # `fetch` reads by the offset
            begin, raw = len(BOM_UTF8), raw[len(BOM_UTF8) :]
        line = InputLine(self.line, begin, after, None if is_long else raw.strip())
        self.offset, self._skipped = after, 0
        self._begun.clear()
        return line if line.raw is None or line.raw else None
