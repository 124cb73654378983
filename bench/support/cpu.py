"""Measures the cost of processes from outside: CPU seconds and memory. Also pins them to cores.

CPU is the process's clock in the kernel: user and system time of all threads, in nanoseconds. The
measured process does not notice it. Linux only.
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
# If one process shall fill a core, it gets this one, and all others share the rest.
MEASURED = CORES[-1:]
OTHERS = CORES[:-1] or CORES


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process since its start. Source: clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | 2)


def busy_s() -> float:
    """Return the CPU seconds that all cores have spent since boot, including stolen time."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _, _, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) * TICK_S


def family_s(root: int) -> float:
    """Return the CPU seconds of a process and all its descendants."""
    total, todo = 0.0, [root]
    while todo:
        pid = todo.pop()
        with contextlib.suppress(OSError):  # the process has just ended
            total += cpu_s(pid)
            todo += children(pid)
    return total


def ours_s() -> float:
    """Return the CPU seconds of this process and all that it has started, also of ended ones."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return family_s(os.getpid()) + ended.ru_utime + ended.ru_stime


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return _status_kb(pid, "VmRSS") * 1024


def peak_bytes(pid: int) -> int:
    """Return the largest resident memory that a process ever had."""
    return _status_kb(pid, "VmHWM") * 1024


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, from all its threads."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for children in lists for word in children.read_text().split()]


def pin(pids: Iterable[int], cores: Iterable[int]) -> None:
    """Let processes, with their present threads, run only on `cores`."""
    for pid in pids:
        for task in list(Path(f"/proc/{pid}/task").iterdir()):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), cores)


def _status_kb(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise LookupError(name)
