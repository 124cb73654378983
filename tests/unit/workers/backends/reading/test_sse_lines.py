"""Parsing bytes into lines and events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.backends.reading.sse_lines import SseLines


def read(*pieces: bytes, line_bytes_max: int = 100) -> tuple[list[tuple[bytes, bytes]], bool]:
    lines = SseLines(line_bytes_max)
    events = [tuple(event) for piece in pieces for event in lines.feed(piece)]
    events += [tuple(event) for event in lines.feed_eof()]
    return events, lines.is_too_long  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("raw", "events"),
    [
        (b"data: a\n\n", [(b"", b"a")]),
        (b"data:a\n\n", [(b"", b"a")]),
        (b"data:  a \n\n", [(b"", b" a ")]),
        (b"data: a\r\rdata: b\r\n\r\ndata: c\n\n", [(b"", b"a"), (b"", b"b"), (b"", b"c")]),
        (b"data: a\ndata: b\n\n", [(b"", b"a\nb")]),
        (b"data\n\n", [(b"", b"")]),
        (b": comment\n\n:\n\n", []),
        (b"id: 1\nretry: 5\nfoo: bar\ndata: a\n\n", [(b"", b"a")]),
        (b"event: x\ndata: a\n\ndata: b\n\n", [(b"x", b"a"), (b"", b"b")]),
        (b"event: x\n\ndata: b\n\n", [(b"", b"b")]),
        (b"error: {}\n\ndata: b\n\n", [(b"error", b"{}"), (b"", b"b")]),
        (b"\xef\xbb\xbfdata: a\n\n", [(b"", b"a")]),
        (b"data: a", [(b"", b"a")]),
        ("data: a\u2028b\n\n".encode(), [(b"", "a\u2028b".encode())]),
        (b"", []),
    ],
)
def test_events(raw: bytes, events: list[tuple[bytes, bytes]]) -> None:
    assert read(raw) == (events, False)
    assert read(*(raw[at : at + 1] for at in range(len(raw)))) == (events, False)


LINES = st.lists(
    st.sampled_from(
        [b"data: a", b"data:", b"data: \xc3\xa9", b"", b":", b"event: e", b"error: x", b"x" * 30]
    )
)


@given(LINES, st.lists(st.sampled_from([b"\n", b"\r", b"\r\n"]), min_size=1), st.data())
def test_the_events_do_not_depend_on_the_cuts(
    lines: list[bytes], ends: list[bytes], data: st.DataObject
) -> None:
    raw = b"".join(line + ends[n % len(ends)] for n, line in enumerate(lines))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=10)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    for limit in (100, 20):
        assert read(*pieces, line_bytes_max=limit) == read(raw, line_bytes_max=limit)


def test_line_of_exactly_the_limit_is_read() -> None:
    line = b"data: " + b"x" * 94
    assert read(line + b"\n\n") == ([(b"", b"x" * 94)], False)
    assert read(line + b"x\n\n") == ([], True)


def test_many_short_data_lines_are_limited_together() -> None:
    events, is_too_long = read(b"data: 12345\n" * 20 + b"\n")
    assert (events, is_too_long) == ([], True)


def test_nothing_is_read_beyond_the_limit() -> None:
    lines = SseLines(10)
    assert lines.feed(b"x" * 11) == []
    assert lines.is_too_long
    assert lines.feed(b"\ndata: a\n\n") == []
    assert lines.feed_eof() == []
