"""`tailrace chat`, `tail`, `cancel` and `ps`: the native interface from a terminal.

The answer goes to standard output as it comes and nothing else does, so it can be piped; reasoning,
notes and errors go to standard error. What others chose (a model, a server, whoever named a
session) is printed through shared/text/plain_text.py, because a terminal obeys what it is sent;
only an answer that goes into a pipe passes as it is, so that a program gets the bytes that the
model wrote. A reading survives its connection: it comes back with its cursor, here or at whatever
node answers at the address. Exit codes: 0 the answer is complete, 1 it failed or was cancelled, 2
it cannot be asked for (no server, no key, no such generation).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

from cli.client.client import Client, Refused, Unreachable
from shared.config.settings import Settings
from shared.text.plain_text import plain_line, plain_text

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_UNREACHABLE = 2
DIM, PLAIN = "\x1b[2m", "\x1b[0m"
PROMPT_WIDTH = 40

ClientT = TypeVar("ClientT", bound=Client)


def chat(settings: Settings, args: argparse.Namespace) -> int:
    """Send a prompt and print the answer; Ctrl-C cancels it."""
    prompt = args.prompt
    if prompt is None or prompt == "-":
        prompt = sys.stdin.read().strip()
    if not prompt:
        return complain('nothing to ask: tailrace chat "…", or a prompt on standard input')
    body = {"prompt": prompt, "model": args.model or None, "session": args.session or None}
    return _run(settings, lambda client: _chat(client, body))


def tail(settings: Settings, args: argparse.Namespace) -> int:
    """Print an answer from its start or after an event id; Ctrl-C only stops reading."""
    return _run(settings, lambda client: _follow(client, args.id, args.after))


def cancel(settings: Settings, args: argparse.Namespace) -> int:
    """Cancel a generation."""
    return _run(settings, lambda client: _cancel(client, args.id))


def ps(settings: Settings, args: argparse.Namespace) -> int:
    """List what runs and waits; with a session, all of its generations."""
    return _run(settings, lambda client: _ps(client, args.session))


def _run(settings: Settings, command: Any) -> int:
    return run_client(Client(settings.url, settings.key), command, _advice)


def run_client(made: ClientT, command: Any, advice: Callable[[Refused], str]) -> int:
    """Run a command with a client; what the server refuses is one line, with advice."""

    async def with_client() -> int:
        async with made as client:
            result: int = await command(client)
            return result

    try:
        return asyncio.run(with_client())
    except Unreachable as exc:
        return complain(str(exc))
    except Refused as exc:
        return complain(advice(exc))
    except BrokenPipeError:
        # Whoever read us has had enough; what is still buffered must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


async def _chat(client: Client, body: dict[str, Any]) -> int:
    # One key for all tries: a prompt whose answer was lost on the way is not asked twice.
    key = secrets.token_urlsafe(16)
    accepted = await client.create(body, key)
    generation_id = accepted["id"]
    return await _cancelling(client, generation_id)


async def _cancelling(client: Client, generation_id: str) -> int:
    """Wait for the answer; the first Ctrl-C cancels the generation, the second ends the program."""
    errands: list[asyncio.Task[Any]] = []
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(outcome(_follow(client, generation_id, "")))

        def interrupt() -> None:
            if errands:
                following.cancel()
            else:
                errands.append(tasks.create_task(outcome(client.cancel(generation_id))))

        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError, RuntimeError):  # not in the main thread
            loop.add_signal_handler(signal.SIGINT, interrupt)
    if following.cancelled():
        return EXIT_FAILED
    found = following.result()
    if isinstance(found, Exception):
        raise found
    return int(found)


async def outcome(work: Coroutine[Any, Any, Any]) -> Any:
    """Return the result or the error, so that one task's error does not end the others."""
    try:
        return await work
    except (Unreachable, Refused, BrokenPipeError) as exc:
        return exc


async def _follow(client: Client, generation_id: str, cursor: str) -> int:
    printer = Printer()
    try:
        async for event in client.follow(generation_id, cursor, on_trouble=printer.note):
            printer.show(event)
    finally:
        printer.close()
    return printer.exit_code


async def _cancel(client: Client, generation_id: str) -> int:
    status = (await client.cancel(generation_id))["status"]
    print(plain_line(f"{generation_id} {status}"))
    return EXIT_OK


async def _ps(client: Client, session: str) -> int:
    generations = await client.generations(session)
    print(table(["ID", "STATUS", "MODEL", "AGE", "ATTEMPT", "PROMPT"], map(_row, generations)))
    if session:
        return EXIT_OK
    try:
        found = await client.workers()
    except Refused as exc:
        if exc.code != "forbidden":
            raise
        print("\nworkers and the queue are shown to operators' keys only")
        return EXIT_OK
    rows = [
        [
            str(worker["id"]),
            "draining" if worker["draining"] else "working",
            f"{worker['running']}/{worker['slots']}",
            f"{worker['seen_s']:.0f}s ago",
        ]
        for worker in found["workers"]
    ]
    print()
    print(table(["WORKER", "STATE", "RUNNING", "SEEN"], rows))
    states = ", ".join(f"{count} {state}" for state, count in found["queue"].items())
    print(f"\nqueue: {plain_line(states)}")
    return EXIT_OK


class Printer:
    """Writes events as they come: the answer to stdout, everything about it to stderr."""

    def __init__(self, out: Any = None, err: Any = None) -> None:
        self.out = sys.stdout if out is None else out
        self.err = sys.stderr if err is None else err
        self.exit_code = EXIT_FAILED  # until an end says otherwise
        self._is_dim = self.err.isatty()
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
        """Say something about the answer, on a line of its own where both share a terminal."""
        if self._is_terminal:
            self._break_line()
        text = plain_line(text)
        print(f"{DIM}[{text}]{PLAIN}" if self._is_dim else f"[{text}]", file=self.err, flush=True)

    def close(self) -> None:
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


def table(head: list[str], rows: Any) -> str:
    """Return columns as wide as what is in them; a cell is one line, whatever is in it."""
    lines = [head, *([plain_line(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _row(item: dict[str, Any]) -> list[str]:
    age_s = max(0, round(datetime.now(UTC).timestamp() - item["created_at"]))
    prompt = " ".join(item["prompt"].split())
    prompt = prompt if len(prompt) <= PROMPT_WIDTH else prompt[: PROMPT_WIDTH - 1] + "…"
    attempt = str(item["attempt"])
    return [item["id"], item["status"], item["model"], f"{age_s}s", attempt, prompt]


def _advice(error: Refused) -> str:
    match error.code:
        case "unauthorized":
            return f"{error}; set TAILRACE_KEY or --key"
        case "not_found":
            return f"{error}; `tailrace ps` lists what runs"
    return str(error)


def complain(text: str) -> int:
    say(f"tailrace: {text}")
    return EXIT_UNREACHABLE


def say(text: str) -> None:
    """Print a line to standard error, which somebody reads even where it is no terminal."""
    print(plain_line(text), file=sys.stderr, flush=True)
