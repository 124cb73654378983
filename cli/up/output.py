"""Writes what the supervisor and the roles say on the terminal, or as JSON lines."""

from __future__ import annotations

import contextlib
import os

from shared.text.plain_text import plain_line


def relay_text(name: str, line: bytes) -> None:
    """Write a line of a role after the role's name."""
    write_lines(f"{name:<10} {_printable(line)}")


def relay_json(name: str, line: bytes) -> None:
    """Write a line of a role without its name: the JSON has the role already."""
    write_lines(_printable(line))


def _printable(line: bytes) -> str:
    """Return a line without control characters: not every line comes from the role's log."""
    return plain_line(line.decode(errors="replace").rstrip().expandtabs())


def write_lines(*lines: str, stream: int = 2) -> None:
    """Write lines to a file descriptor. Errors are ignored: a closed terminal must not stop us."""
    data = "".join(f"{line}\n" for line in lines).encode()
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(stream, data) :]
