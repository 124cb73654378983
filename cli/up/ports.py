"""Finds the ports of the API nodes and of the metrics, before the roles start. Knows no roles."""

from __future__ import annotations

import contextlib
import errno
import socket

from cli.up.output import write_lines
from shared.config.settings import Settings
from shared.errors import ConfigurationError

METRICS_PORTS_TRIED = 500
PORTS_TRIED = 20  # ranges of ports that `up` tries when nobody named a port


def choose_ports(settings: Settings, count: int, *, is_named: bool) -> list[int]:
    """Return the ports of the API nodes, and say so if they are not the usual ones.

    Raises:
        ConfigurationError: as `free_ports`.
    """
    host, first = settings.host, settings.port
    for attempt in range(0 if is_named else PORTS_TRIED):
        with contextlib.suppress(PortTaken):
            ports = free_ports(host, first + attempt * count, count)
            if attempt:
                write_lines(f"tailrace up: port {first} is taken, so the first node has {ports[0]}")
            return ports
    return free_ports(host, first, count)


def choose_metrics_ports(settings: Settings, count: int, *, after: int) -> list[int]:
    """Return free ports for the metrics of workers and of the jobs role, the lowest ones.

    Args:
        after: the search begins behind this port, unless the settings name the first one.

    Returns:
        `count` ports; empty: among `METRICS_PORTS_TRIED` ports there are not so many free ones.
    """
    host, first = settings.metrics_host, settings.metrics_port or after + 1
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in range(first, min(first + METRICS_PORTS_TRIED, 65_536)):
            if len(found) == count:
                break
            with contextlib.suppress(ConfigurationError):
                found.append(listen_once(host, port, held))
    return found if len(found) == count else []


class PortTaken(ConfigurationError):
    """Another process listens on the port."""


def free_ports(host: str, first: int, count: int) -> list[int]:
    """Return `count` consecutive ports from `first` on; with `first` 0, any free ports.

    Raises:
        PortTaken: a port is in use.
        ConfigurationError: nothing can listen on the address.
    """
    if first + count - 1 > 65_535:
        raise ConfigurationError(
            f"--port {first} leaves no room for {count} API nodes: choose a lower --port"
        )
    with contextlib.ExitStack() as held:  # hold all sockets, so that no free port is found twice
        return [listen_once(host, first + number if first else 0, held) for number in range(count)]


def listen_once(host: str, port: int, held: contextlib.ExitStack) -> int:
    """Listen like an API node until `held` is closed; return the port.

    SO_REUSEADDR is set, because connections of the last run in TIME_WAIT must not count as a port
    in use. `listen` is called, because with SO_REUSEADDR `bind` alone may succeed on a port in use.
    A name like localhost can have several addresses; a node listens on all of them.

    Raises:
        PortTaken: the port is in use.
        ConfigurationError: nothing can listen on the address.
    """
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in infos if port else infos[:1]:
            listener = held.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen()
        return port or int(listener.getsockname()[1])
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"port {port} on {host} is taken: end the program that listens there, or name "
                'another port with --port (make up ARGS="--port 8010")'
            ) from exc
        raise ConfigurationError(f"cannot listen on {host} port {port}: {exc.strerror}") from exc
