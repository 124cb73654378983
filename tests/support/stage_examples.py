"""Stages of a third party for tests with real workers: correct ones, and typical mistakes."""

from __future__ import annotations

import threading
from typing import Any

from workers.stages.plugin import Finish, Stage, Token


class Shout(Stage):
    """Numbers and shouts the words. The number goes on after a takeover."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.count = 0

    def seen(self, event: Any) -> None:
        if isinstance(event, Token):
            self.count += event.text.count("#")

    def event(self, event: Any) -> Any:
        if not isinstance(event, Token):
            return event
        self.count += 1
        return f"{self.options['sign']}{self.count}{event.text.upper()}"

    def finish(self) -> Any:
        return [Token("!"), Token(self.owner)]


class Stops(Stage):
    def event(self, event: Any) -> Any:
        return ["one", Finish("content_filter"), "never"]


class Raises(Stage):
    def event(self, event: Any) -> Any:
        raise KeyError("a secret of the answer")


class RaisesInSeen(Stage):
    def seen(self, event: Any) -> None:
        raise ValueError("no")


class Rubbish(Stage):
    def event(self, event: Any) -> Any:
        return 5


class Endless(Stage):
    """Calculates for ever, in Python code."""

    def event(self, event: Any) -> Any:
        number = 0
        while True:
            number += 1


class Waits(Stage):
    """Waits in native code for longer than any call may take."""

    gate = threading.Event()

    def event(self, event: Any) -> Any:
        self.gate.wait()
        return event


class OnlyText(Stage):
    """Drops everything but text."""

    def event(self, event: Any) -> Any:
        return event.text if isinstance(event, Token) else None
