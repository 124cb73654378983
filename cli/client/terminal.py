"""`tailrace chat`, `tail`, `cancel` and `ps`: the native API from a terminal.

With --json, `chat` and `tail` print the events as lines of JSON, and the others one object.

Only the answer goes to standard output, as it arrives, so it can be piped. Reasoning, notes and
errors go to standard error. Text from a model, a server or a session name is printed through
shared/text/plain_text.py, because it may hold control sequences for the terminal. Only an answer
that goes into a pipe is not changed, so that a program gets the bytes of the model. A stream whose
connection breaks is resumed at its cursor, at any node that answers at the address. Exit codes: 0
the answer is complete, 1 it failed or was cancelled, 2 the request is not possible (no server, no
key, no such generation).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

from cli.client.client import Client, RequestRefused, ServerUnreachable
from cli.client.exit_code import EXIT_FAILED, EXIT_OK, EXIT_UNREACHABLE
from cli.client.typed_name import typed_name
from shared.config.settings import SILENT_LEASES_MAX, Settings
from shared.text.plain_text import plain_line, plain_text

DIM, PLAIN = "\x1b[2m", "\x1b[0m"  # SGR: faint, and reset
DEAD = "dead"  # the state of a worker
# The server's own `lease_s` is not known here.
DEAD_AFTER_S = SILENT_LEASES_MAX * Settings().lease_s
PROMPT_CHARS_MAX = 40  # in a table

ClientT = TypeVar("ClientT", bound=Client)


def chat(settings: Settings, args: argparse.Namespace) -> int:
    """Send a prompt and print the answer; Ctrl-C cancels it."""
    prompt = args.prompt
    if prompt is None or prompt == "-":
        prompt = sys.stdin.read().strip()
    if not prompt:
        return complain(
            f'no prompt: run {typed_name()} chat "…", or write the prompt to standard input'
        )
    body = {"prompt": prompt, "model": args.model or None, "session": args.session or None}
    return run_command(settings, lambda client: _chat(client, body, printer_of(args)))


def tail(settings: Settings, args: argparse.Namespace) -> int:
    """Print the events of an answer, one on each line; Ctrl-C only stops reading."""
    return run_command(
        settings, lambda client: _tail(client, args.id, args.after, is_json=args.json)
    )


def cancel(settings: Settings, args: argparse.Namespace) -> int:
    """Cancel a generation."""
    return run_command(settings, lambda client: _cancel(client, args.id, is_json=args.json))


def ps(settings: Settings, args: argparse.Namespace) -> int:
    """List running and waiting generations; with a session, all generations of it."""
    return run_command(settings, lambda client: _ps(client, args.session, is_json=args.json))


def run_command(settings: Settings, command: Any) -> int:
    """Run a command with a client of the settings' node, as `run_client` does."""
    return run_client(Client(settings.url, settings.key), command, _advice)


def run_client(client: ClientT, command: Any, advice: Callable[[RequestRefused], str]) -> int:
    """Run a command with a client; print an error as one line; return the exit code.

    Args:
        command: an async function of the opened client; returns the exit code.
        advice: returns the message for a refused request.
    """

    async def with_client() -> int:
        async with client as opened:
            result: int = await command(opened)
            return result

    try:
        return asyncio.run(with_client())
    except ServerUnreachable as exc:
        return complain(str(exc))
    except RequestRefused as exc:
        return complain(advice(exc))
    except BrokenPipeError:
        # The reader of our pipe has closed it. Python must not fail to flush its buffer at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


async def _chat(client: Client, body: dict[str, Any], printer: Printer | None = None) -> int:
    return await follow_or_cancel(client, await start(client, body), printer or Printer())


async def start(client: Client, body: dict[str, Any]) -> str:
    """Start a generation; return its id. Raises as `Client.create`."""
    # One key for all tries, so that a lost response does not start the prompt twice.
    accepted = await client.create(body, secrets.token_urlsafe(16))
    return str(accepted["id"])


async def follow_or_cancel(client: Client, generation_id: str, printer: Printer) -> int:
    """Print the answer. The first Ctrl-C cancels the generation, the second ends the program."""
    cancels: list[asyncio.Task[Any]] = []
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(outcome(_follow(client, generation_id, "", printer)))

        def interrupt() -> None:
            if cancels:
                following.cancel()
            else:
                cancels.append(tasks.create_task(outcome(client.cancel(generation_id))))

        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError, RuntimeError):  # not in the main thread
            loop.add_signal_handler(signal.SIGINT, interrupt)
    if following.cancelled():
        return EXIT_FAILED
    result = following.result()
    if isinstance(result, Exception):
        raise result
    return int(result)


async def outcome(work: Coroutine[Any, Any, Any]) -> Any:
    """Return the result or the error of `work`: an error must not cancel the task group."""
    try:
        return await work
    except (ServerUnreachable, RequestRefused, BrokenPipeError) as exc:
        return exc


async def _follow(client: Client, generation_id: str, cursor: str, printer: Printer) -> int:
    try:
        async for event in client.follow(generation_id, cursor, on_trouble=printer.note):
            printer.show(event)
    finally:
        printer.close()
    return printer.exit_code


async def _tail(client: Client, generation_id: str, cursor: str, *, is_json: bool = False) -> int:
    """Print events: for a program as they are on the wire, on a terminal with id and type first."""
    is_terminal, exit_code = sys.stdout.isatty() and not is_json, EXIT_FAILED
    async for event in client.follow(generation_id, cursor, on_trouble=say):
        if is_terminal:
            rest = {name: value for name, value in event.items() if name not in ("id", "type")}
            line = f"{event['id']:<8} {event['type']:<10} {json.dumps(rest, ensure_ascii=False)}"
            print(plain_line(line), flush=True)
        else:
            print(json.dumps(event, ensure_ascii=False, separators=(",", ":")), flush=True)
        if event["type"] == "end" and event["status"] == "completed":
            exit_code = EXIT_OK
    return exit_code


async def _cancel(client: Client, generation_id: str, *, is_json: bool) -> int:
    found = await client.cancel(generation_id)
    if is_json:
        print(json.dumps(found))
    else:
        print(plain_line(f"{generation_id} {found['status']}"))
    return EXIT_OK


async def _ps(client: Client, session: str, *, is_json: bool = False) -> int:
    generations = await client.generations(session)
    if is_json:
        print(json.dumps({"generations": generations, **await _shown_workers(client, session)}))
        return EXIT_OK
    print(table(["ID", "STATUS", "MODEL", "AGE", "ATTEMPT", "PROMPT"], map(_row, generations)))
    if session:
        return EXIT_OK
    try:
        found = await client.workers()
    except RequestRefused as exc:
        if exc.code != "forbidden":
            raise
        print("\nworkers and the queue are shown to operators' keys only")
        return EXIT_OK
    rows = [
        [
            str(worker["id"]),
            state_of(worker),
            f"{worker['running']}/{worker['slots']}",
            f"{worker['seen_s']:.0f}s ago",
        ]
        for worker in found["workers"]
    ]
    print()
    print(table(["WORKER", "STATE", "RUNNING", "SEEN"], rows))
    await _print_backends(client)
    states = ", ".join(f"{count} {state}" for state, count in found["queue"].items())
    print(f"\nqueue: {plain_line(states)}")
    if jobs := found.get("jobs"):
        print(f"jobs: {plain_line(jobs_line(jobs))}")
    return EXIT_OK


async def _print_backends(client: Client) -> None:
    try:
        backends = await client.backends()
    except RequestRefused:  # a node of an earlier version
        return
    rows = []
    for backend in backends:
        slots, first_s = backend["slots"], backend["first_token_s"]["p50"]
        rows.append(
            [
                plain_line(str(backend["name"])),
                str(backend["state"]),
                f"{backend['in_flight']}/{slots['number']}" if slots else str(backend["in_flight"]),
                str(slots["waiting"]) if slots else "-",
                "-" if first_s is None else f"{first_s:.2f}s",
            ]
        )
    if rows:
        print()
        print(table(["BACKEND", "STATE", "BUSY", "WAITING", "FIRST TOKEN"], rows))


async def _shown_workers(client: Client, session: str) -> dict[str, Any]:
    """Return the workers and the queue; empty: a session is listed, or the key is no operator's."""
    if session:
        return {}
    try:
        return await client.workers()
    except RequestRefused as exc:
        if exc.code != "forbidden":
            raise
        return {}


def jobs_line(jobs: dict[str, Any]) -> str:
    """Return how far the jobs role is behind."""
    beats = {name: age_s for name, age_s in jobs["beat_s"].items() if age_s is not None}
    due = f"{jobs['oldest_due']} due for {jobs['oldest_due_s']:.0f}s" if jobs["oldest_due"] else ""
    seen = f"last sign {max(beats.values()):.0f}s ago" if beats else "no sign of the jobs role"
    return ", ".join(filter(None, [due or "nothing is due", seen]))


def printer_of(args: argparse.Namespace) -> Printer:
    """Return the printer that the arguments ask for."""
    return JsonPrinter() if args.json else Printer()


def state_of(worker: dict[str, Any]) -> str:
    """Return what a worker does; `dead`: it has not reported for three leases of the default."""
    if worker["seen_s"] > DEAD_AFTER_S:
        return DEAD
    return "draining" if worker["draining"] else "working"


class Printer:
    """Prints events: the answer to `out`, reasoning and notes to `err`.

    Attributes:
        exit_code: of the command; `EXIT_OK` only after a completed end.
    """

    def __init__(self, out: Any = None, err: Any = None) -> None:
        self.out = sys.stdout if out is None else out
        self.err = sys.stderr if err is None else err
        self.exit_code = EXIT_FAILED
        self._is_dim = self.err.isatty() and not os.environ.get("NO_COLOR")
        self._is_terminal = self.out.isatty()
        self._is_mid_line = False
        self._is_reasoning = False

    def show(self, event: dict[str, Any]) -> None:
        """Print one event."""
        match event["type"]:
            case "token":
                self._end_reasoning()
                self._answer(event["text"])
            case "reasoning":
                self._reason(event["text"])
            case "reset":
                self._end_reasoning()
                self.note("the answer starts again")
            case "tool_call" if event.get("name"):
                self.note(f"calls {event['name']}")
            case "progress":
                self.note(f"{event['stage']}: {event['percentage']:.0f} %")
            case "file":
                self.note(f"file: {event['name']} {event.get('url', '')}")
            case "end":
                self._end(event)

    def note(self, text: str) -> None:
        """Print a note to `err`, on a line of its own."""
        if self._is_terminal:
            self._break_line()
        text = plain_line(text)
        print(f"{DIM}[{text}]{PLAIN}" if self._is_dim else f"[{text}]", file=self.err, flush=True)

    def close(self) -> None:
        """End the last line."""
        self._end_reasoning()
        self._break_line()

    def _answer(self, text: str) -> None:
        self.out.write(plain_text(text) if self._is_terminal else text)
        self.out.flush()
        self._is_mid_line = not text.endswith("\n")

    def _reason(self, text: str) -> None:
        if not self._is_reasoning and self._is_dim:
            self.err.write(DIM)
        self._is_reasoning = True
        self.err.write(plain_text(text))
        self.err.flush()

    def _end_reasoning(self) -> None:
        if self._is_reasoning:
            self.err.write(f"{PLAIN}\n" if self._is_dim else "\n")
            self.err.flush()
        self._is_reasoning = False

    def _break_line(self) -> None:
        if self._is_mid_line:
            self.out.write("\n")
            self.out.flush()
        self._is_mid_line = False

    def _end(self, event: dict[str, Any]) -> None:
        self._end_reasoning()
        if event["status"] == "completed":
            self.exit_code = EXIT_OK
        elif event["status"] == "cancelled":
            self.note("cancelled")
        else:
            error = event.get("error") or {}
            self.note(f"failed: {error.get('message', '')} ({error.get('code', 'unknown')})")


class JsonPrinter(Printer):
    """Prints each event as one line of JSON, and notes to `err`."""

    def show(self, event: dict[str, Any]) -> None:
        """Print one event."""
        self.out.write(json.dumps(event) + "\n")
        self.out.flush()
        if event["type"] == "end" and event["status"] == "completed":
            self.exit_code = EXIT_OK


def table(head: list[str], rows: Any) -> str:
    """Return a table; each column is as wide as its widest cell, and each cell is one line."""
    lines = [head, *([plain_line(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _row(item: dict[str, Any]) -> list[str]:
    age_s = max(0, round(datetime.now(UTC).timestamp() - item["created_at"]))
    prompt = " ".join(item["prompt"].split())
    if len(prompt) > PROMPT_CHARS_MAX:
        prompt = prompt[: PROMPT_CHARS_MAX - 1] + "…"
    attempt = str(item["attempt"])
    return [item["id"], item["status"], item["model"], f"{age_s}s", attempt, prompt]


def _advice(error: RequestRefused) -> str:
    match error.code:
        case "unauthorized":
            return f"{error}; set TAILRACE_KEY or --key"
        case "not_found":
            return f"{error}; `{typed_name()} ps` lists the running generations"
    return str(error)


def complain(text: str) -> int:
    """Print an error to standard error; return the exit code 2."""
    say(f"tailrace: {text}")
    return EXIT_UNREACHABLE


def say(text: str) -> None:
    """Print a line to standard error, without control characters."""
    print(plain_line(text), file=sys.stderr, flush=True)
