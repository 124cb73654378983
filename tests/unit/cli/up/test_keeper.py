"""The pure parts of the keeper; tests/integration/test_up.py tests the rest."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest

from cli.up import keeper
from cli.up.keeper import (
    RESTART_PAUSE_FIRST_S,
    RESTART_PAUSE_MAX_S,
    LineSplitter,
    describe_exit,
    restart_pause_s,
)


def test_the_first_restart_pause_is_short() -> None:
    assert restart_pause_s(1, 0.0) == RESTART_PAUSE_FIRST_S / 2
    assert restart_pause_s(1, 1.0) == RESTART_PAUSE_FIRST_S


@hypothesis.given(st.integers(1, 10_000), st.floats(0, 1))
def test_the_restart_pause_grows_to_its_limit_and_half_of_it_is_jitter(
    failures: int, fraction: float
) -> None:
    assert (
        restart_pause_s(failures, fraction)
        <= restart_pause_s(failures + 1, fraction)
        <= RESTART_PAUSE_MAX_S
    )
    assert restart_pause_s(failures, 0.0) * 2 == restart_pause_s(failures, 1.0)


@hypothesis.given(st.lists(st.binary(max_size=20), max_size=20))
def test_the_lines_do_not_depend_on_the_cuts(pieces: list[bytes]) -> None:
    splitter = LineSplitter()
    lines = [line for piece in pieces for line in splitter.feed(piece)] + splitter.close()

    expected = b"".join(pieces).split(b"\n")
    assert lines == (expected if expected[-1] else expected[:-1])


def test_a_line_without_an_end_is_cut_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "OUTPUT_LINE_BYTES_MAX", 3)
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
def test_describe_exit(code: int, text: str) -> None:
    assert describe_exit(code) == text
