"""`tailrace api --processes N`: several API nodes on one port of this machine.

A node is one process with one thread. Each node has its own listening socket on the same port
(SO_REUSEPORT), so the kernel distributes connections evenly. With one shared socket, a node that
happens to be awake would get most of the long connections. The nodes are started, restarted and
drained as by `tailrace up`. Must not import `api`, because this process should stay small.
"""

from __future__ import annotations

import asyncio
import socket

from cli.up.ports import free_ports
from cli.up.running import supervise
from cli.up.up import Command, check_count, role_child, role_command, url_of
from shared.config.settings import Settings
from shared.errors import ConfigurationError


def nodes(settings: Settings, count: int, *, command: Command = role_command) -> int:
    """Run `count` nodes until SIGINT or SIGTERM; return the exit code.

    Raises:
        ConfigurationError: the port is in use, TAILRACE_REDIS_URL is not set, or `count` is out of
            bounds.
    """
    check_count("--processes", count)
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigurationError(
            "--processes needs SO_REUSEPORT, which this system does not have: start each node with "
            "`tailrace api` and a --port of its own"
        )
    settings.named_redis_url()  # report an error once, and not from every node
    (port,) = free_ports(settings.host, settings.port, 1)
    flags = ["--host", settings.host, "--port", str(port), "--share-port"]
    if settings.grpc_port:
        flags += ["--grpc-port", str(settings.grpc_port)]
    children = [
        role_child(settings, command, "api", f"api {number}", *flags)
        for number in range(1, count + 1)
    ]
    ready = f"tailrace api ready on {url_of(settings.host, port)}, {count} processes"
    return asyncio.run(supervise(settings, [children], "api", lambda _: ["", ready]))
