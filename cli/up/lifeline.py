"""Ends a child process when its supervisor dies, for whatever reason.

The supervisor holds the other end of our standard input and never writes to it. When the supervisor
ends, also by SIGKILL, the kernel closes that end, on Linux and on macOS. So end of file means that
no supervisor is left to send SIGTERM. Invariant: a process that called `hold` outlives its
supervisor by at most `grace_s`. Knows no roles.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time


def hold(grace_s: float, *, fd: int = 0) -> None:
    """Watch `fd` in a thread. At end of file, send SIGTERM to this process, and SIGKILL later.

    A thread, because a process with a blocked event loop must end too.

    Args:
        grace_s: seconds between SIGTERM and SIGKILL.
    """
    threading.Thread(target=_watch, args=(fd, grace_s), name="lifeline", daemon=True).start()


def _watch(fd: int, grace_s: float) -> None:
    with contextlib.suppress(OSError):  # a reset means the same as end of file
        while os.read(fd, 4096):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)
