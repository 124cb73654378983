"""The figures of the last hour by model."""

from __future__ import annotations

import pytest

from api.console import trends as trends_module
from api.console.trends import CHARTED_MAX, Trends
from shared.console.histogram import Counts, add
from shared.console.reports import ModelFigures, Point


def histogram(*durations: float) -> Counts:
    counts: Counts = {}
    for seconds in durations:
        add(counts, seconds)
    return counts


def point(at_ms: int, **models: tuple[float, float]) -> Point:
    """Return a point with one attempt of each model: its wait and its run, s."""
    figures = {
        name: ModelFigures(histogram(wait_s), histogram(run_s))
        for name, (wait_s, run_s) in models.items()
    }
    return Point(at_ms, seconds=10.0, models=figures)


def test_quantiles_are_those_of_all_points_of_the_hour():
    trends = Trends()
    trends.add([point(n, m=(0.1, 2.0)) for n in range(1, 20)])
    trends.add([point(20, m=(9.0, 2.0), n=(1.0, 1.0))])

    first, second = trends.rows()

    assert (first["model"], first["begun"], first["ended"]) == ("m", 20, 20)
    assert first["wait_p50_s"] == pytest.approx(0.1, rel=0.04)
    assert first["wait_p95_s"] == pytest.approx(0.1, rel=0.04), "19 of 20"
    assert first["run_p95_s"] == pytest.approx(2.0, rel=0.04)
    assert (second["model"], second["begun"]) == ("n", 1)


def test_what_is_older_than_an_hour_does_not_count(monkeypatch):
    monkeypatch.setattr(trends_module, "POINTS", 2)
    trends = Trends()
    trends.add([point(1, old=(5.0, 5.0)), point(2, m=(0.1, 1.0)), point(3, m=(0.1, 1.0))])

    assert [row["model"] for row in trends.rows()] == ["m"]
    assert [each.at_ms for each in trends.points] == [2, 3]


def test_the_busiest_models_have_series_with_a_gap_where_nothing_ended():
    trends = Trends()
    names = [f"m{n}" for n in range(CHARTED_MAX + 2)]
    trends.add([point(1, **dict.fromkeys(names, (0.1, 1.0))), point(2, m0=(0.2, 1.0))])

    series = trends.series(list(trends.points))

    assert len(series) == CHARTED_MAX and "m0" in series
    assert series["m1"]["wait_p95_s"][1] is None
    assert series["m1"]["begun_per_s"] == [0.1, 0.0]


def test_an_empty_hour_has_no_models():
    assert Trends().rows() == [] and Trends().series([]) == {}
