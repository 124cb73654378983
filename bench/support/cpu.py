"""What a process costs, read from outside: CPU seconds, memory, and which core it may run on.

CPU is the process's own clock in the kernel, user and system, all threads, in nanoseconds; a
process does not know that it is looked at. Linux only.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterable
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))
# Where one process is to fill a core, it has one to itself, and the rest shares the others.
MEASURED = CORES[-1:]
OTHERS = CORES[:-1] or CORES


def cpu_s(pid: int) -> float:
    """CPU seconds of a process since its start. Source: clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | 2)


def busy_s() -> float:
    """CPU seconds that all cores together have spent on anything since boot, stolen time too."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _, _, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) * TICK_S


def family_s(root: int) -> float:
    """CPU seconds of a process and all that descend from it."""
    total, todo = 0.0, [root]
    while todo:
        pid = todo.pop()
        with contextlib.suppress(OSError):  # it has just ended
            total += cpu_s(pid)
            todo += children(pid)
    return total


def ours_s() -> float:
    """CPU seconds of this process and all that it has started, those that have ended, too."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return family_s(os.getpid()) + ended.ru_utime + ended.ru_stime


def rss_bytes(pid: int) -> int:
    return _status_kb(pid, "VmRSS") * 1024


def peak_bytes(pid: int) -> int:
    """The most memory that a process ever had resident."""
    return _status_kb(pid, "VmHWM") * 1024


def children(pid: int) -> list[int]:
    """The processes that a process has started, from whichever thread."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for one in lists for word in one.read_text().split()]


def pin(pids: Iterable[int], cores: Iterable[int]) -> None:
    """Let processes, with the threads that they have, run on `cores` only."""
    for pid in pids:
        for task in list(Path(f"/proc/{pid}/task").iterdir()):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), cores)


def _status_kb(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise LookupError(name)
