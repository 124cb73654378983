"""`tailrace …` as a person runs it: its output is a terminal, or a pipe for one of the two.

Does not import the system under test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
END_S = 30.0


async def on_terminal(
    *words: str, environ: Mapping[str, str], pipes_answer: bool = False
) -> tuple[bytes, bytes]:
    """Run a command until it ends.

    Args:
        environ: TAILRACE_ variables.
        pipes_answer: standard output is a pipe, standard error the terminal all the same.

    Returns:
        What the terminal was sent, and what the pipe was.
    """
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TAILRACE_")}
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "cli.main", *words,
            stdin=theirs, stderr=theirs,
            stdout=asyncio.subprocess.PIPE if pipes_answer else theirs,
            env={**kept, "PYTHONPATH": str(ROOT), "PYTHONASYNCIODEBUG": "", **environ},
        )  # fmt: skip
    finally:
        os.close(theirs)
    try:
        async with asyncio.timeout(END_S):
            shown = asyncio.create_task(asyncio.to_thread(_read_all, ours))
            piped = await process.stdout.read() if process.stdout is not None else b""
            await process.wait()
            return await shown, piped
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)


def _read_all(terminal: int) -> bytes:
    """Read until nobody holds the other side any more."""
    received = b""
    with contextlib.suppress(OSError):  # Linux says so with EIO
        while piece := os.read(terminal, 65_536):
            received += piece
    return received
