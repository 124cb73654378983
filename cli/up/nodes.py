"""`tailrace api --processes N`: several API nodes on one port of this machine.

A node is one process with one thread. Each of these has a listening socket of its own on the same
port (SO_REUSEPORT), so that the kernel deals out connections evenly; one socket shared by all would
give long ones to whoever is awake. They are started, restarted and drained as `tailrace up` does
with its roles. Must not import `api`: a node is a process, and this one stays small.
"""

from __future__ import annotations

import asyncio
import socket

from cli.up.up import (
    Command,
    check_count,
    free_ports,
    role_child,
    role_command,
    supervise,
    url_of,
)
from shared.config.settings import Settings
from shared.errors import ConfigurationError


def nodes(settings: Settings, count: int, *, command: Command = role_command) -> int:
    """Run until SIGINT or SIGTERM; return the exit code.

    Raises:
        ConfigurationError: the port is taken, no Redis is named, or a bad setting.
    """
    check_count("--processes", count)
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigurationError("--processes needs SO_REUSEPORT, which this system has not")
    settings.named_redis_url()  # one line from here instead of one from every node
    (port,) = free_ports(settings.host, settings.port, 1)
    flags = ("--host", settings.host, "--port", str(port), "--share-port")
    children = [
        role_child(settings, command, "api", f"api {number}", *flags)
        for number in range(1, count + 1)
    ]
    ready = f"tailrace api ready on {url_of(settings.host, port)}, {count} processes"
    return asyncio.run(supervise(settings, [children], "api", lambda _: ["", ready]))
