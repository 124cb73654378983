"""Splits a stream of JSON documents, one on each line: bytes in, lines out.

Invariant: the same bytes give the same lines, however they are cut. Empty lines are left out. Does
no I/O, knows no clock and no JSON.
"""

from __future__ import annotations


class NdjsonLines:
    """Splits one stream.

    Args:
        line_bytes_max: limit of one line, bytes.

    Attributes:
        is_too_long: the limit was exceeded; later bytes are ignored.
    """

    __slots__ = ("_max", "_part", "_part_bytes", "is_too_long")

    def __init__(self, line_bytes_max: int) -> None:
        self.is_too_long = False
        self._max = line_bytes_max
        self._part: list[bytes] = []  # pieces of the incomplete last line; joined only once
        self._part_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes, without white space around them."""
        if self.is_too_long:
            return []
        *lines, rest = data.split(b"\n")
        if lines and self._part:
            lines[0] = self._take_part(lines[0])
        if rest:
            self._part.append(rest)
            self._part_bytes += len(rest)
        found: list[bytes] = []
        for line in lines:
            if len(line) > self._max:
                self.is_too_long = True
                return found
            if line := line.strip():
                found.append(line)
        self.is_too_long = self._part_bytes > self._max
        return found

    def feed_eof(self) -> list[bytes]:
        """Return the last line if no line end has closed it."""
        line = b"" if self.is_too_long else self._take_part(b"").strip()
        return [line] if line else []

    def _take_part(self, tail: bytes) -> bytes:
        line = b"".join((*self._part, tail))
        self._part.clear()
        self._part_bytes = 0
        return line
