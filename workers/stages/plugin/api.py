"""The class from which a third party's stage derives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shared.log.events import AnyEvent
from workers.backends.contract import Finish

Passing = str | AnyEvent | Finish
Answered = Passing | Iterable[Passing] | None


class Stage:
    """One attempt at one answer. A worker makes an object for each attempt.

    All methods of one object run in one thread, which may block, but at most `CALL_S` for the
    events of one read of the model server.

    Attributes:
        options: the members of the stage's table in the models file.
        generation_id, owner, model: of the answer.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options
        self.generation_id = self.owner = self.model = ""

    def event(self, event: AnyEvent) -> Answered:
        """Return what becomes of an event of the model: an event, several, or None.

        A text stands for a `Token`. `Finish("content_filter")` ends the answer here.
        """
        return event

    def seen(self, event: AnyEvent) -> None:
        """Take an event that an earlier attempt has written, to bring the state up to date."""

    def finish(self) -> Answered:
        """Return what was held back, because the answer is complete."""
        return None
