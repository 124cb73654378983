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
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from urllib.parse import urlsplit, urlunsplit

from cli.up import redis_guard
from cli.up.break_control import BreakPlan, Endpoint
from cli.up.found_models import find_models
from cli.up.keeper import Child
from cli.up.output import write_lines
from cli.up.ports import choose_metrics_ports, choose_ports
from cli.up.privacy import open_directories
from cli.up.private_cluster import private_masters
from cli.up.private_server import PrivateServer, private_server
from cli.up.running import supervise
from shared.config.models import BUILT_IN, Model, load_models, missing_parts, missing_variables
from shared.config.redis_url import SENTINEL_SCHEMES, parse_redis_url
from shared.config.settings import Settings
from shared.errors import ConfigurationError

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
    has_metrics: bool = True,
    command: Command = role_command,
) -> int:
    """Run all roles until SIGINT or SIGTERM; return the exit code.

    Args:
        has_cluster: start three masters of a private cluster, and the private server for arq only.
        is_port_named: a flag or a variable names the port. Otherwise the nodes take the next free
            ports when the usual ones are in use.
        has_metrics: workers and the jobs role show their metrics on ports of their own.

    Raises:
        ConfigurationError: a port is in use, no Redis server is installed, or a setting is invalid.
    """
    check_count("--api", api)
    check_count("--workers", workers)
    settings = skip_unset_models(find_models(settings, write_lines))
    ports = choose_ports(settings, api, is_named=is_port_named)
    metrics = metrics_ports(settings, workers + 1, after=ports[-1]) if has_metrics else []
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
        faults = plan_faults(settings, command, server, masters)
        given = {"TAILRACE_BREAK_CONTROL": faults.endpoint.address} if faults else {}
        roles = role_children(settings, ports, workers, command, api_environ=given, metrics=metrics)
        guards = [guard_child(server, settings)] if server else []
        guards += [
            guard_child(master, settings, f"master {number}")
            for number, master in enumerate(masters, 1)
        ]
        stages = [guards, roles] if guards else [roles]
        greet = partial(greeting, settings, ports, metrics=metrics)
        return asyncio.run(supervise(settings, stages, "up", greet, faults=faults))


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


def plan_faults(
    settings: Settings,
    command: Command,
    server: PrivateServer | None,
    masters: Sequence[PrivateServer],
) -> BreakPlan | None:
    """Return what the chat page may break; None: nothing, because others can reach the nodes."""
    if not settings.is_loopback:
        return None
    return BreakPlan(
        Endpoint(),
        lease_s=settings.lease_s,
        spare=partial(role_child, settings, command, "worker"),
        is_own_redis=server is not None,
        masters={
            master.cluster_ports[0]: f"master {number}"
            for number, master in enumerate(masters, 1)
            if master.cluster_ports
        },
    )


def role_children(
    settings: Settings,
    ports: Sequence[int],
    workers: int,
    command: Command,
    *,
    api_environ: Mapping[str, str] | None = None,
    metrics: Sequence[int] = (),
) -> list[Child]:
    """Describe the role processes: an API node per port, the workers, one jobs role.

    Args:
        api_environ: further variables of the nodes.
        metrics: ports for the metrics of the workers and of the jobs role, or none.
    """
    child = partial(role_child, settings, command)
    nodes = [
        child(
            "api", f"api {port}", "--host", settings.host, "--port", str(port),
            *grpc_flags(settings, number),
        )
        for number, port in enumerate(ports)
    ]  # fmt: skip
    return [
        *(dataclasses.replace(node, environ=api_environ or {}) for node in nodes),
        *(
            child("worker", f"worker {number + 1}", *metrics_flags(metrics, number))
            for number in range(workers)
        ),
        child("jobs", "jobs", *metrics_flags(metrics, workers)),
    ]


def metrics_ports(settings: Settings, count: int, *, after: int) -> list[int]:
    """Return the ports for metrics; none, and say so, if there are not enough free ones."""
    found = choose_metrics_ports(settings, count, after=after)
    if not found:
        write_lines("tailrace up: no free ports for metrics, so only the nodes show theirs")
    return found


def metrics_flags(ports: Sequence[int], number: int) -> tuple[str, ...]:
    """Return the flags of a role for its metrics."""
    return ("--metrics-port", str(ports[number])) if ports else ()


def grpc_flags(settings: Settings, number: int) -> tuple[str, ...]:
    """Return the flags of API node `number`, counted from 0, for its port for gRPC."""
    if not settings.grpc_port:
        return ()
    return ("--grpc-port", str(settings.grpc_port + number))


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


def greeting(
    settings: Settings, ports: Sequence[int], took_s: float, *, metrics: Sequence[int] = ()
) -> list[str]:
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
        f"  console {urls[0]}/console",
        *metrics_lines(settings, metrics),
        f"  stream  curl -N {urls[0]}/v1/generations -H 'accept: text/event-stream'{key} \\",
        "            -H 'content-type: application/json' -d '{\"prompt\": \"Hello\"}'",
        f"  logs    {redis_cli} --scan --pattern 'tr:*:log'",
        f"          {redis_cli} XRANGE 'tr:{{ID}}:log' - +",
        "",
        "Ctrl-C drains and ends.",
        "",
    ]


def metrics_lines(settings: Settings, ports: Sequence[int]) -> list[str]:
    """Return the line that names the ports for metrics, as few words as there can be."""
    if not ports:
        return []
    host = settings.metrics_host or "127.0.0.1"
    *workers, jobs = (str(port) for port in ports)
    ranges = workers[0] if len(workers) == 1 else f"{workers[0]} to {workers[-1]}"
    if int(workers[-1]) - int(workers[0]) != len(workers) - 1:
        ranges = ", ".join(workers)
    return [f"  metrics {host}: workers {ranges}, jobs {jobs}; of each node at /metrics"]


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
