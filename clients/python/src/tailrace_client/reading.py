"""The state of a reader of one generation: the cursor, the text, the end. Without I/O.

Invariant: each event is accepted once and in order, whatever connections deliver. Only after a
`reset` with the id `0-0` may event ids start again from a lower value. The end is an event, or the
server's word that the cursor is the end. Silence is never an end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tailrace_client.events import START_CURSOR, EndEvent, Event, order


@dataclass(frozen=True, slots=True)
class Result:
    """A whole answer.

    Attributes:
        text: the whole text, also when the reader began at a cursor.
        error: why it failed: `code`, `message` and `retryable`; None unless `status` is `failed`.
    """

    id: str
    status: str  # completed, cancelled or failed
    text: str
    reasoning: str
    tool_calls: list[dict[str, Any]]
    finish_reason: str
    model: str
    usage: Mapping[str, Any] | None
    error: Mapping[str, Any] | None


class Reading:
    """One generation as one reader sees it.

    Attributes:
        is_over: the server said that nothing follows the cursor; an earlier reader has seen `end`.
        is_whole: the text is known from its beginning.
    """

    def __init__(self, cursor: str = START_CURSOR) -> None:
        self.cursor = cursor
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.model = ""
        self.usage: Mapping[str, Any] | None = None
        self.end: EndEvent | None = None
        self.is_over = False
        self.is_whole = cursor == START_CURSOR
        self._calls: dict[str, dict[str, Any]] = {}
        self._last_calls: dict[int, str] = {}

    @property
    def is_done(self) -> bool:
        return self.is_over or self.end is not None

    def accept(self, event: Event) -> bool:
        """Take an event; return whether it is new. A repeated event changes nothing."""
        if self.is_done:
            return False
        if event.id == START_CURSOR:
            if event.type not in ("reset", "end"):
                return False
        elif order(event.id) <= order(self.cursor):
            return False
        self.cursor = event.id
        self._fold(event)
        return True

    def result(self, generation_id: str) -> Result | None:
        """Return the whole answer; None if the end or the beginning was not read."""
        end = self.end
        if end is None or not (self.is_whole or end.id == START_CURSOR):
            return None
        return Result(
            id=generation_id,
            status=end.status,
            text="".join(self.text),
            reasoning="".join(self.reasoning),
            tool_calls=list(self._calls.values()),
            finish_reason=end.finish_reason,
            model=self.model,
            usage=self.usage,
            error=end.error,
        )

    def _fold(self, event: Event) -> None:
        match event.type:
            case "start":
                self.model = event.model
            case "token":
                self.text.append(event.text)
            case "reasoning":
                self.reasoning.append(event.text)
            case "tool_call":
                # The first piece of a call has its id; later pieces have its index.
                key = event.call_id or self._last_calls.get(event.index, "")
                self._last_calls[event.index] = key
                if key in self._calls:
                    self._calls[key]["arguments"] += event.arguments
                else:
                    names = {"index": event.index, "call_id": key, "name": event.name}
                    self._calls[key] = {**names, "arguments": event.arguments}
            case "usage":
                self.usage = {k: v for k, v in event.members.items() if k not in ("type", "id")}
            case "reset":
                self.text, self.reasoning = [], []
                self._calls, self._last_calls = {}, {}
                self.usage = None
                self.is_whole = True
            case "end":
                self.end = event
                self.usage = event.usage or self.usage


def result_of(snapshot: Mapping[str, Any]) -> Result:
    """Return the whole answer from the snapshot of a generation that has ended."""
    return Result(
        id=snapshot["id"],
        status=snapshot.get("status") or "",
        text=snapshot.get("text") or "",
        reasoning=snapshot.get("reasoning") or "",
        tool_calls=snapshot.get("tool_calls") or [],
        finish_reason=snapshot.get("finish_reason") or "",
        model=snapshot.get("model") or "",
        usage=snapshot.get("usage"),
        error=snapshot.get("error"),
    )
