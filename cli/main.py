"""The command `tailrace`: parses the command line, reads the settings, and runs the command.

Each command is imported only when it runs, so `tailrace up` needs little memory and `tailrace
cancel` starts fast. Invariant: a mistake of the operator is one line on standard error and exit
code 2. Only this module and cli/doctor.py import both `api` and `workers`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import resource
import sys
from collections.abc import Callable, Sequence

from cli.client.exit_code import EXIT_INTERRUPTED
from cli.client.parsers import JSON_HELP, add, add_client_commands, add_completion, add_models_ls
from cli.up import lifeline
from cli.up.keeper import EXIT_CONFIGURATION
from cli.up.privacy import UMASK
from cli.version import VERSION
from shared.config import logs
from shared.config.settings import Settings, is_given, service_variables
from shared.errors import ConfigurationError
from shared.text.plain_text import plain_line
from shared.text.redaction import redact

log = logging.getLogger(__name__)

OPEN_FILES_MAX = 65_536  # each reader needs one

ROLES = ("api", "worker", "jobs")
ROLE_CODES = "exit codes: 0 drained; 1 ended in another way; 2 a setting is invalid"
EPILOG = """\
Settings are TAILRACE_... variables of the environment; docs/operations.md lists them.
`tailrace up` needs none of them.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    args = build_parser().parse_args(argv)
    try:
        return run(args)
    except ConfigurationError as exc:
        print(f"tailrace {args.command}: {redact(one_line(str(exc)))}", file=sys.stderr)
        return EXIT_CONFIGURATION
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def run(args: argparse.Namespace) -> int:
    """Read the settings and run the command that `args` names.

    Raises:
        ConfigurationError: a setting is invalid, or the command cannot work with it.
    """
    if args.command == "completion":
        from cli.completion import completion

        return completion(build_parser(), args.shell)
    settings = with_flags(Settings.from_env(), args)
    if args.command == "api" and args.processes != 1:
        from cli.up.nodes import nodes

        return nodes(settings, args.processes)
    if args.command in ROLES:
        return run_role(settings, args)
    if args.command == "up":
        from api.edge.auth import Authenticator
        from cli.up.up import up

        Authenticator.from_settings(settings)  # report an error once, and not from every node
        os.umask(UMASK)
        is_port_named = args.port is not None or is_given("port", os.environ)
        is_metrics_given = args.metrics_port is not None or is_given("metrics_port", os.environ)
        return up(
            settings,
            api=args.api,
            workers=args.workers,
            has_cluster=args.cluster,
            is_port_named=is_port_named,
            has_metrics=bool(settings.metrics_port) or not is_metrics_given,
        )
    if args.command == "doctor":
        from cli.doctor import doctor

        return doctor(settings, continuation=args.continuation, is_json=args.json)
    if args.command == "models" and args.action == "discover":
        from cli.models import discover

        return discover(args.output, is_json=args.json)
    return ask(settings, args)


def ask(settings: Settings, args: argparse.Namespace) -> int:
    """Run a command that asks an API node; return its exit code."""
    if args.command == "bench":
        from cli.client.bench import bench

        return bench(settings, args)
    if args.command == "batch":
        from cli.client.batch import batch

        return batch(settings, args)
    if args.command in ("usage", "forget"):
        from cli.client import accounts

        return (
            accounts.usage(settings, args)
            if args.command == "usage"
            else accounts.forget(settings, args)
        )
    if args.command in ("schedules", "models"):
        from cli.client import listings

        return (
            listings.schedules(settings, args)
            if args.command == "schedules"
            else listings.models(settings, args)
        )
    if args.command == "trace":
        from cli.client.trace import trace

        return trace(settings, args)
    if args.command == "chat" and args.prompt is None and not args.json and _is_at_terminal():
        from cli.client.conversation import converse

        return converse(settings, args)
    if args.command == "top":
        from cli.client.top import top

        return top(settings, args)
    from cli.client import terminal

    command: Callable[[Settings, argparse.Namespace], int] = getattr(terminal, args.command)
    return command(settings, args)


def _is_at_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def run_role(settings: Settings, args: argparse.Namespace) -> int:
    """Run one role in this process; return its exit code when it has drained."""
    logs.configure(settings, args.command)
    if ignored := service_variables(os.environ):
        log.warning("service variables ignored", extra={"variables": " ".join(ignored)})
    raise_file_limit()
    os.umask(UMASK)
    if args.lifeline:
        lifeline.hold(settings.drain_s + 5.0)
        # Several workers of `up` cannot have the one port of the settings: `up` names theirs.
        given = getattr(args, "metrics_port", None)
        settings = dataclasses.replace(settings, metrics_port=given or 0)
    if args.command == "api":
        from api.server import serve as serve_node

        return serve_node(settings, shares_port=args.share_port)
    if args.command == "worker":
        from workers.main import serve
    else:
        from jobs.role import serve
    return serve(settings)


def with_flags(settings: Settings, args: argparse.Namespace) -> Settings:
    """Return the settings with the values of flags; a flag wins over the environment."""
    fields = {field.name for field in dataclasses.fields(Settings)}
    given = {name: value for name, value in vars(args).items() if name in fields}
    return dataclasses.replace(
        settings, **{name: value for name, value in given.items() if value is not None}
    )


def raise_file_limit() -> None:
    """Raise the soft limit of open files. The usual 1,024 would limit a node to as many readers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(OPEN_FILES_MAX, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with contextlib.suppress(ValueError, OSError):  # macOS has another, lower limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def one_line(text: str) -> str:
    """Return `text` on one line, without control characters."""
    return plain_line(" ".join(text.split()))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="tailrace",
        description="Prompts in on any node, resumable token streams out on any node.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tailrace {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_processes(commands)
    add_client_commands(commands)
    _add_models(commands)
    add_completion(commands)
    doctor = "check Python, Redis, the models and the limits of this machine"
    examples = ("tailrace doctor", "tailrace doctor --continuation MODEL", "tailrace doctor --json")
    notes = "exit codes: 0 nothing is wrong; 1 a finding has to be mended; 2 a setting is invalid"
    examine = add(commands, "doctor", doctor, examples, notes)
    what = "try whether this model's server continues partial answers, and tell the workers"
    examine.add_argument("--continuation", default="", metavar="MODEL", help=what)
    examine.add_argument("--json", action="store_true", help=JSON_HELP)
    return parser


def _add_processes(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "run everything on this machine: Redis, API nodes, workers, jobs"
    examples: tuple[str, ...] = ("tailrace up", "tailrace up --api 2 --workers 2 --port 8010")
    up = add(commands, "up", what, examples, ROLE_CODES)
    up.add_argument("--api", type=int, default=1, metavar="N", help="API nodes (1)")
    up.add_argument("--workers", type=int, default=1, metavar="N", help="workers (1)")
    up.add_argument(
        "--cluster", action="store_true", help="three masters of a Redis Cluster, to try it out"
    )
    _add_address(up, "port of the first API node; the others get the next ports (8000)")
    what = (
        "first port for metrics of workers and jobs; 0: none (the next free one behind the API's)"
    )
    up.add_argument("--metrics-port", type=int, metavar="P", help=what)
    what = "port of the first API node for gRPC; the others get the next ports (none)"
    up.add_argument("--grpc-port", type=int, metavar="P", help=what)
    what = "a model that this machine computes, without a server and a key"
    up.add_argument("--model", dest="models", choices=["smollm2"], help=what)

    redis = "TAILRACE_REDIS_URL=redis://127.0.0.1:6379/0 tailrace"
    for role, what, flags in (
        ("api", "run one API node", "--host 0.0.0.0"),
        ("worker", "run one worker", "--metrics-port 9101"),
        ("jobs", "run the jobs role: batches, schedules, webhooks, clean-up", ""),
    ):
        examples = (f"{redis} {role} {flags}".rstrip(),)
        command = add(commands, role, what, examples, ROLE_CODES)
        # Set by `up`: the role ends when its standard input closes, because the supervisor died.
        command.add_argument("--lifeline", action="store_true", help=argparse.SUPPRESS)
        if role != "api":
            what = "show metrics for Prometheus on this port, at /metrics (none)"
            command.add_argument("--metrics-port", type=int, metavar="P", help=what)
        if role == "api":
            _add_address(command, "port to listen on (8000)")
            what = "port for gRPC clients, which needs the extra grpc (none)"
            command.add_argument("--grpc-port", type=int, metavar="P", help=what)
            processes = "nodes on this port; the kernel distributes the connections (1)"
            command.add_argument("--processes", type=int, default=1, metavar="N", help=processes)
            command.add_argument("--share-port", action="store_true", help=argparse.SUPPRESS)


def _add_address(command: argparse.ArgumentParser, port_help: str) -> None:
    command.add_argument("--host", help="address to listen on (127.0.0.1)")
    command.add_argument("--port", type=int, metavar="P", help=port_help)


def _add_models(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "list the models of a node, and find model servers on this machine"
    examples = ("tailrace models ls", "tailrace models discover -o models.toml")
    models = add(commands, "models", what, examples)
    actions = models.add_subparsers(dest="action", required=True, metavar="ACTION")
    what = "ask the usual ports of this machine, and print a models file"
    examples = ("tailrace models discover -o models.toml", "tailrace models discover --json")
    notes = "exit codes: 0 servers found; 1 none found; 2 the file cannot be written"
    discover = add(actions, "discover", what, examples, notes)
    what = "write a new file instead of printing"
    discover.add_argument("-o", "--output", default="", metavar="FILE", help=what)
    discover.add_argument("--json", action="store_true", help=JSON_HELP)
    add_models_ls(actions)


if __name__ == "__main__":
    sys.exit(main())
