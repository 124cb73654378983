"""Parses server-sent events: bytes in, (name, data) out.

Invariant: the same bytes give the same events, however they are cut. Lines are split as bytes: in
UTF-8 neither LF nor CR occurs inside another character, so each line holds whole characters.
Does no I/O, knows no clock and no JSON.
Source: WHATWG HTML, "Interpreting an event stream"; `SseLines` knows one more field.
"""

from __future__ import annotations

from typing import NamedTuple

BOM = b"\xef\xbb\xbf"
CR = 13
LF = 10


class SseEvent(NamedTuple):
    """One event: the value of its last `event` field, and its data lines joined by LF."""

    name: bytes
    data: bytes


class SseLines:
    """Parses one event stream.

    Older llama.cpp versions wrote failures as a field `error: {…}`. Such a line becomes an event
    named `error` at once, without a blank line.

    Args:
        line_bytes_max: limit of one line, and of the data of one event, bytes.

    Attributes:
        is_too_long: the limit was exceeded; later bytes are ignored.
    """

    __slots__ = ("_data", "_data_bytes", "_is_first", "_max", "_name", "_part", "_part_bytes",
                 "_skips_lf", "is_too_long")  # fmt: skip

    def __init__(self, line_bytes_max: int) -> None:
        self.is_too_long = False
        self._max = line_bytes_max
        self._part: list[bytes] = []  # pieces of the incomplete last line; joined only once
        self._part_bytes = 0
        self._skips_lf = False  # the last byte was CR: an LF that follows is part of that line end
        self._is_first = True
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._name = b""

    def feed(self, data: bytes) -> list[SseEvent]:
        """Return the events that `data` completes."""
        return [] if self.is_too_long else self._read(self._split(data))

    def is_between_events(self, size: int) -> bool:
        """Whether the next `size` bytes start at an event boundary and are within the limit."""
        is_clean = not (self._part or self._data or self._name or self._skips_lf or self._is_first)
        return is_clean and not self.is_too_long and size <= self._max

    def feed_eof(self) -> list[SseEvent]:
        """Return the last event if no blank line has closed it.

        The standard drops such an event, but some servers omit the last line ends: the caller
        decides.
        """
        if self.is_too_long:
            return []
        return self._read([*self._take_part(b""), b""])

    def _split(self, data: bytes) -> list[bytes]:
        """Return the complete lines; keep the rest."""
        if self._skips_lf and data:
            self._skips_lf = False
            if data[0] == LF:
                data = data[1:]
        if b"\r" in data:
            self._skips_lf = data[-1] == CR
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._part:
            lines[:1] = self._take_part(lines[0])
        if rest:
            self._part.append(rest)
            self._part_bytes += len(rest)
        if lines and self._is_first:
            self._is_first = False
            lines[0] = lines[0].removeprefix(BOM)
        return lines

    def _take_part(self, tail: bytes) -> list[bytes]:
        """Return the kept part, completed with `tail`, as a list of one line."""
        line = b"".join((*self._part, tail))
        self._part.clear()
        self._part_bytes = 0
        return [line]

    def _read(self, lines: list[bytes]) -> list[SseEvent]:
        events: list[SseEvent] = []
        data = self._data
        for line in lines:
            if len(line) > self._max or self._data_bytes > self._max:
                self.is_too_long = True
                return events
            if line.startswith(b"data: "):
                data.append(line[6:])
                self._data_bytes += len(line)
            elif line:
                self._field(line, events)
            else:
                if data:
                    joined = data[0] if len(data) == 1 else b"\n".join(data)
                    events.append(SseEvent(self._name, joined))
                    data.clear()
                    self._data_bytes = 0
                self._name = b""
        self.is_too_long = self._part_bytes > self._max
        return events

    def _field(self, line: bytes, events: list[SseEvent]) -> None:
        """Handle a line other than `data: …`. The name of a comment is empty, so it is ignored."""
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._data_bytes += len(line)
        elif name == b"event":
            self._name = value
        elif name == b"error":
            events.append(SseEvent(b"error", value))
