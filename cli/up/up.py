"""`tailrace up`: runs all roles on one machine, as processes under one supervisor.

Starts a private Redis server unless TAILRACE_REDIS_URL is set, API nodes on consecutive ports,
workers and the jobs role. This module describes the processes and prints messages for the operator;
cli/up/supervisor.py restarts and ends the processes. Must not import `api` or `workers`, because
this process should stay small.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from cli.up import redis_guard
from cli.up.found_models import find_models
from cli.up.keeper import Child
from cli.up.privacy import open_directories
from cli.up.private_cluster import private_masters
from cli.up.private_server import PrivateServer, private_server
from cli.up.supervisor import Supervisor
from shared.config.models import BUILT_IN, Model, load_models, missing_parts, missing_variables
from shared.config.redis_url import SENTINEL_SCHEMES, parse_redis_url
from shared.config.settings import Settings
from shared.errors import ConfigurationError
from shared.text.plain_text import plain_line

PORTS_TRIED = 20  # ranges of ports that `up` tries when nobody named a port
PER_ROLE_MAX = 64  # processes of one role; more on one machine do not help
KILL_MARGIN_S = 5.0  # after the drain time of a role, before SIGKILL
READY_LINES = {
    "api": "tailrace api ready",
    "worker": "tailrace worker ready",
    "jobs": "tailrace jobs ready",
}

Command = Callable[[str, Sequence[str]], tuple[str, ...]]


def role_command(role: str, flags: Sequence[str]) -> tuple[str, ...]:
    """Return the command line of one role.

    `-P` keeps the working directory off the import path: a directory `shared` there would win.
    """
    return (sys.executable, "-P", "-m", "cli.main", role, "--lifeline", *flags)


def up(
    settings: Settings,
    *,
    api: int = 1,
    workers: int = 1,
    has_cluster: bool = False,
    is_port_named: bool = True,
    command: Command = role_command,
) -> int:
    """Run all roles until SIGINT or SIGTERM; return the exit code.

    Args:
        has_cluster: start three masters of a private cluster, and the private server for arq only.
        is_port_named: a flag or a variable names the port. Otherwise the nodes take the next free
            ports when the usual ones are in use.

    Raises:
        ConfigurationError: a port is in use, no Redis server is installed, or a setting is invalid.
    """
    check_count("--api", api)
    check_count("--workers", workers)
    settings = skip_unset_models(find_models(settings, write_lines))
    ports = choose_ports(settings, api, is_named=is_port_named)
    if has_cluster and settings.redis_url:
        raise ConfigurationError(
            "--cluster starts servers of its own: leave the flag out, or unset TAILRACE_REDIS_URL"
        )
    with contextlib.ExitStack() as stack:
        server, masters = None, list[PrivateServer]()
        if not settings.redis_url:
            server = stack.enter_context(
                private_server(settings.data_dir, settings.redis_bytes_max)
            )
        write_lines(*(f"tailrace up: {line}" for line in open_directories(settings)))
        if server is not None:
            settings = dataclasses.replace(settings, redis_url=server.url)
        if server is not None and has_cluster:
            masters, url = private_masters(server)
            jobs_url = settings.jobs_redis_url or server.url
            settings = dataclasses.replace(settings, redis_url=url, jobs_redis_url=jobs_url)
        roles = role_children(settings, ports, workers, command)
        guards = [guard_child(server, settings)] if server else []
        guards += [
            guard_child(master, settings, f"master {number}")
            for number, master in enumerate(masters, 1)
        ]
        stages = [guards, roles] if guards else [roles]
        return asyncio.run(supervise(settings, stages, "up", partial(greeting, settings, ports)))


def skip_unset_models(settings: Settings) -> Settings:
    """Leave out the models that cannot run with this environment and installation, and say so.

    Only `up` does this: there one environment serves all roles, and the others must not start with
    a part of their models.

    Raises:
        ConfigurationError: the models file is invalid, or no model is left.
    """
    models = load_models(settings.models, settings.models_skip).tables
    missing = {name: said for name, model in models.items() if (said := missing_for(model))}
    if settings.models in missing and settings.models in BUILT_IN:
        raise ConfigurationError(missing[settings.models])
    for name, said in missing.items():
        write_lines(f"tailrace up: the model {name} is left out: {said}")
    # Routes run if one of their backends does.
    if all(name in missing for name, model in models.items() if model.route is None):
        raise ConfigurationError(f"{settings.models}: no model is left that can run")
    skipped = ",".join(filter(None, [settings.models_skip, *missing]))
    return dataclasses.replace(settings, models_skip=skipped)


def missing_for(model: Model) -> str:
    """Return why a model cannot run, with the remedy; empty: it can run."""
    if variables := missing_variables(model, os.environ):
        return f"set {', '.join(variables)}"
    return missing_parts(model)


def check_count(name: str, count: int) -> None:
    """Check the number of processes of one role.

    Raises:
        ConfigurationError: `count` is not from 1 to `PER_ROLE_MAX`.
    """
    if not 1 <= count <= PER_ROLE_MAX:
        raise ConfigurationError(f"{name} must be from 1 to {PER_ROLE_MAX}, got {count}")


def role_child(settings: Settings, command: Command, role: str, name: str, *flags: str) -> Child:
    """Describe one role process."""
    return Child(
        name=name,
        argv=command(role, flags),
        ready=READY_LINES[role],
        kill_after_s=settings.drain_s + KILL_MARGIN_S,
    )


def role_children(
    settings: Settings, ports: Sequence[int], workers: int, command: Command
) -> list[Child]:
    """Describe the role processes: an API node per port, the workers, one jobs role."""
    child = partial(role_child, settings, command)
    return [
        *(
            child("api", f"api {port}", "--host", settings.host, "--port", str(port))
            for port in ports
        ),
        *(child("worker", f"worker {number}") for number in range(1, workers + 1)),
        child("jobs", "jobs"),
    ]


def guard_child(server: PrivateServer, settings: Settings, name: str = "redis") -> Child:
    """Describe the guard of a private server. It is never hurried, because Redis must save."""
    return Child(
        name=name,
        argv=redis_guard.guard_argv(server, leave_s=settings.drain_s + KILL_MARGIN_S),
        ready=redis_guard.READY_LINE,
        kill_after_s=redis_guard.SERVER_KILL_AFTER_S + KILL_MARGIN_S,
        can_hurry=False,
        pass_fds=(server.lock_fd,),
    )


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


async def supervise(
    settings: Settings,
    stages: Sequence[Sequence[Child]],
    name: str,
    greet: Callable[[float], list[str]],
) -> int:
    """Run children until a signal; return the exit code.

    Args:
        stages: started in this order.
        name: the command's name in messages.
        greet: returns the lines for standard output when all children are ready; called with the
            seconds that the start took.
    """
    began = time.monotonic()
    is_json = settings.log == "json" or (settings.log == "" and not sys.stderr.isatty())
    supervisor = Supervisor(
        child_environ(settings, "json" if is_json else "text"),
        say=lambda line: write_lines(f"tailrace {name}: {line}"),
        relay=relay_json if is_json else relay_text,
    )
    loop = asyncio.get_running_loop()
    # A shell starts `tailrace up &` with SIGINT ignored; the handler makes `kill -INT` work.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        is_nohup = number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
        if not is_nohup:
            loop.add_signal_handler(number, supervisor.stop)

    def on_ready() -> None:
        write_lines(*greet(time.monotonic() - began), stream=sys.stdout.fileno())

    code = await supervisor.run(stages, on_ready)
    write_lines(f"tailrace {name}: ended")
    return code


def child_environ(settings: Settings, log: str) -> dict[str, str]:
    """Return the environment of the roles: ours, the address of Redis, and this checkout's code.

    Args:
        log: the value of TAILRACE_LOG. A role writes into our pipe, so it cannot see whether we
            have a terminal.
    """
    path = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "TAILRACE_REDIS_URL": settings.redis_url,
        "TAILRACE_JOBS_REDIS_URL": settings.jobs_redis_url,
        # An absolute path, so that all roles use the same directory.
        "TAILRACE_DATA_DIR": str(Path(settings.data_dir).resolve()),
        "TAILRACE_LOG": log,
        "TAILRACE_MODELS": settings.models,
        "TAILRACE_MODELS_SKIP": settings.models_skip,
    }


def greeting(settings: Settings, ports: Sequence[int], took_s: float) -> list[str]:
    """Return the lines that say what to do next; the commands can be pasted."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "") else settings.host
    urls = [url_of(host, port) for port in ports]
    key = " -H 'authorization: Bearer YOUR-KEY'" if settings.api_keys or settings.has_tokens else ""
    redis_cli = f"redis-cli {redis_address(settings.redis_url)}"
    return [
        "",
        f"Tailrace is ready after {took_s:.1f} s.",
        "",
        *(f"  {'page' if url is urls[0] else 'node':<8}{url}/" for url in urls),
        f"  stream  curl -N {urls[0]}/v1/generations -H 'accept: text/event-stream'{key} \\",
        "            -H 'content-type: application/json' -d '{\"prompt\": \"Hello\"}'",
        f"  logs    {redis_cli} --scan --pattern 'tr:*:log'",
        f"          {redis_cli} XRANGE 'tr:{{ID}}:log' - +",
        "",
        "Ctrl-C drains and ends.",
        "",
    ]


def url_of(host: str, port: int) -> str:
    """Return the URL of a node; an IPv6 address gets brackets."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def redis_address(url: str) -> str:
    """Return the option of redis-cli for a server, without user and password."""
    if (read := parse_redis_url(url)).cluster:
        host, port = read.cluster[0]
        secret = f"-a $(cat {read.login.password_file}) " if read.login.password_file else ""
        return f"{secret}-c -h {host} -p {port}"
    parts = urlsplit(url)
    if parts.scheme in SENTINEL_SCHEMES and (read := parse_redis_url(url)).sentinels:
        (host, port), service = read.sentinels.hosts[0], read.sentinels.service
        asked = f"redis-cli -h {host} -p {port} SENTINEL GET-MASTER-ADDR-BY-NAME {service}"
        return f"-u redis://$({asked} | paste -sd:)/{read.database}"
    if parts.scheme == "unix":
        return f"-s {parts.path}"
    netloc = parts.netloc.rpartition("@")[2]
    return f"-u {urlunsplit((parts.scheme, netloc, parts.path, '', ''))}"


def relay_text(name: str, line: bytes) -> None:
    """Write a line of a role after the role's name."""
    write_lines(f"{name:<10} {_printable(line)}")


def relay_json(name: str, line: bytes) -> None:
    """Write a line of a role without its name: the JSON has the role already."""
    write_lines(_printable(line))


def _printable(line: bytes) -> str:
    """Return a line without control characters: not every line comes from the role's log."""
    return plain_line(line.decode(errors="replace").rstrip().expandtabs())


def write_lines(*lines: str, stream: int = 2) -> None:
    """Write lines to a file descriptor. Errors are ignored: a closed terminal must not stop us."""
    data = "".join(f"{line}\n" for line in lines).encode()
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(stream, data) :]
