"""Short lines for a person at a terminal: one for each event of a role and for each request.

    05:58:28 worker 1   gen_8qpq6vpg55r73dqafqq2r4k24c completed, attempt 1, 30 pieces, 1.0 s

The roles write JSON, and this module makes lines of at most `COLUMNS` columns of it. A line of
information is cut. A warning or an error is wrapped, because each word of it may be needed. Pure:
`cli/up/running.py` writes the lines. Off a terminal, or with TAILRACE_LOG, the roles' own lines are
shown instead.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from shared.text.plain_text import plain_line

COLUMNS = 100
NAME_COLUMNS = 10
CLOCK_COLUMNS = 8
INDENT = " " * (CLOCK_COLUMNS + NAME_COLUMNS + 2)
READY = (
    "tailrace api ready",
    "tailrace worker ready",
    "tailrace jobs ready",
    "tailrace redis ready",
)

PLAIN, DIM, RED, YELLOW, GREEN = "\x1b[0m", "\x1b[2m", "\x1b[31m", "\x1b[33m", "\x1b[32m"
BLUE, MAGENTA, CYAN = "\x1b[34m", "\x1b[35m", "\x1b[36m"
COLOURS = {"api": CYAN, "worker": GREEN, "jobs": MAGENTA, "redis": BLUE, "master": BLUE}
LEVELS = {"warning": YELLOW, "error": RED, "critical": RED}
# What every line of a role's log has; the terminal shows it in another way, or not.
REASONS = ("reason", "advice")  # a person reads these first
FRAME = ("time", "level", "role", "event", "logger", "traceback")


class ShortLines:
    """Makes the lines.

    Args:
        is_coloured: with SGR sequences; off with NO_COLOR.
        columns: of the terminal.
    """

    def __init__(self, *, is_coloured: bool, columns: int = COLUMNS) -> None:
        self._is_coloured = is_coloured
        self._columns = max(40, min(columns, COLUMNS))
        self._last_request: dict[str, str] = {}

    def of_role(self, name: str, line: bytes, clock: str) -> list[str]:
        """Return the lines for one line of a role's output.

        Args:
            clock: the time for a line that has none, HH:MM:SS.
        """
        text = line.decode(errors="replace").rstrip()
        if text.startswith(READY):
            return []  # the supervisor says this, with the process id
        record = read_record(text)
        if record is None:
            return self._lines(name, clock, plain_line(text.expandtabs()), level="warning")
        said = describe(record)
        if record["event"] == "request":
            if self._last_request.get(name) == said:
                return []  # a page that asks for the same thing over and over
            self._last_request[name] = said
        level = str(record.get("level", "info"))
        lines = self._lines(name, clock_of(record) or clock, plain_line(said), level=level)
        trace = str(record.get("traceback", ""))
        return [*lines, *(f"{INDENT}{plain_line(each)}" for each in trace.splitlines())]

    def of_supervisor(self, text: str, clock: str) -> list[str]:
        """Return the lines for a message of the supervisor."""
        return self._lines("up", clock, text, level="warning" if "killed" in text else "info")

    def _lines(self, name: str, clock: str, text: str, *, level: str) -> list[str]:
        room = self._columns - len(INDENT)
        if level in LEVELS:
            pieces = textwrap.wrap(text, room) or [""]
        else:
            pieces = [text if len(text) <= room else text[: room - 1] + "…"]
        head = (
            f"{self._in(DIM, clock)} {self._in(self._colour_of(name), f'{name:<{NAME_COLUMNS}}')}"
        )
        colour = LEVELS.get(level, "")
        return [
            f"{head if number == 0 else INDENT[:-1]} {self._in(colour, piece)}"
            for number, piece in enumerate(pieces)
        ]

    def _colour_of(self, name: str) -> str:
        return COLOURS.get(name.partition(" ")[0], "")

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{PLAIN}" if self._is_coloured and colour else text


def read_record(text: str) -> dict[str, Any] | None:
    """Return a line of a role's log; None: it is another line."""
    if not text.startswith("{"):
        return None
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "event" in record else None


def describe(record: Mapping[str, Any]) -> str:
    """Return what a record says, without time and level."""
    event = str(record["event"])
    if event == "request":
        made = f"  {record['generation_id']}" if "generation_id" in record else ""
        return f"{record.get('method')} {record.get('path')} {record.get('status')}{made}"
    if event == "generation left":
        return (
            f"{record.get('generation_id')} {record.get('ending')}, attempt {record.get('attempt')}"
            f", {record.get('pieces')} pieces, {float(record.get('took_s') or 0):.1f} s"
        )
    why = next((str(record[name]) for name in REASONS if record.get(name)), "")
    rest = [f"{name}={value}" for name, value in record.items() if name not in (*FRAME, *REASONS)]
    return "  ".join([f"{event}: {why}" if why else event, *rest])


def clock_of(record: Mapping[str, Any]) -> str:
    """Return the local time of a record, HH:MM:SS; empty: it has none."""
    try:
        return datetime.fromisoformat(str(record.get("time", ""))).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return ""
