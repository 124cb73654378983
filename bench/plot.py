"""Draws docs/plots and writes the tables of docs/performance.md, from the JSON of one or more runs.

    python -m bench.plot figures.json [curves.json] [--table]

Needs matplotlib and nothing of Tailrace; `make plots` has an environment for it. The same rows give
the same bytes. The colours are readable on white and on black.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import figures, sizing
from bench.figures import RunResults

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "plots"
GREY = "#7a7a7a"
COLOURS = ("#2f7fd1", "#c9631a", "#2e9063")
MARKERS = ("o", "s", "^")
STYLE = {
    "svg.hashsalt": "tailrace",  # makes the ids repeatable
    "svg.fonttype": "none",  # keep text as text
    "font.size": 11,
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot.

    Attributes:
        curve: the name of its points in bench/curves.py.
        logarithmic: the logarithmic axes: "x", "xy" or "".
    """

    file: str
    curve: str
    title: str
    x: str
    y: str
    logarithmic: str = ""


DRAWN = (
    Plot(
        "readers-cpu.svg", "readers and CPU", "1 generation at 50 tokens/s, over SSE",
        "readers", "CPU per token delivered, µs", "x",
    ),
    Plot(
        "rate-delay.svg", "tokens per second and delay", "100 generations, 1 reader each, over SSE",
        "tokens/s", "from the model to the reader, ms", "xy",
    ),
    Plot(
        "readers-memory.svg", "readers and memory", "idle readers of one node",
        "readers", "memory of the process, MB",
    ),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.plot", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("files", nargs="+", type=Path, help="what `make bench` wrote with --json")
    parser.add_argument("--table", action="store_true", help="the tables only")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--plots", type=Path, default=PLOTS)
    args = parser.parse_args()
    found = figures.read(args.files)
    if not args.table:
        args.plots.mkdir(parents=True, exist_ok=True)
        for plot in DRAWN:
            draw(plot, found, args.plots)
    figures.write_into(args.page, tables(found, args.plots))


def tables(found: RunResults, folder: Path) -> dict[str, str]:
    """Return the text between each pair of markers. A plot is shown if its file exists."""
    shown = [_shown(plot, found, folder) for plot in DRAWN if found.curve(plot.curve)]
    return {
        figures.FIGURES: figures.all_rows(found),
        figures.POINTS: "\n\n".join(shown) or "None was measured.",
        figures.COSTS: sizing.constants_table(found),
        figures.CARRIED: sizing.carried_table(found),
        figures.EXAMPLES: sizing.examples_table(found),
    }


def _shown(plot: Plot, found: RunResults, folder: Path) -> str:
    numbers = figures.points(found, plot.curve)
    if not (folder / plot.file).exists():
        return numbers
    return f"![{plot.title}: {plot.y}, by {plot.x}]({folder.name}/{plot.file})\n\n{numbers}"


def draw(plot: Plot, found: RunResults, folder: Path) -> None:
    """Write one SVG. Without points, an existing file stays unchanged."""
    lines = found.curve(plot.curve)
    if not lines:
        print(f"{plot.file}: not drawn, there are no points of {plot.curve!r}", file=sys.stderr)
        return
    try:
        import matplotlib
        from matplotlib import pyplot
    except ImportError:
        sys.exit("matplotlib is not here: `make plots` has it")

    pyplot.switch_backend("svg")
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
        for number, (who, points) in enumerate(lines.items()):
            _line(axes, number, who, points)
        _frame(axes, plot, sorted({x for points in lines.values() for x in points}))
        # Without date and program version: the same rows give the same file.
        metadata = {"Date": None, "Creator": None}
        figure.savefig(folder / plot.file, transparent=True, metadata=metadata)
        pyplot.close(figure)


def _line(axes: Any, number: int, who: str, points: dict[float, list[float]]) -> None:
    """Draw the medians, with a bar from the smallest to the largest value."""
    xs = sorted(points)
    middles = [statistics.median(points[x]) for x in xs]
    below = [m - min(points[x]) for m, x in zip(middles, xs, strict=True)]
    above = [max(points[x]) - m for m, x in zip(middles, xs, strict=True)]
    n = number % len(COLOURS)
    axes.errorbar(
        xs, middles, (below, above), label=who, color=COLOURS[n], marker=MARKERS[n], capsize=3
    )


def _frame(axes: Any, plot: Plot, xs: Sequence[float]) -> None:
    axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y)
    if "x" in plot.logarithmic:
        axes.set_xscale("log")
    if "y" in plot.logarithmic:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        steps = [n * 10**power for power in range(-3, 6) for n in (1, 2, 5)]
        axes.set_yticks([n for n in steps if low <= n <= high], minor=False)
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xticks(xs, [f"{x:,.0f}" for x in xs])
    axes.minorticks_off()
    axes.grid()
    axes.legend()


if __name__ == "__main__":
    main()
