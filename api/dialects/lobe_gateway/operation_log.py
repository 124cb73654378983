"""The log of an operation as numbered messages, whether a worker or a feeder writes the log.

Invariant: the messages and their numbers depend only on the log and on meta, so every node gives
the same. Pure. Source: docs/dialects/lobehub-gateway.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import msgspec

from api.dialects.lobe_gateway.events import (
    STATUSES,
    StreamEvent,
    StreamEvents,
    encode,
    status_of,
)
from api.dialects.lobe_gateway.messages import (
    AGENT_EVENT,
    ENDS,
    FED,
    SESSION_COMPLETE,
    Message,
    read_message,
)
from shared.log.event_bytes import END_PREFIX
from shared.log.events import End, Failure, decode_known
from shared.log.records import Meta


class OperationLog(ABC):
    """The entries of one log as messages.

    Attributes:
        operation: the name of the operation in its events.
        status: of the operation after the entries so far, in LobeHub's words.
        has_said_complete: the log itself has the message `session_complete`.
        has_said_end: the log itself has a `status_change` to a last status.
    """

    def __init__(self, meta: Meta, operation: str) -> None:
        self.operation = operation
        self.status = status_of(meta)
        self.has_said_complete = False
        self.has_said_end = False

    def opening(self) -> list[Message]:
        """Return the messages before the first entry."""
        return []

    @abstractmethod
    def add(self, raw: bytes) -> tuple[list[Message], bool]:
        """Return the messages of the next entry, and whether it is the end of the log."""

    @abstractmethod
    def failed(self, failure: Failure) -> list[Message]:
        """Return the last messages of an operation that failed. Changes nothing."""


class GeneratedLog(OperationLog):
    """The log of a generation that a worker writes, or a producer that is no feeder."""

    def __init__(self, meta: Meta, operation: str) -> None:
        super().__init__(meta, operation or meta.generation_id)
        self._events = StreamEvents(meta, operation)

    def opening(self) -> list[Message]:
        return _messages(self._events.opening())

    def add(self, raw: bytes) -> tuple[list[Message], bool]:
        event = decode_known(raw)
        messages = _messages(self._events.add(event))
        if isinstance(event, End):
            self.status = STATUSES[event.status]
            return messages, True
        return messages, False

    def failed(self, failure: Failure) -> list[Message]:
        return _messages(self._events.failed(failure))


class FedLog(OperationLog):
    """The log of an operation that LobeHub's server feeds."""

    def __init__(self, meta: Meta, operation: str) -> None:
        super().__init__(meta, operation)
        self._names = (operation, meta.generation_id)
        self._events = StreamEvents(meta, operation)
        self._is_told = False  # the feeder itself has told the end

    def add(self, raw: bytes) -> tuple[list[Message], bool]:
        found = read_message(raw, self._names)
        if found is not None:
            self._is_told = self._is_told or found.is_end
            self.status = found.status or self.status
            self.has_said_complete |= found.message.kind == SESSION_COMPLETE
            self.has_said_end |= found.status in ENDS
            return [found.message], False
        event = decode_known(raw) if raw.startswith(END_PREFIX) else None
        if not isinstance(event, End):
            return [], False
        self.status = STATUSES[event.status]
        return [] if self._is_told else _messages(self._events.closed(event)), True

    def failed(self, failure: Failure) -> list[Message]:
        return _messages(self._events.failed(failure))


def open_log(meta: Meta, operation: str = "") -> OperationLog:
    """Return the messages of a log.

    Args:
        operation: the client's name for the generation; a fed operation keeps its own.
    """
    about = fed_members(meta)
    if about is not None:
        return FedLog(meta, str(about.get("operation", meta.generation_id)))
    return GeneratedLog(meta, operation)


def fed_members(meta: Meta) -> dict[str, Any] | None:
    """Return what the feeder said of its operation; None: no feeder writes this generation."""
    if b'"lobehub"' not in meta.dialect:
        return None
    found: Any = msgspec.json.decode(meta.dialect)
    about = found.get(FED) if isinstance(found, dict) else None
    return about if isinstance(about, dict) else None


def is_trusted(meta: Meta) -> bool:
    """Whether the feeder's key acts for users, so that the feeder is LobeHub's server."""
    about = fed_members(meta)
    return about is not None and about.get("acts") is True


def _messages(events: list[StreamEvent]) -> list[Message]:
    return [Message(event["type"], encode(event)) for event in events]


def numbered(message: Message, number: int, head: bytes = b"") -> bytes:
    """Return a message as a frame.

    Args:
        number: of the message in its operation; 0: it has none.
        head: further members, each with a comma behind it.
    """
    number_member = b'"id":"%d",' % number if number else b""
    if message.is_event:
        kind = AGENT_EVENT.encode()
        return b'{"type":"%b",%b%b"event":%b}' % (kind, head, number_member, message.body)
    return b"{%b%b%b" % (head, number_member, message.body[1:])
