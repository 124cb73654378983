"""`tailrace …` as a person runs it: its output is a terminal, or a pipe for one of the two.

A command whose whole output is a terminal is forked from a process that has imported it, as roles
are: a fresh interpreter takes 0.6 s of CPU time. One whose answer goes into a pipe is a fresh one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.processes import FORK_SERVER, ROOT
from tests.support.spawn import kill_group
from tests.support.wait import until

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
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TAILRACE_")}
    env = {**kept, "PYTHONPATH": str(ROOT), "PYTHONASYNCIODEBUG": "", **environ}
    ours, theirs = pty.openpty()
    shown = asyncio.create_task(asyncio.to_thread(_read_all, ours))
    try:
        if pipes_answer or sys.platform != "linux":
            piped = await _run_fresh(words, env, theirs, pipes_answer=pipes_answer)
        else:
            piped = b""
            await _run_forked(words, env, Path(os.ttyname(theirs)))
    finally:
        os.close(theirs)  # nobody writes any more, so the reading ends
        received = await shown
        os.close(ours)
    return received, piped


async def _run_forked(words: Sequence[str], env: Mapping[str, str], terminal: Path) -> None:
    process = FORK_SERVER.start(words, env=env, input=terminal, output=terminal, cwd=ROOT)
    try:
        await until(lambda: process.poll() is not None, END_S, f"the end of {words}")
    finally:
        if process.poll() is None:
            kill_group(process)


async def _run_fresh(
    words: Sequence[str], env: Mapping[str, str], terminal: int, *, pipes_answer: bool
) -> bytes:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "cli.main", *words, env=env,
        stdin=terminal, stderr=terminal,
        stdout=asyncio.subprocess.PIPE if pipes_answer else terminal,
    )  # fmt: skip
    try:
        async with asyncio.timeout(END_S):
            piped = await process.stdout.read() if process.stdout is not None else b""
            await process.wait()
            return piped
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _read_all(terminal: int) -> bytes:
    """Read until nobody holds the other side any more."""
    received = b""
    with contextlib.suppress(OSError):  # Linux says so with EIO
        while piece := os.read(terminal, 65_536):
            received += piece
    return received
