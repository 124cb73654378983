"""`tailrace trace`: prints the story of a generation, as a table or as JSON.

On a terminal the table has colours, unless NO_COLOR is set; in a pipe it has none. Names come from
the server, so they are printed as plain text.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.client.client import Client
from cli.client.exit_code import EXIT_OK
from cli.client.terminal import run_command
from shared.config.settings import Settings
from shared.text.plain_text import plain_line

PIPE_WIDTH = 200  # columns, where there is no terminal that has a width
AXIS_MIN, AXIS_MAX = 12, 40  # columns of the time axis
AXIS_SHARE = 5  # one of so many columns of the terminal
STYLES = {
    "begun": "cyan", "takeover": "yellow", "first_token": "green", "first_reasoning": "green",
    "gap": "yellow", "reset": "red", "attempt_ended": "cyan", "cancel_requested": "yellow",
}  # fmt: skip
END_STYLES = {"completed": "bold green", "failed": "bold red", "cancelled": "bold yellow"}
Moment = dict[str, Any]


def trace(settings: Settings, args: argparse.Namespace) -> int:
    """Print what happened to a generation."""
    return run_command(settings, lambda client: _trace(client, args.id, is_json=args.json))


async def _trace(client: Client, generation_id: str, *, is_json: bool) -> int:
    moments = await client.timeline(generation_id)
    if is_json:
        print(json.dumps({"data": moments}))
    else:
        show(moments, generation_id, console())
    return EXIT_OK


def console(file: Any = None) -> Console:
    """Return a console for tables: as wide as the terminal, or `PIPE_WIDTH` in a pipe."""
    out = sys.stdout if file is None else file
    return Console(
        file=out, width=None if out.isatty() else PIPE_WIDTH, highlight=False, markup=False,
        emoji=False, soft_wrap=False,
    )  # fmt: skip


def show(moments: Sequence[Moment], generation_id: str, out: Console) -> None:
    """Print the moments as a table with a time axis."""
    start_s = moments[0]["at"] if moments else 0.0
    whole_s = moments[-1]["at"] - start_s if moments else 0.0
    width = max(AXIS_MIN, min(AXIS_MAX, out.width // AXIS_SHARE))
    began = datetime.fromtimestamp(start_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    title = f"{generation_id}: accepted {began}, {span(whole_s)} in all"
    out.print(Text(plain_line(title), style="bold"))
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("AFTER", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, width=width)
    table.add_column("WHAT", no_wrap=True)
    table.add_column("TRY", justify="right", no_wrap=True)
    table.add_column("WHERE", overflow="fold")
    table.add_column("DETAILS", overflow="fold")
    tries: list[int] = []  # attempt numbers in their order: they may be times in ms
    for moment in moments:
        style = END_STYLES.get(moment.get("status", "")) or STYLES.get(moment["what"], "")
        after_s = moment["at"] - start_s
        attempt = moment.get("attempt", 0)
        if attempt and attempt not in tries:
            tries.append(attempt)
        cells = [
            span(after_s),
            axis(after_s, whole_s, width),
            str(moment["what"]).replace("_", " "),
            str(tries.index(attempt) + 1) if attempt else "",
            str(moment.get("worker") or moment.get("node") or ""),
            details(moment),
        ]
        table.add_row(*(Text(plain_line(cell), style=style) for cell in cells))
    out.print(table)


def axis(after_s: float, whole_s: float, width: int) -> str:
    """Return a line of dots with a mark at its place on the time axis."""
    place = round((width - 1) * (after_s / whole_s if whole_s else 0.0))
    place = min(width - 1, max(0, place))
    return "·" * place + "●" + "·" * (width - 1 - place)


def span(seconds: float) -> str:
    """Return a duration for a person."""
    if seconds < 10:
        return f"{seconds:.3f} s"
    if seconds < 600:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def details(moment: Moment) -> str:
    """Return the other members of a moment in words."""
    what, parts = moment["what"], []
    if "lane" in moment:
        parts.append(f"lane {moment['lane']}")
    if moment.get("partition", "q") != "q":
        parts.append(f"partition {moment['partition']}")
    if moment.get("request_id"):
        parts.append(f"request {moment['request_id']}")
    if "waited_s" in moment:
        parts.append(f"waited {span(moment['waited_s'])}")
    if "again_s" in moment:
        parts.append(f"again in {span(moment['again_s'])}")
    if what == "takeover":
        from_whom = moment.get("taken_from")
        parts.append(f"from {from_whom}, whose lease ran out" if from_whom else "after a release")
    if what == "readers":
        parts += [f"{moment.get(name, 0)} {name}" for name in ("joined", "left") if name in moment]
        parts.append(f"{moment.get('readers', 0)} here now")
    for name in ("backend", "ending", "status", "code"):
        if moment.get(name):
            parts.append(str(moment[name]))
    if "by" in moment:
        parts.append(f"by {moment['by']}".replace("_", " "))
    if "seconds" in moment:
        parts.append(f"{'silent for' if what == 'gap' else 'took'} {span(moment['seconds'])}")
    if moment.get("pieces"):
        parts.append(f"{moment['pieces']} pieces")
    return ", ".join(parts)
