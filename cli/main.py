"""`tailrace`: reads the command line and the environment, and hands over to the command.

Commands are imported when they run: `tailrace up` stays small and `tailrace cancel` starts at once.
Invariant: what the operator got wrong is one line on standard error and exit code 2. The only place
where the packages `api` and `workers` meet.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import resource
import sys
from collections.abc import Callable, Sequence

from cli.up import lifeline
from cli.up.privacy import UMASK
from shared.config import logs
from shared.config.settings import Settings
from shared.errors import ConfigurationError
from shared.text.plain_text import plain_line
from shared.text.redaction import redact

EXIT_CONFIGURATION = 2
EXIT_INTERRUPTED = 130  # as a shell reports SIGINT
OPEN_FILES_WANTED = 65_536  # one per reader

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
        ConfigurationError: a setting is wrong, or the command cannot work with it.
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

        Authenticator.from_settings(settings)  # one line from here instead of one from every node
        os.umask(UMASK)
        return up(settings, api=args.api, workers=args.workers)
    if args.command == "doctor":
        from cli.doctor import doctor

        return doctor(settings)
    if args.command == "bench":
        from cli.client.bench import bench

        return bench(settings, args)
    if args.command == "batch":
        from cli.client.batch import batch

        return batch(settings, args)
    from cli.client import terminal

    command: Callable[[Settings, argparse.Namespace], int] = getattr(terminal, args.command)
    return command(settings, args)


def run_role(settings: Settings, args: argparse.Namespace) -> int:
    """Become one role; return when it has drained."""
    logs.configure(settings, args.command)
    raise_file_limit()
    os.umask(UMASK)
    if args.lifeline:
        lifeline.hold(settings.drain_s + 5.0)
    if args.command == "api":
        from api.server import serve as serve_node

        return serve_node(settings, shares_port=args.share_port)
    if args.command == "worker":
        from workers.main import serve
    else:
        from jobs.role import serve
    return serve(settings)


def with_flags(settings: Settings, args: argparse.Namespace) -> Settings:
    """Let the flags that name a setting win over the environment."""
    named = {field.name for field in dataclasses.fields(Settings)}
    given = {name: value for name, value in vars(args).items() if name in named}
    return dataclasses.replace(
        settings, **{name: value for name, value in given.items() if value is not None}
    )


def raise_file_limit() -> None:
    """Use as many open files as the system allows: the usual soft limit is 1,024 readers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else min(OPEN_FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):  # macOS has a lower limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def one_line(text: str) -> str:
    return plain_line(" ".join(text.split()))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tailrace",
        description="Prompts in on any node, resumable token streams out on any node.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_processes(commands)
    _add_terminal(commands)
    _add_batch(commands)
    doctor = "check Python, Redis, the models and the limits of this machine"
    commands.add_parser("doctor", help=doctor, description=doctor)
    _add_bench(commands)
    return parser


def _add_processes(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "run everything on this machine: Redis, API nodes, workers, jobs"
    up = commands.add_parser("up", help=what, description=what)
    up.add_argument("--api", type=int, default=1, metavar="N", help="API nodes (1)")
    up.add_argument("--workers", type=int, default=1, metavar="N", help="workers (1)")
    _add_address(up, "the first API node's port; the next ones follow (8000)")

    for role, what in (
        ("api", "run one API node"),
        ("worker", "run one worker"),
        ("jobs", "run the jobs role: what nobody else looks after"),
    ):
        command = commands.add_parser(role, help=what, description=what)
        # Set by `up`: end when standard input ends, that is, when the supervisor has died.
        command.add_argument("--lifeline", action="store_true", help=argparse.SUPPRESS)
        if role == "api":
            _add_address(command, "where to listen (8000)")
            many = "as many nodes on this one port; the kernel deals out connections (1)"
            command.add_argument("--processes", type=int, default=1, metavar="N", help=many)
            command.add_argument("--share-port", action="store_true", help=argparse.SUPPRESS)


def _add_address(command: argparse.ArgumentParser, port_help: str) -> None:
    command.add_argument("--host", help="address to listen on (127.0.0.1)")
    command.add_argument("--port", type=int, metavar="P", help=port_help)


def _add_terminal(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "send a prompt and print the answer as it comes"
    chat = commands.add_parser("chat", help=what, description=what)
    chat.add_argument("prompt", nargs="?", help="the prompt; standard input when left out")
    chat.add_argument("--model", default="", help="a model of the models file (its first)")
    chat.add_argument("--session", default="", help="a name that groups generations")

    what = "print a generation's events, from the start or after an event id"
    tail = commands.add_parser("tail", help=what, description=what)
    tail.add_argument("id", help="the generation's id")
    tail.add_argument("--after", default="", metavar="EVENT-ID", help="for example 1-42")

    what = "cancel a generation"
    cancel = commands.add_parser("cancel", help=what, description=what)
    cancel.add_argument("id", help="the generation's id")

    what = "list what runs and waits; with --session all generations of it"
    ps = commands.add_parser("ps", help=what, description=what)
    ps.add_argument("--session", default="", help="the session's name")

    for command in (chat, tail, cancel, ps):
        _add_server(command)


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "ask prompts of a deployment, and print how it answered"
    bench = commands.add_parser("bench", help=what, description=what)
    bench.add_argument("--prompts", type=int, default=100, metavar="N", help="how many (100)")
    bench.add_argument("--at-once", type=int, default=10, metavar="N", help="side by side (10)")
    bench.add_argument("--model", default="", help="a model of the deployment (its first)")
    bench.add_argument("--prompt", default="Tell me about rivers.", help="what to ask")
    bench.add_argument("--max-tokens", type=int, metavar="N", help="of each answer")
    bench.add_argument("--json", action="store_true", help="print the figures as JSON")
    _add_server(bench)


def _add_batch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "submit a batch, follow it, get its results"
    batch = commands.add_parser("batch", help=what, description=what)
    actions = batch.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, what: str, has_id: bool = True) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=what, description=what)
        if has_id:
            action.add_argument("id", help="the batch's id")
        _add_server(action)
        return action

    submit = add("submit", "upload a file of requests, one a line, and start a batch", False)
    submit.add_argument("file", metavar="FILE", help="JSON lines, as OpenAI's Batch API has them")
    submit.add_argument("--endpoint", help="where its lines go (as the first line says)")
    submit.add_argument("--window", default="24h", help="time for all of it (24h)")
    redrive = add("redrive", "ask again for the lines of a batch that failed, as a new batch")
    for action in (submit, redrive):
        action.add_argument("--watch", action="store_true", help="follow it to its end")
    add("watch", "follow a batch to its end")
    add("ls", "list batches, the newest first", False)
    add("cancel", "cancel a batch; what is done stays")
    results = add("results", "print what a batch has given, one line for each request")
    results.add_argument("-o", "--output", metavar="FILE", help="write it there instead")
    results.add_argument("--errors", action="store_true", help="the lines that failed instead")


def _add_server(command: argparse.ArgumentParser) -> None:
    command.add_argument("--url", help="an API node (http://127.0.0.1:8000)")
    command.add_argument("--key", help="the credentials; better in TAILRACE_KEY")


if __name__ == "__main__":
    sys.exit(main())
