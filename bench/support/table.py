"""What a bench found, as rows that can be printed side by side and read by programs.

Figures are medians over repetitions with the smallest and the largest beside them; a ratio is taken
within each repetition, so that a machine that is slow for a while is slow for both sides.
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
    """One figure.

    Attributes:
        work: what was done, with its sizes.
        who: who did it.
        values: one for each repetition.
        ratios: each value as a multiple of what it is compared with, `base`.
        goal: what it should be, in words; `is_met` says whether the median is.
        joined: how many tokens came with one read, where more than one may.
        curve: the plot that it is a point of, if it is, `at` this x.
        bench: which one found it.
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
        """As --json writes it."""
        return {
            **asdict(self),
            "median": statistics.median(self.values) if self.values else None,
            "ratio": statistics.median(self.ratios) if self.ratios else None,
        }


@dataclass(slots=True)
class Contest:
    """Repetitions of one work by several, the first of which is what the others are compared with.

    Attributes:
        goals: for each who has one: the largest ratio, or the largest value if there is no base.
        is_more_better: they are the smallest instead.
        is_goal_ratio: whether goals are ratios; by default where there is a base.
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
        """Take in the figure of one repetition, and how many tokens came with one read."""
        self.seen.setdefault(who, []).append(value)
        if joined:
            self.joined.setdefault(who, []).append(joined)

    def rows(self) -> list[Row]:
        """One row for each, in the order in which they were first seen."""
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
    """The value below which this share of all lies; values need no order."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def show(rows: Sequence[Row], *, is_judged: bool = True) -> str:
    """The rows as text, a heading for each work.

    Args:
        is_judged: say which goals are met; sizes that are too small mean nothing.
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
    """`median (smallest to largest)`."""
    if not values:
        return "none"
    middle = number(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({number(min(values))} to {number(max(values))})"


def number(value: float) -> str:
    """Three digits that mean something."""
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:.3g} M"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ratio(row: Row) -> str:
    return f"x {spread(row.ratios)}" if row.ratios and row.who != row.base else ""
