"""`tailrace top`: a live table of what runs, with the last minute as sparklines.

Asks one node once a second for the workers, the queue, the metrics and the unfinished generations.
With an operator's key it shows the generations of all owners, else those of the key's owner. In a
pipe, and with --once, it prints one picture and ends; --json prints that picture as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.client.client import Client, RequestRefused
from cli.client.exit_code import EXIT_INTERRUPTED, EXIT_OK
from cli.client.terminal import DEAD, jobs_line, run_command, state_of
from cli.client.trace import console, span
from shared.config.settings import Settings
from shared.text.plain_text import plain_line

EVERY_S = 1.0
SAMPLES = 60  # of each sparkline
ROWS_MAX = 40  # generations in the table; a terminal shows as many as fit
WIDE = 110  # columns of a terminal that shows all columns of the table
COLUMNS = ("GENERATION", "STATE", "MODEL", "OWNER", "WORKER", "TRY", "AGE", "WAITED")
NARROW_COLUMNS = ("GENERATION", "STATE", "MODEL", "WORKER", "AGE")
HEAD_LINES = 11  # the lines above the generations, without the workers
BARS = " ▁▂▃▄▅▆▇█"
TOKENS = re.compile(r'^tailrace_worker_total\{what="tokens",worker="[^"]*"\} (\S+)$', re.M)


@dataclass(frozen=True, slots=True)
class Picture:
    """What one node says at one time.

    Attributes:
        at_s: monotonic, s.
        workers: as `GET /v1/workers`; empty: the key is no operator's.
        tokens: that all workers have got from backends; None: unknown.
    """

    at_s: float
    generations: list[dict[str, Any]]
    workers: dict[str, Any]
    tokens: float | None


@dataclass(slots=True)
class Lines:
    """The last minute: one line for each measure."""

    values: dict[str, deque[float]] = field(default_factory=dict)
    _last: Picture | None = None

    def add(self, picture: Picture) -> None:
        """Add the measures of a picture."""
        queue = picture.workers.get("queue", {})
        waiting = sum(queue.get(name, 0) for name in ("interactive", "batch", "later"))
        self._add("running", queue.get("running", len(picture.generations)))
        self._add("waiting", waiting)
        last, self._last = self._last, picture
        if last is not None and picture.tokens is not None and last.tokens is not None:
            took_s = max(0.001, picture.at_s - last.at_s)
            # A worker that has gone takes its count with it.
            self._add("tokens/s", max(0.0, picture.tokens - last.tokens) / took_s)

    def _add(self, name: str, value: float) -> None:
        self.values.setdefault(name, deque(maxlen=SAMPLES)).append(float(value))


def top(settings: Settings, args: argparse.Namespace) -> int:
    """Show what runs until Ctrl-C, or once."""
    is_live = sys.stdout.isatty() and not (args.once or args.json)
    with contextlib.suppress(KeyboardInterrupt):
        return run_command(
            settings, _live if is_live else lambda client: _once(client, is_json=args.json)
        )
    return EXIT_INTERRUPTED


async def _live(client: Client) -> int:
    lines, out = Lines(), console()
    with Live(console=out, screen=True, auto_refresh=False) as live:
        while True:
            picture = await take(client)
            lines.add(picture)
            live.update(frame(picture, lines, out), refresh=True)
            await asyncio.sleep(EVERY_S)


async def _once(client: Client, *, is_json: bool) -> int:
    picture = await take(client)
    if is_json:
        print(json.dumps({"generations": picture.generations, **picture.workers}))
        return EXIT_OK
    lines, out = Lines(), console()
    lines.add(picture)
    out.print(frame(picture, lines, out))
    return EXIT_OK


async def take(client: Client) -> Picture:
    """Ask a node for all that a picture shows.

    Raises:
        RequestRefused, ServerUnreachable: as `Client.workers`.
    """
    try:
        workers = await client.workers()
        generations = await client.generations("", of_all=True)
        metrics = await client.metrics()
    except RequestRefused as exc:
        if exc.code != "forbidden":
            raise
        return Picture(time.monotonic(), await client.generations(""), {}, None)
    tokens = sum(float(found) for found in TOKENS.findall(metrics))
    return Picture(time.monotonic(), generations, workers, tokens)


def frame(picture: Picture, lines: Lines, out: Console) -> RenderableType:
    """Return one picture for a console, cut to its height.

    In a terminal the workers have at most half of the rows, so that generations stay in sight.
    """
    parts: list[RenderableType] = [*_head(picture), _sparklines(lines, out.width)]
    workers = sorted(picture.workers.get("workers", []), key=lambda each: state_of(each) == DEAD)
    room = out.height - HEAD_LINES
    workers_max = max(1, room // 2) if out.is_terminal else len(workers)
    if workers:
        parts.append(_workers(workers, workers_max))
    rows_max = room - min(len(workers), workers_max) if out.is_terminal else ROWS_MAX
    parts.append(_generations(picture.generations, max(1, min(ROWS_MAX, rows_max)), out.width))
    return Group(*parts)


def _head(picture: Picture) -> list[Text]:
    clock = datetime.now(UTC).strftime("%H:%M:%S UTC")
    found = picture.workers
    if not found:
        return [Text(f"{clock}   your generations; all others need an operator's key", "bold")]
    slots = sum(worker["slots"] for worker in found["workers"])
    ages = found.get("oldest_s", {})
    oldest = ", ".join(f"{name} {span(age_s)}" for name, age_s in ages.items() if age_s)
    head = f"{clock}   {len(found['workers'])} workers, {slots} slots"
    rows = [Text(plain_line(head), "bold")]
    queue = ", ".join(f"{count} {state}" for state, count in found["queue"].items())
    rows.append(Text(plain_line(f"queue: {queue}")))
    rows.append(Text(plain_line(f"waiting longest: {oldest or 'none'}"), "" if oldest else "dim"))
    if jobs := found.get("jobs"):
        is_late = jobs["oldest_due_s"] > 60
        rows.append(Text(plain_line(f"jobs: {jobs_line(jobs)}"), "red" if is_late else ""))
    return rows


def _sparklines(lines: Lines, width: int) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for name, values in lines.values.items():
        shown = list(values)[-max(1, min(SAMPLES, width - 24)) :]
        table.add_row(Text(name, "dim"), f"{shown[-1]:,.0f}", Text(sparkline(shown), "green"))
    return table


def sparkline(values: list[float]) -> str:
    """Return one bar for each value; the highest one has the full height."""
    highest = max(values, default=0.0)
    if highest <= 0:
        return BARS[1] * len(values)
    steps = len(BARS) - 1
    return "".join(BARS[max(1, round(steps * value / highest))] for value in values)


def _workers(workers: list[dict[str, Any]], rows_max: int) -> Table:
    table = _table("WORKER", "STATE", "RUNNING", "SEEN")
    shown = workers if len(workers) <= rows_max else workers[: rows_max - 1]
    for worker in shown:
        running = f"{worker['running']}/{worker['slots']}"
        seen = f"{worker['seen_s']:.0f}s ago"
        state = state_of(worker)
        _row(table, [worker["id"], state, running, seen], "" if state == "working" else "yellow")
    if len(shown) < len(workers):
        _row(table, [f"and {len(workers) - len(shown)} more", "", "", ""], "dim")
    return table


def _generations(generations: list[dict[str, Any]], rows_max: int, width: int) -> Table:
    columns = COLUMNS if width >= WIDE else NARROW_COLUMNS
    table = _table(*columns)
    now_s = datetime.now(UTC).timestamp()
    for item in generations[:rows_max]:
        cells = {
            "GENERATION": item["id"],
            "STATE": item["status"],
            "MODEL": item["model"],
            "OWNER": item.get("owner", ""),
            "WORKER": item.get("worker") or "",
            "TRY": item.get("attempts", item["attempt"]),
            "AGE": f"{max(0.0, now_s - item['created_at']):.0f}s",
            "WAITED": span(item.get("waited_s", 0.0)),
        }
        style = "" if item["status"] == "running" else "dim"
        _row(table, [cells[column] for column in columns], style)
    if len(generations) > rows_max:
        _row(table, [f"and {len(generations) - rows_max} more", *[""] * (len(columns) - 1)], "dim")
    return table


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(head, no_wrap=True, overflow="ellipsis")
    return table


def _row(table: Table, cells: list[Any], style: str) -> None:
    table.add_row(*(Text(plain_line(str(cell)), style=style) for cell in cells))
