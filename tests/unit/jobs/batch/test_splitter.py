"""Splitting lines: the result does not depend on the borders between pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobs.batch.splitter import InputLine, LineSplitter

BYTES_MAX = 8
CONTENTS = st.lists(
    st.sampled_from(
        [
            b"",
            b" ",
            b"\r",
            b"a",
            b"abc",
            b"x" * 8,
            b"x" * 9,
            b"x" * 30,
            b"\xc3\xa4",
            b"\xef\xbb\xbf",
            b"\xef\xbb\xbfa",
        ]
    ),
    max_size=12,
).map(b"\n".join)


def split(content: bytes, cuts: list[int], *, start: InputLine | None = None) -> list[InputLine]:
    offset, line = (start.after, start.number) if start else (0, 0)
    splitter = LineSplitter(line=line, offset=offset, bytes_max=BYTES_MAX)
    rest = content[offset:]
    places = sorted({0, len(rest), *(cut % (len(rest) + 1) for cut in cuts)})
    found = []
    for begin, end in zip(places, places[1:], strict=False):
        found += splitter.feed(rest[begin:end])
    return found + splitter.close()


def test_lines_have_numbers_and_offsets_and_blank_lines_are_skipped() -> None:
    found = split(b"a\r\n\n  \nbc\nd", [])

    assert [(line.number, line.offset, line.after, line.raw) for line in found] == [
        (1, 0, 3, b"a"),
        (4, 7, 10, b"bc"),
        (5, 10, 11, b"d"),
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    mark = b"\xef\xbb\xbf"
    for content, raw in ((mark + b"a\r\nb", b"a"), (mark + b"x" * 8 + b"\n", None)):
        for cut in range(5):
            found = split(content, [cut])
            assert (found[0].number, found[0].offset, found[0].raw) == (1, 3 if raw else 0, raw)
    assert split(b"a\n" + mark + b"b", [])[1].raw == mark + b"b", "only at the start of the file"
    assert split(mark, []) == []


def test_a_line_that_is_too_long_comes_without_bytes() -> None:
    found = split(b"a\n" + b"x" * 30 + b"\nb\n", [])

    assert [(line.number, line.raw) for line in found] == [(1, b"a"), (2, None), (3, b"b")]
    assert found[2].offset == 33


def test_the_line_end_does_not_count_towards_the_length() -> None:
    assert [line.raw for line in split(b"x" * 8 + b"\r\n" + b"x" * 9, [])] == [b"x" * 8, None]


@given(CONTENTS, st.lists(st.integers(0, 200), max_size=20))
def test_the_borders_between_pieces_do_not_matter(content: bytes, cuts: list[int]) -> None:
    assert split(content, cuts) == split(content, [])


@given(CONTENTS)
def test_each_line_begins_at_its_offset(content: bytes) -> None:
    for line in split(content, []):
        if line.raw is not None:
            assert content[line.offset : line.after].strip() == line.raw


@given(CONTENTS, st.lists(st.integers(0, 200), max_size=5))
def test_reading_can_continue_after_any_line(content: bytes, cuts: list[int]) -> None:
    whole = split(content, [])
    for place, line in enumerate(whole):
        assert split(content, cuts, start=line) == whole[place + 1 :]


def test_the_memory_for_an_endless_line_is_bounded() -> None:
    splitter = LineSplitter(bytes_max=BYTES_MAX)
    for _ in range(1_000):
        assert splitter.feed(b"x" * 1_000) == []
        assert len(splitter._begun) <= BYTES_MAX + 1_000

    (line,) = splitter.close()

    assert line.raw is None and line.after == 1_000_000
