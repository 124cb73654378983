"""Progress bars, lines and rates, with a fake clock."""

from __future__ import annotations

import io

import pytest

from cli.client.batch_progress import CLEAR_LINE, LINE_S, ProgressBar, RateEstimate, megabytes, span


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def test_the_rate_is_the_mean_of_the_last_half_minute() -> None:
    pace = RateEstimate()
    for second in range(60):
        pace.add(second, 2 * second)
    assert pace.rate(59, 118) == pytest.approx(2)
    for second in range(60, 121):
        pace.add(second, 118 + 10 * (second - 59))
    assert pace.rate(120, 728) == pytest.approx(10, rel=0.05)


def test_earlier_progress_does_not_count_for_the_rate() -> None:
    """A log that is read from its start brings all earlier progress at once."""
    pace = RateEstimate()
    for step in range(10):
        pace.add(step / 100, step * 1_000)
    assert pace.rate(0.1, 9_000) == 0
    pace.add(1.1, 9_000)
    pace.add(3.1, 9_020)
    assert pace.rate(3.1, 9_020) == pytest.approx(20 / 3, rel=0.05)


def test_a_falling_count_starts_the_rate_again() -> None:
    pace = RateEstimate()
    for at, current in ((0, 0), (2, 50), (4, 100), (5, 0), (7, 4)):
        pace.add(at, current)
    assert pace.rate(7, 4) == pytest.approx(2)


def test_a_file_gets_occasional_lines() -> None:
    out, clock = io.StringIO(), Clock()
    bar = ProgressBar(out, clock=clock)
    for _ in range(121):
        bar.show("in_progress", int(clock.s - 100) * 10, 1_200)
        clock.s += 1
    bar.close()

    lines = out.getvalue().splitlines()
    assert len(lines) <= 121 / LINE_S + 2
    assert lines[0] == "in_progress 0/1,200 0 %"
    assert lines[12] == "in_progress 600/1,200 50 % 10/s 1 min 00 s left"
    assert lines[-1] == "in_progress 1,200/1,200 100 % 10/s"


def test_on_a_terminal_the_bar_is_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out, clock = Terminal(), Clock()
    bar = ProgressBar(out, clock=clock)
    for current in (0, 25, 50):
        bar.show("in_progress", current, 50)
        clock.s += 2
    bar.note("connection lost")
    bar.close()

    *_, half, last = out.getvalue().split(CLEAR_LINE)[1:-1]
    assert half.startswith("in_progress [") and half.count("#") == half.count("-") > 5
    assert last.count("#") and not last.count("-")
    assert out.getvalue().endswith(f"{CLEAR_LINE}connection lost\n")
    assert all(len(line) < 80 for line in out.getvalue().split(CLEAR_LINE))


def test_a_narrow_terminal_has_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    out = Terminal()
    ProgressBar(out).show("in_progress", 25, 50)

    assert out.getvalue() == f"{CLEAR_LINE}in_progress  25/50  50 %"


def test_frequent_updates_are_skipped_except_the_last() -> None:
    out, clock = Terminal(), Clock()
    bar = ProgressBar(out, clock=clock)
    for current in range(101):
        bar.show("in_progress", current, 100)

    assert out.getvalue().count(CLEAR_LINE) == 2
    assert "100/100" in out.getvalue()


def test_a_stage_without_a_total_and_a_second_stage() -> None:
    out, clock = io.StringIO(), Clock()
    bar = ProgressBar(out, megabytes, clock)
    bar.show("validating", 0, 0)
    bar.show("in_progress", 1_500_000, 3_000_000)

    assert out.getvalue() == "validating 0.0 MB\nin_progress 1.5 MB/3.0 MB 50 %\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (59.4, "59 s"),
        (61, "1 min 01 s"),
        (3_599, "59 min 59 s"),
        (7_260, "2 h 01 min"),
    ],
)
def test_durations_for_a_person(seconds: float, text: str) -> None:
    assert span(seconds) == text
