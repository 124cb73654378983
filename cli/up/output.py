"""Writes what the supervisor and the roles say on the terminal, or as JSON lines."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Mapping
from datetime import datetime

from cli.up.short_lines import ShortLines
from shared.config.settings import Settings
from shared.text.plain_text import plain_line


class Screen:
    """Where the supervisor and the roles write, and in which form.

    Args:
        name: the command's name in messages.
        short: makes short lines for a terminal; None: the roles' lines are shown as they are.
        roles_log: the value of TAILRACE_LOG for the roles. A role writes into our pipe, so it
            cannot see whether we have a terminal.
    """

    def __init__(self, name: str, short: ShortLines | None, roles_log: str) -> None:
        self._name = name
        self._short = short
        self.roles_log = roles_log

    @property
    def is_short(self) -> bool:
        return self._short is not None

    def say(self, line: str) -> None:
        """Show a message of the supervisor."""
        if self._short is None:
            write_lines(f"tailrace {self._name}: {line}")
        else:
            write_lines(*self._short.of_supervisor(line, clock()))

    def relay(self, child: str, line: bytes) -> None:
        """Show a line of a role: after the role's name, except JSON, which has the role already."""
        if self._short is not None:
            write_lines(*self._short.of_role(child, line, clock()))
        elif self.roles_log == "json":
            write_lines(_printable(line))
        else:
            write_lines(f"{child:<10} {_printable(line)}")


def open_screen(settings: Settings, name: str, environ: Mapping[str, str]) -> Screen:
    """Return the screen: short lines on a terminal, unless TAILRACE_LOG names a form.

    Args:
        name: the command's name in messages.
        environ: NO_COLOR (no-color.org) and TERM=dumb turn the colours off.
    """
    if settings.log or not sys.stderr.isatty():
        return Screen(name, None, settings.log or "json")
    is_coloured = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    columns = shutil.get_terminal_size().columns
    return Screen(name, ShortLines(is_coloured=is_coloured, columns=columns), "json")


def clock() -> str:
    """Return the local time, HH:MM:SS."""
    return datetime.now().strftime("%H:%M:%S")


def _printable(line: bytes) -> str:
    """Return a line without control characters: not every line comes from the role's log."""
    return plain_line(line.decode(errors="replace").rstrip().expandtabs())


def write_lines(*lines: str, stream: int = 2) -> None:
    """Write lines to a file descriptor. Errors are ignored: a closed terminal must not stop us."""
    data = "".join(f"{line}\n" for line in lines).encode()
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(stream, data) :]
