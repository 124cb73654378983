"""The log of one generation as the events of one AG-UI run.

A run begins with RUN_STARTED and ends with RUN_FINISHED or RUN_ERROR. Between them each block of
text, each thought and all tool calls of an agent are a message with an id of its own:

    RUN_STARTED
    REASONING_START, REASONING_MESSAGE_START, …_CONTENT …, …_END, REASONING_END     gen_…-1
    TEXT_MESSAGE_START, …_CONTENT …, …_END                                          gen_…-2
    TOOL_CALL_START, …_ARGS …, …_END                                                gen_…-3
    RUN_FINISHED

A message cannot be deleted, but an ACTIVITY_SNAPSHOT with its id takes its place: such an activity
is shown only where the application has a renderer for it, and is never sent back to the server. So
a `reset` replaces every message that is void. A tool call that may be incomplete is replaced before
its TOOL_CALL_END, so that no client runs it.

Invariants: an event comes only where `verifyEvents` of @ag-ui/client accepts it; everything that is
open is closed before RUN_FINISHED. The events depend only on the log and on meta. Pure.
Source: docs/dialects/ag-ui.md.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from api.dialects.ag_ui.run import Run
from api.dialects.ag_ui.state import DELTA, SNAPSHOT, patch_in
from api.dialects.ag_ui.usage import usage_of
from api.dialects.failure import GENERATION_FAILED, STREAM_RESET, shown
from shared.log.events import (
    AnyEvent,
    Counts,
    Data,
    End,
    Extra,
    Failure,
    File,
    Progress,
    Reasoning,
    Reset,
    Start,
    Token,
    ToolCall,
    Usage,
)
from shared.log.extra import take_kept
from shared.log.records import Meta

AgUiEvent = dict[str, Any]

VOID = "tailrace.void"  # the type of the activity that takes the place of a void message
# A client takes at most 10 MiB for one event, in characters of its JSON.
DELTA_CHARACTERS_MAX = 1_000_000
FILE_CHARACTERS_MAX = 8_000_000  # of a file's base64; a longer file is named without its data


@dataclass
class _Author:
    """The agent of some events: one that the log names, or the run's own.

    Attributes:
        own: the members that every event of this agent has.
        text, thought: the id of the open message; empty: none is open.
        calls: the id of the message with the agent's open tool calls; empty: none.
        steps: the open steps, in order.
    """

    own: dict[str, str]
    text: str = ""
    thought: str = ""
    calls: str = ""
    steps: dict[str, None] = field(default_factory=dict)


class EventBuilder:
    """Turns the entries of one log into events.

    Attributes:
        is_over: the run has ended before the end of the log.
    """

    def __init__(self, meta: Meta) -> None:
        self.run = Run.of(meta)
        self.is_over = False
        self._id = meta.generation_id
        self._model = meta.model
        self._authors: dict[str, _Author] = {"": _Author({})}
        self._messages = 0  # how many there have been
        self._subagents = 0  # as above
        self._nameless = 0  # calls to which the model server gave no id of their own
        self._valid: dict[str, dict[str, str]] = {}  # messages by id, with the author's `own`
        self._thought = ""  # the latest thought: it carries what goes back to the model
        self._calls: dict[tuple[str, int], tuple[str, str]] = {}  # open: call id, message
        self._kept: list[Any] = []  # thoughts for later turns
        self._usage: Usage | Counts | None = None
        self._has_state = False  # the client's state is not that of the request any more

    @property
    def text_id(self) -> str:
        """The open message of text to which a plain piece of text belongs; empty: none."""
        return self._authors[""].text

    def opening(self) -> list[AgUiEvent]:
        """Return the events before the first entry."""
        return [self.run.started()]

    def add(self, event: AnyEvent | None) -> list[AgUiEvent]:
        """Return the events of the next entry; None: an entry of a newer version."""
        return list(self._add(event)) if event is not None else []

    def failed(self, failure: Failure) -> list[AgUiEvent]:
        """Return the last events of a run that failed. Changes nothing."""
        told = shown(failure)
        is_void = failure is STREAM_RESET
        void = self._void(self._valid, "reset") if is_void else self._void_open_calls(told.code)
        usage = usage_of(self._usage, self._model)
        error = {"type": "RUN_ERROR", "message": told.message, "code": told.code, **usage}
        return [*void, error]

    def _add(self, event: AnyEvent) -> Iterator[AgUiEvent]:
        match event:
            case Start():
                self._model = event.model
            case Token():
                self._keep(event.extra)
                yield from self._text(event)
            case Reasoning():
                self._keep(event.extra)
                yield from self._reasoning(event)
            case Extra():
                if rest := self._keep(event.extra):
                    yield {"type": "RAW", "event": rest, "source": self._model}
            case ToolCall():
                yield from self._tool_call(event)
            case Progress():
                yield from self._progress(event)
            case Data():
                yield from self._data(event)
            case File():
                author = yield from self._author(event.agent)
                yield _custom("file", _members(event), author.own)
            case Usage():
                self._usage = event
            case Reset():
                yield from self._reset()
            case End():
                yield from self._end(event)

    def _keep(self, extra: dict[str, Any] | None) -> dict[str, Any]:
        """Keep the thoughts for later turns; return the other members."""
        if not extra:
            return {}
        kept, rest = take_kept(extra)
        self._kept += kept
        return rest

    # Messages

    def _text(self, event: Token) -> Iterator[AgUiEvent]:
        if not event.text:
            return
        author = yield from self._author(event.agent)
        if not author.text:
            yield from _close_thought(author)
            author.calls = ""
            author.text = self._new_message(author)
            yield {
                "type": "TEXT_MESSAGE_START", "messageId": author.text, "role": "assistant",
                **author.own,
            }  # fmt: skip
        for delta in _pieces(event.text):
            yield {"type": "TEXT_MESSAGE_CONTENT", "messageId": author.text, "delta": delta}

    def _reasoning(self, event: Reasoning) -> Iterator[AgUiEvent]:
        if not event.text:
            return
        author = yield from self._author(event.agent)
        if not author.thought:
            yield from _close_text(author)
            author.calls = ""
            author.thought = self._thought = self._new_message(author)
            about = {"messageId": author.thought, **author.own}
            yield {"type": "REASONING_START", **about}
            yield {"type": "REASONING_MESSAGE_START", "role": "reasoning", **about}
        for delta in _pieces(event.text):
            about = {"messageId": author.thought, "delta": delta}
            yield {"type": "REASONING_MESSAGE_CONTENT", **about}

    def _tool_call(self, event: ToolCall) -> Iterator[AgUiEvent]:
        author = yield from self._author(event.agent)
        place = (event.agent, event.index)
        if place not in self._calls:
            yield from _close_text(author)
            yield from _close_thought(author)
            author.calls = author.calls or self._new_message(author)
            self._calls[place] = (self._call_id(event.call_id), author.calls)
            yield {
                "type": "TOOL_CALL_START", "toolCallId": self._calls[place][0],
                "toolCallName": event.name or "tool", "parentMessageId": author.calls, **author.own,
            }  # fmt: skip
        for delta in _pieces(event.arguments):
            yield {"type": "TOOL_CALL_ARGS", "toolCallId": self._calls[place][0], "delta": delta}

    def _call_id(self, given: str) -> str:
        """Return the id of a call. A client would take two open calls with one id for an error."""
        if given and all(given != open_id for open_id, _ in self._calls.values()):
            return given
        self._nameless += 1
        return f"{self._id}-call-{self._nameless}"

    def _new_message(self, author: _Author) -> str:
        self._messages += 1
        message = f"{self._id}-{self._messages}"
        self._valid[message] = author.own
        return message

    # Agents, steps, state and data

    def _author(self, agent: str) -> Generator[AgUiEvent, None, _Author]:
        """Yield the event that introduces an agent, and return the agent."""
        if agent not in self._authors:
            self._subagents += 1
            own = {"subagentRunId": f"{self._id}-agent-{self._subagents}"}
            self._authors[agent] = _Author(own)
            yield {"type": "SUBAGENT_STARTED", "name": agent, **own}
        return self._authors[agent]

    def _progress(self, event: Progress) -> Iterator[AgUiEvent]:
        author = yield from self._author(event.agent)
        step = {"stepName": event.stage, **author.own}
        if event.stage not in author.steps:
            author.steps[event.stage] = None
            yield {"type": "STEP_STARTED", **step}
        yield _custom("progress", _members(event), author.own)
        if 0 < event.total <= event.current:
            del author.steps[event.stage]
            yield {"type": "STEP_FINISHED", **step}

    def _data(self, event: Data) -> Iterator[AgUiEvent]:
        author = yield from self._author(event.agent)
        patch = patch_in(event.value) if event.name == DELTA else None
        if event.name == SNAPSHOT:
            self._has_state = True
            yield {"type": "STATE_SNAPSHOT", "snapshot": event.value, **author.own}
        elif patch is not None:
            self._has_state = True
            yield {"type": "STATE_DELTA", "delta": patch, **author.own}
        else:
            yield _custom(event.name, event.value, author.own)

    # Ends

    def _reset(self) -> Iterator[AgUiEvent]:
        if self._has_state and not self.run.keeps_state:
            self.is_over = True
            yield from self.failed(STREAM_RESET)
            return
        void_calls = self._void_open_calls("reset")
        yield from void_calls
        done = {event["messageId"] for event in void_calls}
        yield from self._close("reset")
        yield from self._void([message for message in self._valid if message not in done], "reset")
        if self._has_state:
            yield {"type": "STATE_SNAPSHOT", "snapshot": self.run.state}
        self._valid, self._kept, self._thought = {}, [], ""
        self._has_state = False

    def _end(self, end: End) -> Iterator[AgUiEvent]:
        self._usage = end.usage or self._usage
        self._keep(end.extra)
        if end.status == "failed":
            for author in self._authors.values():
                yield from _close_text(author)
                yield from _close_thought(author)
            yield from self.failed(end.error or GENERATION_FAILED)
            return
        if end.status == "cancelled":
            yield from self._void_open_calls("cancelled")
        yield from self._close("" if end.status == "completed" else "cancelled")
        if end.status == "completed" and self._kept and self._valid:
            yield {
                "type": "REASONING_ENCRYPTED_VALUE", "subtype": "message",
                "entityId": self._thought or next(reversed(self._valid)),
                "encryptedValue": msgspec.json.encode(self._kept).decode(),
            }  # fmt: skip
        yield self.run.finished(end) | usage_of(self._usage, self._model)

    def _close(self, why: str) -> Iterator[AgUiEvent]:
        """Close all that is open; `why`: the code of an end that is not good, else empty."""
        for call_id, _ in self._calls.values():
            yield {"type": "TOOL_CALL_END", "toolCallId": call_id}
        self._calls = {}
        for agent, author in self._authors.items():
            yield from _close_text(author)
            yield from _close_thought(author)
            for step in author.steps:
                yield {"type": "STEP_FINISHED", "stepName": step, **author.own}
            if agent and why:
                yield {"type": "SUBAGENT_ERROR", "message": why, "code": why, **author.own}
            elif agent:
                yield {"type": "SUBAGENT_FINISHED", **author.own}
        self._authors = {"": _Author({})}

    def _void_open_calls(self, reason: str) -> list[AgUiEvent]:
        return self._void(dict.fromkeys(message for _, message in self._calls.values()), reason)

    def _void(self, messages: Iterable[str], reason: str) -> list[AgUiEvent]:
        return [
            {
                "type": "ACTIVITY_SNAPSHOT", "messageId": message, "activityType": VOID,
                "content": {"reason": reason}, "replace": True, **self._valid[message],
            }
            for message in messages
        ]  # fmt: skip


def _close_text(author: _Author) -> Iterator[AgUiEvent]:
    if author.text:
        yield {"type": "TEXT_MESSAGE_END", "messageId": author.text}
        author.text = ""


def _close_thought(author: _Author) -> Iterator[AgUiEvent]:
    if author.thought:
        yield {"type": "REASONING_MESSAGE_END", "messageId": author.thought}
        yield {"type": "REASONING_END", "messageId": author.thought}
        author.thought = ""


def _custom(name: str, value: Any, own: dict[str, str]) -> AgUiEvent:
    return {"type": "CUSTOM", "name": name, "value": value, **own}


def _members(event: Progress | File) -> dict[str, Any]:
    members: dict[str, Any] = msgspec.to_builtins(event)
    members.pop("type", None)
    if len(members.get("data", "")) > FILE_CHARACTERS_MAX:
        members.pop("data")
    return members


def _pieces(text: str) -> Iterator[str]:
    for begin in range(0, len(text), DELTA_CHARACTERS_MAX):
        yield text[begin : begin + DELTA_CHARACTERS_MAX]
