"""Decodes JSON of more than a megabyte in steps, so that other requests are not delayed.

A decoder cannot be interrupted: a picture of 32 MiB took 70 ms, a text with escapes 300 ms. Almost
all bytes of a body that large are in long strings. So the document is decoded in three parts:

1. `Scan` walks through the bytes in slices, and finds the long strings. It counts the values as
   shared/text/json_values.py does.
2. The *skeleton*, the document with a short mark in the place of each long string, is decoded at
   once.
3. Each long string is decoded in slices, and replaces its mark.

Invariant: the value is the same as `decode_json` gives for the whole document, and so is the
decision whether the document is refused. If a document has two errors, the message may name another
error than `decode_json` does.
Source: RFC 8259.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, TypeAlias

import msgspec

from api.errors import request_error
from api.intake.strict_json import check_bare, decode_json, mend_surrogates, too_many_values
from shared.errors import RequestError
from shared.text.json_values import VALUES_MAX, count_brackets

Buffer: TypeAlias = bytes | bytearray

STEPPED_BYTES = 1_048_576  # a smaller document is decoded at once
SLICE_BYTES = 262_144  # of a document or of a string in one step: 1 to 5 ms
LONG_BYTES = 512  # a string of this size or more is decoded by itself
# All of a document outside its strings, without spaces: 50,000 numbers of 20 digits fit.
BARE_BYTES_MAX = 2_097_152
REPLACED_AT_ONCE = 5_000  # containers in one step
ESCAPE_BYTES = 6  # of the longest escape, \u00e9

_SPACE = b" \t\r\n"
# The bytes that may follow a string value. A name has a colon behind it and stays in the skeleton.
_VALUE_END = re.compile(rb"[ \t\r\n]{0,1000}[,\]}]")


async def decode_large(raw: Buffer) -> Any:
    """Decode JSON as `decode_json` does, and let the event loop run between the steps.

    Raises:
        RequestError: 400 `invalid_json`; 422, a string has a lone surrogate.
    """
    if len(raw) <= STEPPED_BYTES:
        return decode_json(bytes(raw))
    scan = Scan(raw, SLICE_BYTES)
    for _ in scan.steps():
        await asyncio.sleep(0)
    scan.check()
    nonce = secrets.token_hex(16)
    marks = [f"{nonce}:{index}" for index in range(len(scan.long_strings))]
    root = [decode_json(_skeleton(raw, scan.long_strings, marks), bare=scan.bare)]
    await asyncio.sleep(0)
    strings: dict[str, str] = {}
    since_pause = 0
    for mark, (start, end) in zip(marks, scan.long_strings, strict=True):
        pieces: list[str] = []
        for piece in string_slices(raw, start, end, SLICE_BYTES):
            pieces.append(_decode_piece(piece))
            since_pause += len(piece)
            if since_pause >= SLICE_BYTES:
                since_pause = 0
                await asyncio.sleep(0)
        strings[mark] = pieces[0] if len(pieces) == 1 else "".join(pieces)
    for _ in _replacements(root, strings):
        await asyncio.sleep(0)
    return root[0]


class Scan:
    """Finds the long strings of a document, slice by slice.

    Attributes:
        long_strings: start and end of each, without its quotes, in order.
        bare: the document without its strings and spaces, after `check`.
    """

    def __init__(self, raw: Buffer, slice_bytes: int) -> None:
        self.long_strings: list[tuple[int, int]] = []
        self.bare = b""
        self._raw = raw
        self._slice_bytes = slice_bytes
        self._outside: list[bytes] = []
        self._outside_bytes = self._quotes = self._values = 0
        self._is_inside = False  # the next byte belongs to a string
        self._opened_at = 0  # the first byte of that string

    def steps(self) -> Iterator[None]:
        """Walk through the document; yield after each slice.

        Raises:
            RequestError: 400 `invalid_json`, too many values.
        """
        start, raw = 0, self._raw
        while start < len(raw):
            piece = bytes(raw[start : start + self._slice_bytes])
            if (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # do not cut an escape
                piece += raw[start + len(piece) : start + len(piece) + 1]
            self._add(start, piece)
            start += len(piece)
            yield

    def check(self) -> None:
        """Check the number of values, and set `bare`.

        Raises:
            RequestError: 400 `invalid_json`, too many values.
        """
        self.bare = b"".join(self._outside)
        check_bare(self.bare)

    def _add(self, start: int, piece: bytes) -> None:
        if b"\\" in piece:  # replaced by as many bytes, so that the positions stay
            piece = piece.replace(rb"\\", b"__").replace(rb"\"", b"__")
        self._quotes += piece.count(b'"')
        if self._quotes > 4 * VALUES_MAX:  # each value may be a string and have a name
            raise too_many_values()
        parts = piece.split(b'"')
        lengths = list(map(len, parts))
        self._find_long(start, lengths)
        outside = b"".join(parts[int(self._is_inside) :: 2]).translate(None, _SPACE)
        self._is_inside ^= len(parts) % 2 == 0
        self._outside.append(outside)
        self._outside_bytes += len(outside)
        self._values += count_brackets(outside)
        if self._values > VALUES_MAX or self._outside_bytes > BARE_BYTES_MAX:
            raise too_many_values()

    def _find_long(self, start: int, lengths: list[int]) -> None:
        """Note the long strings that end in a slice, and where a string begins that does not."""
        last = len(lengths) - 1
        if not last:
            return
        if self._is_inside:
            self._note(self._opened_at, start + lengths[0])
        # Between two quotes with odd numbers: every other part, from the first one that opens here.
        first = 2 if self._is_inside else 1
        if max(lengths[first::2], default=0) >= LONG_BYTES or (last - first) % 2 == 0:
            begins = [start, *(start + at for at in accumulate(n + 1 for n in lengths[:-1]))]
            for index in range(first, last, 2):
                if lengths[index] >= LONG_BYTES:
                    self._note(begins[index], begins[index] + lengths[index])
            self._opened_at = begins[last]

    def _note(self, start: int, end: int) -> None:
        if end - start >= LONG_BYTES and _VALUE_END.match(self._raw, end + 1):
            self.long_strings.append((start, end))


def string_slices(raw: Buffer, start: int, end: int, size: int) -> Iterator[bytes]:
    """Cut the content of a JSON string into slices that can be decoded one by one.

    Args:
        start, end: of the content, without its quotes.
        size: bytes of a slice, at most; at least 32.
    """
    while end - start > size:
        cut = _cut(raw, start, start + size)
        yield bytes(raw[start:cut])
        start = cut
    yield bytes(raw[start:end])


def _cut(raw: Buffer, start: int, at: int) -> int:
    """Return the last place up to `at` that is in no character, escape or surrogate pair."""
    for _ in range(3):  # bytes of a character behind its first one
        at -= raw[at] & 0xC0 == 0x80
    escape = raw.rfind(b"\\", max(start, at - ESCAPE_BYTES + 1), at)
    if escape >= 0 and _begins_escape(raw, start, escape):
        at = escape
    before = at - ESCAPE_BYTES
    is_second_half = raw[at : at + 3].lower() == rb"\ud" and raw[at + 3 : at + 4].lower() in (
        b"c", b"d", b"e", b"f",
    )  # fmt: skip
    if is_second_half and before > start and raw[before : before + 3].lower() == rb"\ud":
        at = before if _begins_escape(raw, start, before) else at
    return at


def _begins_escape(raw: Buffer, start: int, at: int) -> bool:
    """Whether the backslash at `at` is not itself escaped; no escape is cut at `start`."""
    before = raw[start : at + 1]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1


def _decode_piece(piece: bytes) -> str:
    quoted = b'"%b"' % piece
    try:
        return msgspec.json.decode(quoted, type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise _refusal(quoted, exc) from None


def _refusal(quoted: bytes, exc: Exception) -> RequestError:
    if mend_surrogates(quoted) is not None:
        return request_error(
            "invalid_request", "a string holds a lone surrogate (\\ud800 to \\udfff)"
        )
    return request_error("invalid_json", f"the body is not JSON: {exc}, in a long string")


def _skeleton(raw: Buffer, strings: list[tuple[int, int]], marks: list[str]) -> bytes:
    parts: list[bytes] = []
    done = 0
    for mark, (start, end) in zip(marks, strings, strict=True):
        parts += (bytes(raw[done:start]), mark.encode())
        done = end
    return b"".join([*parts, bytes(raw[done:])])


def _replacements(root: list[Any], strings: dict[str, str]) -> Iterator[None]:
    """Put the strings in the place of their marks; yield now and then."""
    containers: list[Any] = [root]
    seen = 0
    while containers:
        container = containers.pop()
        items = container.items() if type(container) is dict else enumerate(container)
        for key, value in items:
            kind = type(value)
            if kind is str:
                if value in strings:
                    container[key] = strings[value]
            elif kind is dict or kind is list:
                containers.append(value)
            seen += 1
            if seen % REPLACED_AT_ONCE == 0:
                yield
