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

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def spawn(
    argv: Sequence[str], *, env: Mapping[str, str], output: Path, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start `argv`; stdout and stderr are appended to the file `output`.

    A file, not a pipe: nobody has to read it for the child to go on, and it survives the child.
    """
    with output.open("ab") as sink:
        return subprocess.Popen(
            argv,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )


def signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the child's whole group; a group that is gone is not an error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the group and reap the child: also works on a stopped one."""
    signal_group(process, signal.SIGKILL)
    process.wait(10)
