"""The results of benchmarks as rows, for people and for programs.

A result is the median over repetitions, with the smallest and the largest value. A ratio is taken
within each repetition, so a machine that is slow for a while is slow for both sides.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

MS = 1_000
US = 1_000_000


@dataclass(frozen=True, slots=True)
class Row:
    """One result.

    Attributes:
        work: what was measured, with its sizes.
        who: the measured system.
        values: one for each repetition.
        ratios: each value divided by that of `base` in the same repetition.
        goal: the goal in words; `is_met` says whether the median meets it.
        joined: tokens per read, if tokens may be joined.
        curve: the plot to which this point belongs; "" for none. `at` is the x of the point.
        bench: the benchmark.
    """

    work: str
    who: str
    unit: str
    values: Sequence[float]
    ratios: Sequence[float] = ()
    base: str = ""
    goal: str = ""
    is_met: bool | None = None
    joined: Sequence[float] = ()
    curve: str = ""
    at: float = 0.0
    bench: str = ""

    def record(self) -> dict[str, Any]:
        """Return the row as --json writes it."""
        return {
            **asdict(self),
            "median": statistics.median(self.values) if self.values else None,
            "ratio": statistics.median(self.ratios) if self.ratios else None,
        }


@dataclass(slots=True)
class Comparison:
    """Repetitions of one work by several systems; the others are compared with `base`.

    Attributes:
        goals: by system: the largest ratio, or the largest value if there is no base.
        is_more_better: goals are the smallest instead.
        is_goal_ratio: goals are ratios if there is a base.
        curve, at: see `Row`.
    """

    work: str
    unit: str
    base: str = ""
    goals: dict[str, float] = field(default_factory=dict)
    is_more_better: bool = False
    is_goal_ratio: bool = True
    curve: str = ""
    at: float = 0.0
    seen: dict[str, list[float]] = field(default_factory=dict)
    joined: dict[str, list[float]] = field(default_factory=dict)

    def add(self, who: str, value: float, *, joined: float = 0.0) -> None:
        """Add the value of one repetition.

        Args:
            joined: tokens per read; 0: not measured.
        """
        self.seen.setdefault(who, []).append(value)
        if joined:
            self.joined.setdefault(who, []).append(joined)

    def rows(self) -> list[Row]:
        """Return one row for each system, in the order of the first `add`."""
        return [self._row(who, values) for who, values in self.seen.items()]

    def _row(self, who: str, values: list[float]) -> Row:
        base = self.seen.get(self.base, [])
        ratios = [mine / theirs for mine, theirs in zip(values, base, strict=False)]
        goal, is_met = "", None
        is_ratio = bool(self.base) and self.is_goal_ratio
        if who in self.goals and (ratios or not is_ratio):
            limit = self.goals[who]
            got = statistics.median(ratios if is_ratio else values)
            is_met = got >= limit if self.is_more_better else got <= limit
            unit = f" x {self.base}" if is_ratio else f" {self.unit}"
            goal = f"{'≥' if self.is_more_better else '≤'} {limit:g}{unit}"
        joined = self.joined.get(who, [])
        return Row(
            self.work, who, self.unit, values, ratios, self.base, goal, is_met, joined,
            curve=self.curve, at=self.at,
        )  # fmt: skip


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of all values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def show(rows: Sequence[Row], *, is_judged: bool = True) -> str:
    """Return the rows as text, with a heading for each work.

    Args:
        is_judged: say which goals are met; small sizes must not be judged.
    """
    lines, work = [], ""
    for row in rows:
        if row.work != work:
            work = row.work
            lines += ["", work]
        verdict = {True: "met", False: "missed", None: ""}[row.is_met if is_judged else None]
        joined = f"{number(statistics.median(row.joined))} a read" if row.joined else ""
        lines.append(
            f"  {row.who:34}{spread(row.values):>30} {row.unit:9}{joined:>12}"
            f"{_ratio(row):>24}  {row.goal:28} {verdict}".rstrip()
        )
    return "\n".join(lines[1:])


def spread(values: Sequence[float]) -> str:
    """Return `median (smallest to largest)`."""
    if not values:
        return "none"
    middle = number(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({number(min(values))} to {number(max(values))})"


def number(value: float) -> str:
    """Format a number with three significant digits."""
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:.3g} M"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ratio(row: Row) -> str:
    return f"x {spread(row.ratios)}" if row.ratios and row.who != row.base else ""
