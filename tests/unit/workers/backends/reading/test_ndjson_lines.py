"""Splitting a stream of JSON documents into lines."""

from __future__ import annotations

import pytest

from workers.backends.reading.ndjson_lines import NdjsonLines

RAW = b'{"a":1}\n\r\n  {"b":"\xc3\xa9"}\r\n{"c":3}'


@pytest.mark.parametrize("size", range(1, len(RAW) + 1))
def test_lines_do_not_depend_on_the_cuts(size: int) -> None:
    lines = NdjsonLines(100)
    found = [line for at in range(0, len(RAW), size) for line in lines.feed(RAW[at : at + size])]

    assert [*found, *lines.feed_eof()] == [b'{"a":1}', b'{"b":"\xc3\xa9"}', b'{"c":3}']


@pytest.mark.parametrize("size", [1, 7, 30])
def test_a_line_beyond_the_limit_ends_the_stream(size: int) -> None:
    raw = b"short\n" + b"x" * 11 + b"\nnext\n"
    lines = NdjsonLines(10)
    found = [line for at in range(0, len(raw), size) for line in lines.feed(raw[at : at + size])]

    assert found == [b"short"]
    assert lines.is_too_long and lines.feed(b"more\n") == lines.feed_eof() == []


def test_an_unfinished_line_takes_no_more_memory_than_its_limit() -> None:
    lines = NdjsonLines(10)
    lines.feed(b"x" * 11)

    assert lines.is_too_long
