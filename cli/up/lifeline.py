"""A child ends when its supervisor does, however the supervisor died.

The supervisor holds the other end of our standard input and never writes to it. The kernel closes
it with the process, also on SIGKILL, on Linux and macOS alike; end of file here means that nobody
is left to send us a SIGTERM. Invariant: a process that called `hold` outlives its supervisor by at
most `grace_s`. Knows nothing of roles.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time


def hold(grace_s: float, *, fd: int = 0) -> None:
    """Watch `fd` from a thread: at end of file SIGTERM to ourselves, `grace_s` later SIGKILL.

    A thread, because a process whose event loop hangs must end as well.
    """
    threading.Thread(target=_watch, args=(fd, grace_s), name="lifeline", daemon=True).start()


def _watch(fd: int, grace_s: float) -> None:
    with contextlib.suppress(OSError):  # a reset says the same as an end of file
        while os.read(fd, 4096):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)
