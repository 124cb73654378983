"""The rows of a run's --json, as the tables that docs/performance.md has between its markers.

Pure but for `read` and `write_into`; needs nothing that is not Python's own, because what draws the
plots runs elsewhere. A row that a run did not have is left out and never made up.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.support.table import number, spread

Row = dict[str, Any]  # as `Row.record()` in bench/support/table.py gives it
# The parts of the page, by the names of their markers.
FIGURES, POINTS, COSTS, CARRIED, EXAMPLES = "figures", "points", "costs", "carried", "examples"


@dataclass(frozen=True, slots=True)
class Found:
    """What one or more runs have found; where several have the same row, the last one's counts.

    Attributes:
        is_quick: sizes that say nothing are among them.
    """

    rows: list[Row] = field(default_factory=list)
    machines: list[dict[str, Any]] = field(default_factory=list)
    is_quick: bool = False

    def values(self, bench: str, work: str, who: str) -> list[float]:
        """The figures of this one for the first work that has these words in it; none: empty."""
        for row in self.rows:
            if row.get("bench") == bench and work in row["work"] and row["who"] == who:
                return list(row["values"])
        return []

    def curve(self, name: str) -> dict[str, dict[float, list[float]]]:
        """The points of one plot: who, x, and the values there."""
        lines: dict[str, dict[float, list[float]]] = {}
        for row in self.rows:
            if row.get("curve") == name and row["values"]:
                lines.setdefault(row["who"], {})[row["at"]] = row["values"]
        return lines


def read(paths: Iterable[Path]) -> Found:
    runs = [json.loads(path.read_text()) for path in paths]
    rows = {_key(row): row for run in runs for row in run["rows"]}
    is_quick = any(run.get("is_quick") for run in runs)
    return Found(list(rows.values()), [run["machine"] for run in runs], is_quick)


def _key(row: Row) -> tuple[str, ...]:
    return row.get("bench", ""), row["work"], row["who"]


def write_into(page: Path, parts: dict[str, str]) -> None:
    """Put each part between its markers on the page."""
    text = page.read_text()
    for name, body in parts.items():
        text = put(text, name, body)
    page.write_text(text)


def put(text: str, name: str, body: str) -> str:
    """The text with this between `<!-- name -->` and `<!-- /name -->`.

    Raises:
        LookupError: it does not have these markers.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    at = text.find(begin)
    until = text.find(end, at)
    if at < 0 or until < 0:
        raise LookupError(f"no {begin.strip()} … {end} on the page")
    return f"{text[: at + len(begin)]}\n{body.strip()}\n\n{text[until:]}"


def table(head: Sequence[str], lines: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """A Markdown table.

    Args:
        numbers: how many of the last columns are set to the right.
    """
    rule = ["---"] * (len(head) - numbers) + ["---:"] * numbers
    every = [head, rule, *([_cell(text) for text in line] for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in every)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


# What is written into the page


def all_rows(found: Found) -> str:
    """Every row but those of plots, each work with its name once."""
    lines: list[list[str]] = []
    before = ""
    for row in found.rows:
        if row.get("curve") or not row["values"]:
            continue
        work = "" if row["work"] == before else row["work"]
        before = row["work"]
        lines.append([work, row["who"], *_figures(row), _goal(row, is_judged=not found.is_quick)])
    if not lines:
        return "Nothing was measured."
    head = ("work", "who", "median (smallest to largest)", "a read", "ratio", "goal")
    return f"{where(found)}\n\n{table(head, lines)}"


def _figures(row: Row) -> list[str]:
    joined, ratios = row.get("joined") or [], row.get("ratios") or []
    is_other = ratios and row["who"] != row.get("base")
    return [
        f"{spread(row['values'])} {row['unit']}".strip(),
        number(statistics.median(joined)) if joined else "",
        f"× {spread(ratios)}" if is_other else "",
    ]


def _goal(row: Row, *, is_judged: bool) -> str:
    verdict = {True: "met", False: "**missed**"}.get(row.get("is_met"))  # type: ignore[arg-type]
    goal = (row.get("goal") or "").strip()
    return f"{goal}: {verdict}" if goal and verdict and is_judged else goal


def where(found: Found) -> str:
    """When and on what it was measured."""
    seen = [
        f"{one.get('at', '')[:10]}, {one.get('cores')} cores, Linux {one.get('kernel')},"
        f" Python {one.get('python')}"
        for one in found.machines
    ]
    times = max((len(row["values"]) for row in found.rows), default=0)
    warning = " With sizes of --quick, which say nothing." if found.is_quick else ""
    return f"Of {'; of '.join(dict.fromkeys(seen))}. Medians of up to {times}.{warning}"


def points(found: Found, curve: str) -> str:
    """What one plot is drawn of."""
    lines = found.curve(curve)
    unit = next((row["unit"] for row in found.rows if row.get("curve") == curve), "")
    xs = sorted({x for line in lines.values() for x in line})
    body = [
        [f"{x:,.0f}", *(spread(line[x]) if x in line else "" for line in lines.values())]
        for x in xs
    ]
    return table([f"{curve}, {unit}", *lines], body, len(lines))
