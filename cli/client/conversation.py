"""`tailrace chat` without a prompt, on a terminal: a conversation, line by line.

Each answer is a generation of its own, whose request holds the messages so far. With --session the
conversation goes on where the session's newest answer ends, also if that answer still runs: then it
is followed first. Ctrl-C cancels the answer that comes; Ctrl-D ends the conversation.

Lines are read in the main thread between two event loops: a thread that waits for a line could not
be ended.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import Any

from cli.client.client import Client
from cli.client.exit_code import EXIT_OK
from cli.client.history import History, history_path
from cli.client.terminal import Printer, follow_or_cancel, run_command, say, start
from shared.config.settings import Settings

PROMPT = "> "
LEAVING = ("/exit", "/quit")
HELP = "Ctrl-D ends the conversation, Ctrl-C stops an answer"
Message = dict[str, Any]


class Recorder(Printer):
    """Prints an answer and keeps its text.

    Attributes:
        text: since the last `reset`.
    """

    def __init__(self, out: Any = None, err: Any = None) -> None:
        super().__init__(out, err)
        self.text = ""

    def show(self, event: dict[str, Any]) -> None:
        """Print one event."""
        super().show(event)
        if event["type"] == "token":
            self.text += event["text"]
        elif event["type"] == "reset":
            self.text = ""


class Conversation:
    """The messages so far, and how the next one is asked.

    Attributes:
        messages: of the user and of the model, in turns.
    """

    def __init__(self, settings: Settings, args: argparse.Namespace) -> None:
        self.messages: list[Message] = []
        self._settings = settings
        self._model = args.model or None
        self._session = args.session or None

    def recall(self) -> int:
        """Read the messages of the session, and follow its newest answer if it still runs.

        Returns:
            the exit code of what was asked.
        """
        return run_command(self._settings, self._recall) if self._session else EXIT_OK

    async def _recall(self, client: Client) -> int:
        found = await client.generations(self._session or "")
        if not found:
            return EXIT_OK
        newest = await client.generation(found[0]["id"])
        text = newest["text"]
        if newest["status"] in ("queued", "running"):
            say("the last answer of this session still comes")
            recorder = Recorder()
            await follow_or_cancel(client, newest["id"], recorder)
            text = recorder.text
        self._add(newest["messages"], text)
        return EXIT_OK

    def ask(self, line: str) -> int:
        """Ask one question, print the answer, and keep both; return the exit code."""
        return run_command(self._settings, lambda client: self._ask(client, line))

    async def _ask(self, client: Client, line: str) -> int:
        messages = [*self.messages, {"role": "user", "content": line}]
        body = {"messages": messages, "model": self._model, "session": self._session}
        recorder = Recorder()
        code = await follow_or_cancel(client, await start(client, body), recorder)
        self._add(messages, recorder.text)
        return code

    def _add(self, messages: list[Message], text: str) -> None:
        # A question without any answer is not kept: the model would see two in a row.
        if text:
            self.messages = [*messages, {"role": "assistant", "content": text}]


def converse(settings: Settings, args: argparse.Namespace) -> int:
    """Read lines and print answers until the end of the input; return the exit code."""
    is_off = args.no_history or settings.chat_history == "off"
    history = History(None if is_off else history_path(os.environ))
    _offer(history.lines())
    conversation = Conversation(settings, args)
    if code := conversation.recall():
        return code
    if history.problem:
        say(history.problem)
    say(HELP)
    while True:
        try:
            line = input(PROMPT).strip()
        except EOFError:
            print()
            return EXIT_OK
        except KeyboardInterrupt:
            print()
            continue
        except UnicodeDecodeError:
            say("this line is not UTF-8")
            continue
        if line in LEAVING:
            return EXIT_OK
        if line:
            sys.stdout.flush()
            had_problem = bool(history.problem)
            history.add(line)
            if history.problem and not had_problem:
                say(history.problem)
            conversation.ask(line)


def _offer(lines: list[str]) -> None:
    """Offer lines of earlier conversations at the arrow keys, where Python has readline."""
    with contextlib.suppress(ImportError):
        import readline  # input() then edits lines

        for line in lines:
            readline.add_history(line)
