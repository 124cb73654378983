"""The command `tailrace`: parses the command line, reads the settings, and runs the command.

Each command is imported only when it runs, so `tailrace up` needs little memory and `tailrace
cancel` starts fast. Invariant: a mistake of the operator is one line on standard error and exit
code 2. Only this module imports both `api` and `workers`.
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
        return up(
            settings,
            api=args.api,
            workers=args.workers,
            has_cluster=args.cluster,
            is_port_named=is_port_named,
        )
    if args.command == "doctor":
        from cli.doctor import doctor

        return doctor(settings, continuation=args.continuation)
    if args.command == "bench":
        from cli.client.bench import bench

        return bench(settings, args)
    if args.command == "models":
        from cli.models import discover

        return discover(args.output)
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
    from cli.client import terminal

    command: Callable[[Settings, argparse.Namespace], int] = getattr(terminal, args.command)
    return command(settings, args)


def run_role(settings: Settings, args: argparse.Namespace) -> int:
    """Run one role in this process; return its exit code when it has drained."""
    logs.configure(settings, args.command)
    if ignored := service_variables(os.environ):
        log.warning("service variables ignored", extra={"variables": " ".join(ignored)})
    raise_file_limit()
    os.umask(UMASK)
    if args.lifeline:
        lifeline.hold(settings.drain_s + 5.0)
        # Several workers of `up` cannot have one port; the nodes show their counters.
        settings = dataclasses.replace(settings, metrics_port=0)
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
    _add_terminal(commands)
    _add_accounts(commands)
    _add_batch(commands)
    _add_models(commands)
    doctor = "check Python, Redis, the models and the limits of this machine"
    examine = commands.add_parser("doctor", help=doctor, description=doctor)
    what = "try whether this model's server continues partial answers, and tell the workers"
    examine.add_argument("--continuation", default="", metavar="MODEL", help=what)
    _add_bench(commands)
    return parser


def _add_processes(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "run everything on this machine: Redis, API nodes, workers, jobs"
    up = commands.add_parser("up", help=what, description=what)
    up.add_argument("--api", type=int, default=1, metavar="N", help="API nodes (1)")
    up.add_argument("--workers", type=int, default=1, metavar="N", help="workers (1)")
    up.add_argument(
        "--cluster", action="store_true", help="three masters of a Redis Cluster, to try it out"
    )
    _add_address(up, "port of the first API node; the others get the next ports (8000)")
    what = "a model that this machine computes, without a server and a key"
    up.add_argument("--model", dest="models", choices=["smollm2"], help=what)

    for role, what in (
        ("api", "run one API node"),
        ("worker", "run one worker"),
        ("jobs", "run the jobs role: batches, schedules, webhooks, clean-up"),
    ):
        command = commands.add_parser(role, help=what, description=what)
        # Set by `up`: the role ends when its standard input closes, because the supervisor died.
        command.add_argument("--lifeline", action="store_true", help=argparse.SUPPRESS)
        if role != "api":
            what = "show metrics for Prometheus on this port, at /metrics (none)"
            command.add_argument("--metrics-port", type=int, metavar="P", help=what)
        if role == "api":
            _add_address(command, "port to listen on (8000)")
            processes = "nodes on this port; the kernel distributes the connections (1)"
            command.add_argument("--processes", type=int, default=1, metavar="N", help=processes)
            command.add_argument("--share-port", action="store_true", help=argparse.SUPPRESS)


def _add_address(command: argparse.ArgumentParser, port_help: str) -> None:
    command.add_argument("--host", help="address to listen on (127.0.0.1)")
    command.add_argument("--port", type=int, metavar="P", help=port_help)


def _add_terminal(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "send a prompt and print the answer as it comes"
    chat = commands.add_parser("chat", help=what, description=what)
    chat.add_argument("prompt", nargs="?", help="the prompt; default: read standard input")
    chat.add_argument("--model", default="", help="a model of the models file (the first)")
    chat.add_argument("--session", default="", help="a name that groups generations")

    what = "print a generation's events, from the start or after an event id"
    tail = commands.add_parser("tail", help=what, description=what)
    tail.add_argument("id", help="the generation's id")
    tail.add_argument("--after", default="", metavar="EVENT-ID", help="for example 1-42")

    what = "cancel a generation"
    cancel = commands.add_parser("cancel", help=what, description=what)
    cancel.add_argument("id", help="the generation's id")

    what = "list running and waiting generations; with --session all of that session"
    ps = commands.add_parser("ps", help=what, description=what)
    ps.add_argument("--session", default="", help="the session's name")

    for command in (chat, tail, cancel, ps):
        _add_server(command)


def _add_accounts(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "print the usage of an owner by model and day"
    usage = commands.add_parser("usage", help=what, description=what)
    usage.add_argument("--from", dest="first", default="", metavar="DAY", help="first day, UTC")
    usage.add_argument("--to", dest="last", default="", metavar="DAY", help="last day (today)")
    by = "members that divide the rows, with commas: owner, model, day (all three)"
    usage.add_argument("--by", default="", metavar="NAMES", help=by)
    usage.add_argument("--owner", default="", help="for operators: another owner, or '*' for all")
    form = usage.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the rows as JSON")
    form.add_argument("--csv", action="store_true", help="print the rows as CSV")

    what = "delete everything of an owner: for operators"
    forget = commands.add_parser("forget", help=what, description=what)
    forget.add_argument("owner", metavar="OWNER", help="the owner's name")
    forget.add_argument("--keep-usage", action="store_true", help="leave the sums of usage")
    forget.add_argument("--yes", action="store_true", help="do not ask")
    for command in (usage, forget):
        _add_server(command)


def _add_models(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "find model servers on this machine"
    models = commands.add_parser("models", help=what, description=what)
    actions = models.add_subparsers(dest="action", required=True, metavar="ACTION")
    what = "ask the usual ports of this machine, and print a models file"
    discover = actions.add_parser("discover", help=what, description=what)
    what = "write a new file instead of printing"
    discover.add_argument("-o", "--output", default="", metavar="FILE", help=what)


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "send prompts to a deployment and print its response times"
    bench = commands.add_parser("bench", help=what, description=what)
    bench.add_argument("--prompts", type=int, default=100, metavar="N", help="prompts (100)")
    bench.add_argument(
        "--at-once", type=int, default=10, metavar="N", help="prompts at the same time (10)"
    )
    bench.add_argument("--model", default="", help="a model of the deployment (the first)")
    bench.add_argument("--prompt", default="Tell me about rivers.", help="the text of each prompt")
    bench.add_argument("--max-tokens", type=int, metavar="N", help="limit of each answer")
    bench.add_argument("--json", action="store_true", help="print the results as JSON")
    _add_server(bench)


def _add_batch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "submit a batch, follow its progress, get its results"
    batch = commands.add_parser("batch", help=what, description=what)
    actions = batch.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, what: str, has_id: bool = True) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=what, description=what)
        if has_id:
            action.add_argument("id", help="the batch's id")
        _add_server(action)
        return action

    submit = add("submit", "upload a file of requests, one per line, and start a batch", False)
    submit.add_argument("file", metavar="FILE", help="JSON lines in the form of OpenAI's Batch API")
    submit.add_argument("--endpoint", help="the endpoint of the requests (that of the first line)")
    submit.add_argument("--window", default="24h", help="time limit of the batch (24h)")
    redrive = add("redrive", "start a new batch with the failed lines of a batch")
    for action in (submit, redrive):
        action.add_argument("--watch", action="store_true", help="follow the batch to its end")
    add("watch", "follow a batch to its end")
    add("ls", "list batches, the newest first", False)
    add("cancel", "cancel a batch; finished lines are kept")
    results = add("results", "print the results of a batch, one line for each request")
    results.add_argument("-o", "--output", metavar="FILE", help="write to this file instead")
    results.add_argument("--errors", action="store_true", help="print the failed lines instead")


def _add_server(command: argparse.ArgumentParser) -> None:
    command.add_argument("--url", help="an API node (http://127.0.0.1:8000)")
    command.add_argument("--key", help="the API key; TAILRACE_KEY is safer")


if __name__ == "__main__":
    sys.exit(main())
