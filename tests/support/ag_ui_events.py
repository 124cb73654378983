"""The order of events in which a client of AG-UI believes: the rules of its `verifyEvents`, again.

tests/clients/test_ag_ui.py puts the recorded logs through the client's own verifier. These rules
are for logs that a test draws at random, and say also what the client would show in the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

# Type of an opening event -> what it opens, the member that names it, and the type that closes it.
_OPENINGS = {
    "TEXT_MESSAGE_START": ("text", "messageId", "TEXT_MESSAGE_END"),
    "REASONING_START": ("span", "messageId", "REASONING_END"),
    "REASONING_MESSAGE_START": ("thought", "messageId", "REASONING_MESSAGE_END"),
    "TOOL_CALL_START": ("call", "toolCallId", "TOOL_CALL_END"),
    "STEP_STARTED": ("step", "stepName", "STEP_FINISHED"),
    "SUBAGENT_STARTED": ("agent", "subagentRunId", "SUBAGENT_FINISHED"),
}
_CLOSINGS = {closing: (kind, member) for kind, member, closing in _OPENINGS.values()} | {
    "SUBAGENT_ERROR": ("agent", "subagentRunId")
}
_PIECES = {
    "TEXT_MESSAGE_CONTENT": ("text", "messageId"),
    "REASONING_MESSAGE_CONTENT": ("thought", "messageId"),
    "TOOL_CALL_ARGS": ("call", "toolCallId"),
}
_LAST = ("RUN_FINISHED", "RUN_ERROR")


@dataclass
class Client:
    """What a client has after the events of one run.

    Attributes:
        texts: of the messages by id; a void one is gone.
        calls: arguments by call; those of a void message are gone.
    """

    texts: dict[str, str] = field(default_factory=dict)
    calls: dict[str, str] = field(default_factory=dict)
    last: str = ""
    _open: set[tuple[str, str]] = field(default_factory=set)
    _closed_agents: set[str] = field(default_factory=set)
    _parents: dict[str, str] = field(default_factory=dict)

    def read(self, events: Iterable[dict[str, Any]]) -> Client:
        """Read the events of a run from its first one; assert that each is legal in its place."""
        for number, event in enumerate(events):
            assert (number == 0) == (event["type"] == "RUN_STARTED"), event
            assert self.last not in _LAST, f"{event} after {self.last}"
            self._read(event)
            self.last = event["type"]
        return self

    def _read(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind in _OPENINGS:
            what, member, _ = _OPENINGS[kind]
            assert self._key(what, member, event) not in self._open, event
            assert what != "agent" or event[member] not in self._closed_agents, event
            self._open.add(self._key(what, member, event))
        elif kind in _CLOSINGS:
            self._open.remove(self._key(*_CLOSINGS[kind], event))
            if _CLOSINGS[kind][0] == "agent":
                self._closed_agents.add(event["subagentRunId"])
        elif kind in _PIECES:
            assert self._key(*_PIECES[kind], event) in self._open, event
        elif kind == "RUN_FINISHED":
            assert not self._open, self._open
        self._apply(event)

    @staticmethod
    def _key(what: str, member: str, event: dict[str, Any]) -> tuple[str, str]:
        owner = event.get("subagentRunId", "") if what == "step" else ""
        return what, f"{owner} {event[member]}"

    def _apply(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "TEXT_MESSAGE_START":
                self.texts.setdefault(event["messageId"], "")
            case "TEXT_MESSAGE_CONTENT":
                self.texts[event["messageId"]] += event["delta"]
            case "TOOL_CALL_START":
                self.calls.setdefault(event["toolCallId"], "")
                self._parents[event["toolCallId"]] = event["parentMessageId"]
            case "TOOL_CALL_ARGS":
                self.calls[event["toolCallId"]] += event["delta"]
            case "ACTIVITY_SNAPSHOT":
                message = event["messageId"]
                self.texts.pop(message, None)
                void = [call for call, parent in self._parents.items() if parent == message]
                self.calls = {call: text for call, text in self.calls.items() if call not in void}
