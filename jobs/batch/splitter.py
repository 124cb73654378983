"""A file's bytes as lines: numbered, placed, and none longer than may be kept. Pure.

Invariant: whatever the pieces are cut into, the lines come out the same.
"""

from __future__ import annotations

from typing import NamedTuple


class InputLine(NamedTuple):
    """One line that is not blank, without its end.

    Attributes:
        number: from 1; blank lines count.
        after: where the next line begins, bytes.
        raw: None: it is too long.
    """

    number: int
    offset: int
    after: int
    raw: bytes | None

    @property
    def length(self) -> int:
        return self.after - self.offset


class LineSplitter:
    """Cuts pieces into lines.

    Args:
        line: how many lines came before.
        offset: where in the file the first piece begins.
        bytes_max: a longer line is not kept.
    """

    def __init__(self, *, line: int = 0, offset: int = 0, bytes_max: int) -> None:
        self.line = line
        self.offset = offset  # where the line that is not complete yet begins
        self._bytes_max = bytes_max
        self._begun = bytearray()
        self._skipped = 0  # bytes of a line that is too long already

    def feed(self, piece: bytes) -> list[InputLine]:
        """Take the next bytes; returns the lines that they complete."""
        *ends, rest = piece.split(b"\n")
        found = [line for end in ends if (line := self._complete(end, 1)) is not None]
        self._keep(rest)
        return found

    def close(self) -> list[InputLine]:
        """Take the end of the file, which may be that of a line, too."""
        if not self._begun and not self._skipped:
            return []
        line = self._complete(b"", 0)
        return [line] if line is not None else []

    def _keep(self, rest: bytes) -> None:
        self._begun += rest
        if self._skipped or len(self._begun) > self._bytes_max + 1:  # the one may be CR
            self._skipped += len(self._begun)
            self._begun.clear()

    def _complete(self, end: bytes, break_bytes: int) -> InputLine | None:
        raw = bytes(self._begun) + end if self._begun else end
        after = self.offset + self._skipped + len(raw) + break_bytes
        is_long = bool(self._skipped) or len(raw.rstrip(b"\r")) > self._bytes_max
        self.line += 1
        line = InputLine(self.line, self.offset, after, None if is_long else raw.strip())
        self.offset, self._skipped = after, 0
        self._begun.clear()
        return line if line.raw is None or line.raw else None
