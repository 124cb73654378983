"""Rows of runs as tables of the page; missing rows are left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import plot
from bench.figures import RunResults, all_rows, points, put, read, table, write_into
from bench.support.table import Comparison

PAGE = Path(__file__).parents[3] / "docs" / "performance.md"


def rows(bench: str, comparison: Comparison) -> list[dict[str, Any]]:
    return [replace(row, bench=bench).record() for row in comparison.rows()]


def measured() -> list[dict[str, Any]]:
    """Return the rows of one comparison with a base and a goal, and of one curve with a gap."""
    work = Comparison("work | hard", "µs", "bare", {"ours": 1.2})
    for bare, ours in ((2.0, 4.0), (4.0, 6.0)):
        work.add("bare", bare)
        work.add("ours", ours, joined=3.0)
    near, far = (Comparison(f"at {x}", "ms", curve="growth", at=x) for x in (10, 1_000))
    near.add("ours", 1.0)
    near.add("theirs", 2.0)
    far.add("ours", 5.0)
    return [*rows("fan_out", work), *rows("curves", far), *rows("curves", near)]


def test_the_table_has_all_rows_except_plots_and_each_work_once() -> None:
    _, _, text = all_rows(RunResults(measured())).partition("\n\n")

    assert text.splitlines()[2:] == [
        "| work \\| hard | bare | 3.00 (2.00 to 4.00) µs |  |  |  |",
        "|  | ours | 5.00 (4.00 to 6.00) µs | 3.00 | × 1.75 (1.50 to 2.00) | ≤ 1.2 x bare:"
        " **missed** |",
    ]


def test_points_are_in_order_and_missing_points_are_empty() -> None:
    assert points(RunResults(measured()), "growth").splitlines() == [
        "| growth, ms | ours | theirs |",
        "| --- | ---: | ---: |",
        "| 10 | 1.00 | 2.00 |",
        "| 1,000 | 5.00 |  |",
    ]


def test_the_last_of_several_runs_counts_for_a_common_row(tmp_path: Path) -> None:
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    later = [{**row, "values": [9.0]} for row in measured() if row["who"] == "ours"][:1]
    first.write_text(json.dumps({"machine": {"cores": 2}, "rows": measured()}))
    second.write_text(json.dumps({"machine": {"cores": 4}, "is_quick": True, "rows": later}))
    found = read([first, second])

    assert found.values("fan_out", "work", "ours") == [9.0]
    assert found.values("fan_out", "work", "bare") == [2.0, 4.0]
    assert "2 cores" in all_rows(found) and "4 cores" in all_rows(found)
    assert "which say nothing" in all_rows(found) and "missed" not in all_rows(found)


def test_put_replaces_only_the_text_between_the_markers() -> None:
    page = "before\n<!-- a -->\nold\n<!-- /a -->\nafter <!-- /b -->\n"
    once = put(page, "a", "new")

    assert once == "before\n<!-- a -->\n\nnew\n\n<!-- /a -->\nafter <!-- /b -->\n"
    assert put(once, "a", "new") == once


@pytest.mark.parametrize("page", ["", "<!-- a -->\n", "<!-- /a -->\n<!-- a -->\n"])
def test_a_page_without_the_markers_is_an_error(page: str) -> None:
    with pytest.raises(LookupError, match="no <!-- a -->"):
        put(page, "a", "new")


def test_number_columns_are_aligned_right() -> None:
    assert table(("a", "b"), [("x", "1")], 1) == "| a | b |\n| --- | ---: |\n| x | 1 |"


@pytest.mark.parametrize("found", [RunResults(), RunResults(measured())], ids=["nothing", "some"])
def test_the_tables_of_any_run_fit_the_page(tmp_path: Path, found: RunResults) -> None:
    page = tmp_path / "performance.md"
    page.write_text(PAGE.read_text())
    write_into(page, plot.tables(found, tmp_path))
    text = page.read_text()

    assert ("work \\| hard" in text) is bool(found.rows)
    write_into(page, plot.tables(found, tmp_path))
    assert page.read_text() == text


def test_a_plot_is_shown_if_its_file_exists(tmp_path: Path) -> None:
    curve = Comparison("at 1", "MB", curve="readers and memory", at=1)
    curve.add("ours", 1.0)
    found = RunResults(rows("curves", curve))
    folder = tmp_path / "plots"
    folder.mkdir()

    assert "](" not in plot.tables(found, folder)["points"]
    (folder / "readers-memory.svg").touch()
    assert "](plots/readers-memory.svg)" in plot.tables(found, folder)["points"]


# Colours


def contrast(one: str, other: str) -> float:
    """Source: WCAG 2.2, relative luminance."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(c * share for c, share in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))


@pytest.mark.parametrize("ground", ["#ffffff", "#0d1117"], ids=["light", "dark"])
def test_plots_are_readable_on_light_and_dark(ground: str) -> None:
    assert (
        contrast(plot.GREY, ground) >= 4.2
    )  # for text; the best possible value for both grounds is 4.35
    assert all(contrast(colour, ground) >= 3 for colour in plot.COLOURS)
