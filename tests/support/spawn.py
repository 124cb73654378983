"""Child processes that cannot outlive the tests.

Each child leads a process group of its own, is killed with the whole group, and on Linux dies by
itself when the test process does (also when that is killed with -9).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends; Linux only."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process(Protocol):
    """A child: a `subprocess.Popen`, or a role of the fork server."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...

    def wait(self, timeout: float) -> int: ...


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    output: Path,
    errors: Path | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start `argv`; stdout is appended to the file `output`, stderr to it or to `errors`.

    A file, not a pipe: nobody has to read it for the child to go on, and it survives the child.
    """
    with output.open("ab") as sink, (errors or output).open("ab") as complaints:
        return subprocess.Popen(
            argv,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=complaints,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def signal_group(process: Process, number: int) -> None:
    """Send a signal to the child's whole group; a group that is gone is not an error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def kill_group(process: Process) -> None:
    """SIGKILL the group and reap the child: also works on a stopped one."""
    signal_group(process, signal.SIGKILL)
    process.wait(10)
