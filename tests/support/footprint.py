"""Measures a process from outside: memory, descriptors, CPU time.

Linux only, as `/proc` is. Does not import the system under test.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

MB = 1_000_000
TIME_WAIT, LISTEN = 6, 10  # states of the kernel
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
NLM_F_REQUEST_DUMP, NLMSG_DONE = 0x301, 3


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

    Those in TIME_WAIT belong to nobody any more. Asks by sock_diag(7), where the kernel leaves out
    other ports and states: the thousands of rows of /proc/net/tcp take it 50 ms.

        | length 4 | type 2 | flags 2 | 8 zeros |                              nlmsghdr
        | family 1 | protocol 1 | 2 zeros | states 4 |                         inet_diag_req_v2
        | port 2, network order | 38 zeros | cookie 8: none |                  inet_diag_sockid
    """
    states = 0xFFF & ~(1 << TIME_WAIT | 1 << LISTEN)
    asked = struct.pack("=BBxxI", socket.AF_INET, socket.IPPROTO_TCP, states)
    asked += struct.pack("!H38x", port) + b"\xff" * 8
    head = struct.pack("=IHH8x", 16 + len(asked), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP)
    count = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG) as kernel:
        kernel.send(head + asked)
        while True:
            answer, place = kernel.recv(65_536), 0
            while place < len(answer):
                size, kind = struct.unpack_from("=IH", answer, place)
                if kind == NLMSG_DONE:
                    return count
                assert kind == SOCK_DIAG_BY_FAMILY, f"sock_diag answers with type {kind}"
                count += 1
                place += size + 3 & ~3


def cpu_s(pid: int) -> float:
    """Time that processors have worked for a process, in seconds; its resolution is 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
