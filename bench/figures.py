"""Turns the rows of `--json` files into the tables of docs/performance.md.

Pure except for `read` and `write_into`. Needs only the standard library, because the plots are
drawn in another environment. A row that a run does not have is left out, and never invented.
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
# The parts of the page: the names of their markers.
FIGURES, POINTS, COSTS, CARRIED, EXAMPLES = "figures", "points", "costs", "carried", "examples"


@dataclass(frozen=True, slots=True)
class RunResults:
    """The rows of one or more runs. If several runs have the same row, the last one counts.

    Attributes:
        is_quick: one of the runs used the sizes of --quick, which measure nothing.
    """

    rows: list[Row] = field(default_factory=list)
    machines: list[dict[str, Any]] = field(default_factory=list)
    is_quick: bool = False

    def values(self, bench: str, work: str, who: str) -> list[float]:
        """Return the values of `who` for the first work that contains `work`, or []."""
        for row in self.rows:
            if row.get("bench") == bench and work in row["work"] and row["who"] == who:
                return list(row["values"])
        return []

    def curve(self, name: str) -> dict[str, dict[float, list[float]]]:
        """Return the points of one plot: who -> x -> values."""
        lines: dict[str, dict[float, list[float]]] = {}
        for row in self.rows:
            if row.get("curve") == name and row["values"]:
                lines.setdefault(row["who"], {})[row["at"]] = row["values"]
        return lines


def read(paths: Iterable[Path]) -> RunResults:
    """Read the JSON files of one or more runs."""
    runs = [json.loads(path.read_text()) for path in paths]
    rows = {_key(row): row for run in runs for row in run["rows"]}
    is_quick = any(run.get("is_quick") for run in runs)
    return RunResults(list(rows.values()), [run["machine"] for run in runs], is_quick)


def _key(row: Row) -> tuple[str, ...]:
    return row.get("bench", ""), row["work"], row["who"]


def write_into(page: Path, parts: dict[str, str]) -> None:
    """Replace the parts between their markers on the page."""
    text = page.read_text()
    for name, body in parts.items():
        text = put(text, name, body)
    page.write_text(text)


def put(text: str, name: str, body: str) -> str:
    """Return `text` with `body` between `<!-- name -->` and `<!-- /name -->`.

    Raises:
        LookupError: the text does not have these markers.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    at = text.find(begin)
    until = text.find(end, at)
    if at < 0 or until < 0:
        raise LookupError(f"no {begin.strip()} … {end} on the page")
    return f"{text[: at + len(begin)]}\n{body.strip()}\n\n{text[until:]}"


def table(head: Sequence[str], lines: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """Return a Markdown table.

    Args:
        numbers: how many of the last columns are aligned right.
    """
    rule = ["---"] * (len(head) - numbers) + ["---:"] * numbers
    every = [head, rule, *([_cell(text) for text in line] for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in every)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


# Tables for the page


def all_rows(found: RunResults) -> str:
    """Return the table of all rows except those of plots; each work is named once."""
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


def where(found: RunResults) -> str:
    """Say when and on which machines the runs were measured."""
    seen = [
        f"{machine.get('at', '')[:10]}, {machine.get('cores')} cores, "
        f"Linux {machine.get('kernel')}, Python {machine.get('python')}"
        for machine in found.machines
    ]
    times = max((len(row["values"]) for row in found.rows), default=0)
    warning = " With sizes of --quick, which say nothing." if found.is_quick else ""
    machines = "; ".join(dict.fromkeys(seen))
    return f"Measured on {machines}. Each figure is the median of at most {times} runs.{warning}"


def points(found: RunResults, curve: str) -> str:
    """Return the table of the points of one plot."""
    lines = found.curve(curve)
    unit = next((row["unit"] for row in found.rows if row.get("curve") == curve), "")
    xs = sorted({x for line in lines.values() for x in line})
    body = [
        [f"{x:,.0f}", *(spread(line[x]) if x in line else "" for line in lines.values())]
        for x in xs
    ]
    return table([f"{curve}, {unit}", *lines], body, len(lines))
