"""The pure parts of keeping a child running; the rest is tests/integration/test_up.py."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest

from cli.up import keeper
from cli.up.keeper import BACKOFF_FIRST_S, BACKOFF_MAX_S, LineSplitter, backoff_s, describe_exit


def test_the_first_pause_is_short() -> None:
    assert backoff_s(1, 0.0) == BACKOFF_FIRST_S / 2
    assert backoff_s(1, 1.0) == BACKOFF_FIRST_S


@hypothesis.given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_pause_grows_to_its_limit_and_keeps_half_of_it_as_jitter(
    failures: int, fraction: float
) -> None:
    assert backoff_s(failures, fraction) <= backoff_s(failures + 1, fraction) <= BACKOFF_MAX_S
    assert backoff_s(failures, 0.0) * 2 == backoff_s(failures, 1.0)


@hypothesis.given(st.lists(st.binary(max_size=20), max_size=20))
def test_lines_are_the_same_wherever_the_stream_is_cut(pieces: list[bytes]) -> None:
    splitter = LineSplitter()
    lines = [line for piece in pieces for line in splitter.feed(piece)] + splitter.close()

    whole = b"".join(pieces).split(b"\n")
    assert lines == (whole if whole[-1] else whole[:-1])


def test_a_line_without_an_end_is_cut_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LINE_BYTES_MAX", 3)
    splitter = LineSplitter()

    assert splitter.feed(b"abc") == []
    assert splitter.feed(b"d") == [b"abcd"]
    assert splitter.close() == []


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "ended with exit code 0"),
        (3, "ended with exit code 3"),
        (-9, "was killed by SIGKILL"),
        (-200, "was killed by signal 200"),
    ],
)
def test_an_exit_is_said_in_words(code: int, text: str) -> None:
    assert describe_exit(code) == text
