"""The command lines of the terminal commands: arguments, help and examples. Loads no command."""

from __future__ import annotations

import argparse
from typing import Any

Parser = argparse.ArgumentParser

SHELLS = ("bash", "zsh", "fish")
GENERATION = "the generation's id"
JSON_HELP = "print JSON for a program"
EXIT_CODES = (
    "exit codes: 0 the answer is complete; 1 it failed or was cancelled; 2 the request is\n"
    "impossible (no server, no key, no such generation); 130 interrupted"
)
BATCH_EXAMPLES = {
    "submit": ("tailrace batch submit requests.jsonl --watch",),
    "redrive": ("tailrace batch redrive batch_… --watch",),
    "watch": ("tailrace batch watch batch_…",),
    "ls": ("tailrace batch ls --json",),
    "cancel": ("tailrace batch cancel batch_…",),
    "results": (
        "tailrace batch results batch_… -o results.jsonl",
        "tailrace batch results batch_… --errors | jq .error",
    ),
}
SIMPLE_CODES = "exit codes: 0 done; 2 the request is impossible; 130 interrupted"


def add_client_commands(commands: Any) -> None:
    """Add the commands that ask an API node.

    Args:
        commands: the subparsers of the command line.
    """
    _add_terminal(commands)
    _add_accounts(commands)
    _add_batch(commands)
    _add_schedules(commands)
    _add_bench(commands)


def add_completion(commands: Any) -> None:
    """Add the command that prints the completion for a shell."""
    what = "print the completion for a shell"
    examples = (
        'eval "$(tailrace completion bash)"',
        "tailrace completion zsh > ~/.zfunc/_tailrace",
        "tailrace completion fish > ~/.config/fish/completions/tailrace.fish",
    )
    command = add(commands, "completion", what, examples)
    command.add_argument("shell", choices=SHELLS, help="the shell")


def add(
    commands: Any, name: str, what: str, examples: tuple[str, ...] = (), notes: str = ""
) -> Parser:
    """Add one command with examples; return its parser."""
    shown = "".join(f"  {line}\n" for line in examples)
    epilog = (f"examples:\n{shown}\n" if shown else "") + notes
    form = argparse.RawDescriptionHelpFormatter
    parser: Parser = commands.add_parser(
        name, help=what, description=what, epilog=epilog.strip() or None, formatter_class=form
    )
    return parser


def _add_terminal(commands: Any) -> None:
    what = "send a prompt and print the answer as it comes; without a prompt, hold a conversation"
    examples: tuple[str, ...] = (
        'tailrace chat "What is a lease?"',
        "git diff | tailrace chat --model big > review.md",
        "tailrace chat --session plans",
    )
    chat = add(commands, "chat", what, examples, EXIT_CODES)
    chat.add_argument(
        "prompt",
        nargs="?",
        help="the prompt; default: a conversation on a terminal, else standard input",
    )
    chat.add_argument("--model", default="", help="a model of the models file (the first)")
    chat.add_argument(
        "--session", default="", help="a name that groups generations; a conversation goes on"
    )
    what = "keep no lines of the conversation for the next one; TAILRACE_CHAT_HISTORY=off, too"
    chat.add_argument("--no-history", action="store_true", help=what)
    _add_json(chat, "print the events, one line of JSON each")

    what = "print a generation's events, from the start or after an event id; resumes after a cut"
    examples = ("tailrace tail gen_…", "tailrace tail gen_… --after 1-42 --json | jq .type")
    tail = add(commands, "tail", what, examples, EXIT_CODES)
    tail.add_argument("id", help=GENERATION)
    tail.add_argument("--after", default="", metavar="EVENT-ID", help="for example 1-42")
    _add_json(tail, "print the events, one line of JSON each")

    what = "cancel a generation"
    cancel = add(commands, "cancel", what, ("tailrace cancel gen_…",), SIMPLE_CODES)
    cancel.add_argument("id", help=GENERATION)
    _add_json(cancel)

    what = "print what happened to a generation, when, and in which process"
    examples = ("tailrace trace gen_…", "tailrace trace gen_… --json | jq '.data[].what'")
    trace = add(commands, "trace", what, examples, SIMPLE_CODES)
    trace.add_argument("id", help=GENERATION)
    _add_json(trace)

    what = "list running and waiting generations; with --session all of that session"
    examples = ("tailrace ps", "tailrace ps --session support --json | jq '.generations[].id'")
    ps = add(commands, "ps", what, examples, SIMPLE_CODES)
    ps.add_argument("--session", default="", help="the session's name")
    _add_json(ps)

    what = "watch workers, queue and running generations; for operators of all owners"
    examples = ("tailrace top", "tailrace top --once")
    top = add(commands, "top", what, examples, SIMPLE_CODES)
    top.add_argument("--once", action="store_true", help="print one picture and end")
    _add_json(top, "print one picture as JSON")

    for command in (chat, tail, cancel, trace, ps, top):
        _add_server(command)


def _add_accounts(commands: Any) -> None:
    what = "print the usage of an owner by model and day"
    examples = ("tailrace usage --from 2026-11-01", "tailrace usage --owner '*' --by owner --csv")
    usage = add(commands, "usage", what, examples, SIMPLE_CODES)
    usage.add_argument("--from", dest="first", default="", metavar="DAY", help="first day, UTC")
    usage.add_argument("--to", dest="last", default="", metavar="DAY", help="last day (today)")
    by = "members that divide the rows, with commas: owner, model, day (all three)"
    usage.add_argument("--by", default="", metavar="NAMES", help=by)
    usage.add_argument("--owner", default="", help="for operators: another owner, or '*' for all")
    form = usage.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the rows as JSON")
    form.add_argument("--csv", action="store_true", help="print the rows as CSV")

    what = "delete everything of an owner: for operators"
    notes = "exit codes: 0 done; 1 not confirmed; 2 the request is impossible; 130 interrupted"
    forget = add(commands, "forget", what, ("tailrace forget alice --yes",), notes)
    forget.add_argument("owner", metavar="OWNER", help="the owner's name")
    forget.add_argument("--keep-usage", action="store_true", help="leave the sums of usage")
    forget.add_argument("--yes", action="store_true", help="do not ask")
    _add_json(forget)
    for command in (usage, forget):
        _add_server(command)


def _add_bench(commands: Any) -> None:
    what = "send prompts to a deployment and print its response times"
    notes = "exit codes: 0 done; 1 a stream was incomplete or out of order; 2 no deployment"
    bench = add(commands, "bench", what, ("tailrace bench --prompts 200 --at-once 20",), notes)
    bench.add_argument("--prompts", type=int, default=100, metavar="N", help="prompts (100)")
    bench.add_argument(
        "--at-once", type=int, default=10, metavar="N", help="prompts at the same time (10)"
    )
    bench.add_argument("--model", default="", help="a model of the deployment (the first)")
    bench.add_argument("--prompt", default="Tell me about rivers.", help="the text of each prompt")
    bench.add_argument("--max-tokens", type=int, metavar="N", help="limit of each answer")
    bench.add_argument("--json", action="store_true", help="print the results as JSON")
    _add_server(bench)


def _add_batch(commands: Any) -> None:
    what = "submit a batch, follow its progress, get its results"
    examples = (
        "tailrace batch submit requests.jsonl --watch",
        "tailrace batch results batch_… -o results.jsonl",
    )
    notes = "exit codes: 0 done; 1 the batch did not complete; 2 the request is impossible"
    batch = add(commands, "batch", what, examples, notes)
    actions = batch.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, what: str, has_id: bool = True) -> Parser:
        parser = add(actions, name, what, BATCH_EXAMPLES[name])
        if has_id:
            parser.add_argument("id", help="the batch's id")
        _add_server(parser)
        return parser

    submit = action("submit", "upload a file of requests, one per line, and start a batch", False)
    submit.add_argument("file", metavar="FILE", help="JSON lines in the form of OpenAI's Batch API")
    submit.add_argument("--endpoint", help="the endpoint of the requests (that of the first line)")
    submit.add_argument("--window", default="24h", help="time limit of the batch (24h)")
    redrive = action("redrive", "start a new batch with the failed lines of a batch")
    for parser in (submit, redrive):
        parser.add_argument("--watch", action="store_true", help="follow the batch to its end")
    watch = action("watch", "follow a batch to its end")
    ls = action("ls", "list batches, the newest first", False)
    cancel = action("cancel", "cancel a batch; finished lines are kept")
    results = action("results", "print the results of a batch, one line of JSON for each request")
    for parser in (submit, redrive, watch, ls, cancel):
        _add_json(parser)
    _add_json(results, "changes nothing: the results are lines of JSON already")
    results.add_argument("-o", "--output", metavar="FILE", help="write to this file instead")
    results.add_argument("--errors", action="store_true", help="print the failed lines instead")


def _add_schedules(commands: Any) -> None:
    what = "list, show and delete schedules"
    examples = ("tailrace schedules ls", "tailrace schedules ls --owner '*' --json")
    schedules = add(commands, "schedules", what, examples, SIMPLE_CODES)
    actions = schedules.add_subparsers(dest="action", required=True, metavar="ACTION")
    what = "list schedules, with their next and last times in UTC"
    ls = add(actions, "ls", what, ("tailrace schedules ls --json",))
    ls.add_argument("--owner", default="", help="for operators: another owner, or '*' for all")
    show = add(actions, "show", "print one schedule", ("tailrace schedules show sched_…",))
    what = "end a schedule; what it has started goes on"
    delete = add(actions, "delete", what, ("tailrace schedules delete sched_…",))
    for command in (show, delete):
        command.add_argument("id", help="the schedule's id")
    for command in (ls, show, delete):
        _add_json(command)
        _add_server(command)


def add_models_ls(actions: Any) -> None:
    """Add the action that lists the models of a node."""
    ls = add(actions, "ls", "list the models of a node", ("tailrace models ls --json",))
    _add_json(ls)
    _add_server(ls)


def _add_json(command: Parser, what: str = JSON_HELP) -> None:
    command.add_argument("--json", action="store_true", help=what)


def _add_server(command: Parser) -> None:
    command.add_argument("--url", help="an API node (http://127.0.0.1:8000)")
    command.add_argument("--key", help="the API key; TAILRACE_KEY is safer")
