"""Measures a process from outside: memory, descriptors, CPU time.

Linux only, as `/proc` is. Does not import the system under test.
"""

from __future__ import annotations

import os
from pathlib import Path

MB = 1_000_000
TIME_WAIT, LISTEN = "06", "0A"  # as /proc/net/tcp has them


def rss_bytes(pid: int) -> int:
    """Resident memory of one process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"no VmRSS of {pid}")


def descriptors(pid: int) -> int:
    """Open files and sockets of one process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def connections(port: int) -> int:
    """TCP connections to a local port that the kernel still holds for a process.

    Those in TIME_WAIT belong to nobody any more.
    """
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return sum(
        1
        for row in rows
        if int(row[1].rpartition(":")[2], 16) == port and row[3] not in (TIME_WAIT, LISTEN)
    )


def cpu_s(pid: int) -> float:
    """Time that processors have worked for a process, in seconds; its resolution is 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
