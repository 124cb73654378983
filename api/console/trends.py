"""The figures of the last hour by model: waits and runs of attempts, from the history.

Histograms are added up as points come, and taken off as points leave the hour, so that a new point
costs the same whatever the hour holds. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.console.board import POINTS
from shared.console.histogram import Counts, quantile
from shared.console.reports import Point

CHARTED_MAX = 5  # models with series of their own
SHOWN_MAX = 30  # models in the table


@dataclass(slots=True)
class _Sums:
    """Of one model; bucket -> number."""

    waits: Counts = field(default_factory=dict)
    runs: Counts = field(default_factory=dict)

    @property
    def attempts(self) -> int:
        return max(sum(self.waits.values()), sum(self.runs.values()))


class Trends:
    """The hour by model.

    Attributes:
        points: the points of the hour, the oldest first.
    """

    def __init__(self) -> None:
        self.points: deque[Point] = deque()
        self._sums: dict[str, _Sums] = {}

    @property
    def at_ms(self) -> int:
        """The time of the newest point; 0: there is none."""
        return self.points[-1].at_ms if self.points else 0

    def add(self, points: Sequence[Point]) -> None:
        """Take newer points, and drop those that are older than an hour."""
        for point in points:
            self.points.append(point)
            self._count(point, 1)
            if len(self.points) > POINTS:
                self._count(self.points.popleft(), -1)

    def rows(self) -> list[dict[str, Any]]:
        """Return the figures of the hour by model, those with the most attempts first."""
        return [
            {
                "model": model,
                "begun": sum(sums.waits.values()),
                "ended": sum(sums.runs.values()),
                "wait_p50_s": _rounded(sums.waits, 0.5),
                "wait_p95_s": _rounded(sums.waits, 0.95),
                "run_p50_s": _rounded(sums.runs, 0.5),
                "run_p95_s": _rounded(sums.runs, 0.95),
            }
            for model, sums in self._busiest(SHOWN_MAX)
        ]

    def series(self, points: Sequence[Point]) -> dict[str, dict[str, list[float | None]]]:
        """Return columns of points by model, as the charts take them."""
        names = [model for model, _ in self._busiest(CHARTED_MAX)]
        return {
            model: {
                "wait_p95_s": [_figure(point, model, "waits") for point in points],
                "run_p95_s": [_figure(point, model, "runs") for point in points],
                "begun_per_s": [_begun_per_s(point, model) for point in points],
            }
            for model in names
        }

    def _busiest(self, count: int) -> list[tuple[str, _Sums]]:
        """Return the models with the most attempts."""
        found = sorted(self._sums.items(), key=lambda pair: (-pair[1].attempts, pair[0]))
        return found[:count]

    def _count(self, point: Point, sign: int) -> None:
        for model, figures in point.models.items():
            sums = self._sums.setdefault(model, _Sums())
            for total, counts in ((sums.waits, figures.waits), (sums.runs, figures.runs)):
                for bucket, count in counts.items():
                    total[bucket] = total.get(bucket, 0) + sign * count
                    if not total[bucket]:
                        del total[bucket]
            if not sums.waits and not sums.runs:
                del self._sums[model]


def _figure(point: Point, model: str, name: str) -> float | None:
    figures = point.models.get(model)
    return None if figures is None else _rounded(getattr(figures, name), 0.95)


def _begun_per_s(point: Point, model: str) -> float | None:
    if not point.seconds:
        return None
    figures = point.models.get(model)
    return round(sum(figures.waits.values()) / point.seconds, 3) if figures else 0.0


def _rounded(counts: Counts, share: float) -> float | None:
    found = quantile(counts, share)
    return None if found is None else round(found, 4)
