"""`tailrace api --processes N`: several API nodes on one port of this machine.

A node is one process with one thread. Each of these has a listening socket of its own on the same
port (SO_REUSEPORT), so that the kernel deals out connections evenly; one socket shared by all would
give long ones to whoever is awake. They are started, restarted and drained as `tailrace up` does
with its roles. Must not import `api`: a node is a process, and this one stays small.
"""

from __future__ import annotations

import asyncio
import socket

from cli.keeper import Child
from cli.up import END_EXTRA_S, PER_ROLE_MAX, READY, Command, free_ports, role_command, supervise
from shared.errors import ConfigurationError
from shared.settings import Settings


def nodes(settings: Settings, count: int, *, command: Command = role_command) -> int:
    """Run until SIGINT or SIGTERM; return the exit code.

    Raises:
        ConfigurationError: the port is taken, no Redis is named, or a bad setting.
    """
    if not 1 <= count <= PER_ROLE_MAX:
        raise ConfigurationError(f"--processes must be from 1 to {PER_ROLE_MAX}, got {count}")
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigurationError("--processes needs SO_REUSEPORT, which this system has not")
    if not settings.redis_url:
        raise ConfigurationError(
            "TAILRACE_REDIS_URL is not set: name a server, or use `tailrace up`"
        )
    (port,) = free_ports(settings.host, settings.port, 1)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    flags = ("--host", settings.host, "--port", str(port), "--share-port")
    children = [
        Child(
            name=f"api {number}",
            argv=command("api", flags),
            ready=READY["api"],
            end_s=settings.drain_s + END_EXTRA_S,
        )
        for number in range(1, count + 1)
    ]
    ready = f"tailrace api ready on http://{host}:{port}, {count} processes"
    return asyncio.run(supervise(settings, [children], "api", lambda _: ["", ready]))
