"""The messages of a fed operation as entries of its log, and back.

    {"type":"data","name":"lobehub","value":{"type":"agent_event","event":{…}}}
    {"type":"token","text":" Hello","extra":{"lobehub":{"type":"agent_event","event":{…}}}}
    {"type":"data","name":"lobehub.reply","value":{"type":"tool_result","toolCallId":…}}

Invariant: a reader of the gateway gets the JSON text of an event as the feeder has sent it, without
spaces between its tokens. Text and reasoning of the operation itself are also events of the log
that every other dialect shows. Replies of clients are for the waiting feeder: readers of the
gateway do not get them. Pure. Source: docs/dialects/lobehub-gateway.md.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from shared.log.events import Data, End, Event, Failure, FinishReason, Reasoning, Status, Token
from shared.log.events import encode as encode_entry

FED = "lobehub"  # name of the data events; mark in the part of meta that belongs to the dialect
REPLY = "lobehub.reply"
EXECUTOR = "lobehub.executor"
AGENT_EVENT, STATUS_CHANGE, SESSION_COMPLETE = "agent_event", "status_change", "session_complete"
RUNTIME_END = "agent_runtime_end"
RUNTIME_ERROR = "operation_failed"  # the code of a failed operation in our log
MESSAGE_CHARACTERS = 600
ENDS: dict[str, tuple[Status, FinishReason]] = {
    "completed": ("completed", "stop"),
    "interrupted": ("cancelled", "cancelled"),
    "error": ("failed", "error"),
}
RUNNING = ("running", "waiting_input", "waiting_confirmation")


class Message(NamedTuple):
    """One numbered message to the readers of a gateway.

    Attributes:
        kind: the type of the event; of another message, its own type.
        body: JSON of the event; of another message, JSON of the message without its number.
        is_event: False: it is another message than `agent_event`.
    """

    kind: str
    body: bytes
    is_event: bool = True


class FedEvent(msgspec.Struct):
    """What a node reads of an event of a feeder; all other members stay text."""

    type: str
    operation_id: Any = msgspec.field(default="", name="operationId")
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Chunk(msgspec.Struct):
    kind: Any = msgspec.field(default="", name="chunkType")
    content: Any = None
    reasoning: Any = None
    snapshot_mode: Any = msgspec.field(default=None, name="snapshotMode")


class _RuntimeEnd(msgspec.Struct):
    reason: Any = None
    detail: Any = msgspec.field(default=None, name="reasonDetail")


class _Extra(msgspec.Struct):
    lobehub: msgspec.Raw = msgspec.Raw()


class _Entry(msgspec.Struct):
    name: str = ""
    value: msgspec.Raw = msgspec.Raw(b"null")
    extra: _Extra | None = None


class _Value(msgspec.Struct):
    type: str
    event: msgspec.Raw = msgspec.Raw()
    status: str = ""


_read_event = msgspec.json.Decoder(FedEvent).decode
_read_chunk = msgspec.json.Decoder(_Chunk).decode
_read_end = msgspec.json.Decoder(_RuntimeEnd).decode
_read_entry = msgspec.json.Decoder(_Entry).decode
_read_value = msgspec.json.Decoder(_Value).decode
_MARK = b'"lobehub'


class FedMessage(NamedTuple):
    """A message in an entry of the log.

    Attributes:
        status: of the operation, if the message says one.
        is_end: the feeder has told the end of this operation.
    """

    message: Message
    status: str = ""
    is_end: bool = False


def event_entries(operation: str, raw: bytes) -> tuple[list[bytes], str]:
    """Return the entries of an event, and the status with which it ends the log; "": it does not.

    Args:
        raw: JSON of the event, without spaces.

    Raises:
        msgspec.MsgspecError: the event has no `type`, a string.
    """
    event = _read_event(raw)
    value = msgspec.Raw(b'{"type":"agent_event","event":%b}' % raw)
    is_own = event.operation_id in ("", None, operation)  # others are mirrored members
    shown = _shown(event, value) if is_own and event.type == "stream_chunk" else None
    entries = [encode_entry(shown or Data(FED, value))]
    if not is_own or event.type != RUNTIME_END:
        return entries, ""
    end = _end_of(event.data)
    return [*entries, encode_entry(end)], end.status


def _shown(event: FedEvent, value: msgspec.Raw) -> Event | None:
    """Return a piece of text or reasoning as the event that every dialect shows; None: no piece."""
    try:
        chunk = _read_chunk(event.data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    extra = {FED: value}
    if chunk.snapshot_mode is None and chunk.kind == "text" and _is_text(chunk.content):
        return Token(chunk.content, extra)
    if chunk.snapshot_mode is None and chunk.kind == "reasoning" and _is_text(chunk.reasoning):
        return Reasoning(chunk.reasoning, extra)
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _end_of(data: bytes) -> End:
    try:
        told = _read_end(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        told = _RuntimeEnd()
    # `done`, `waiting_for_human` and others: nothing more comes under this name.
    reason = told.reason if told.reason in ("error", "interrupted") else "completed"
    return end_entry(reason, told.detail if isinstance(told.detail, str) else "")


def end_entry(status: str, detail: str = "") -> End:
    """Return the end of the log for a status of `ENDS`."""
    ended, finish_reason = ENDS[status]
    if ended != "failed":
        return End(ended, finish_reason)
    said = detail.strip()[:MESSAGE_CHARACTERS] or "the agent runtime has reported an error"
    return End(ended, finish_reason, error=Failure(RUNTIME_ERROR, said, False))


def message_entry(**message: Any) -> bytes:
    """Return the entry of another message than an event; `type` comes first."""
    return encode_entry(Data(FED, message))


def reply_entry(reply: dict[str, Any]) -> bytes:
    """Return the entry of a client's reply to the feeder."""
    return encode_entry(Data(REPLY, reply))


def read_message(raw: bytes, operations: tuple[str, ...]) -> FedMessage | None:
    """Return the message in an entry; None: the entry has none.

    Args:
        operations: the names of the operation whose log it is.
    """
    if _MARK not in raw:
        return None
    try:
        entry = _read_entry(raw)
        body = bytes(entry.extra.lobehub if entry.extra is not None else entry.value)
        if entry.extra is None and entry.name != FED:
            return None
        value = _read_value(body)
        if value.type != AGENT_EVENT:
            is_end = value.type == SESSION_COMPLETE or value.status in ENDS
            return FedMessage(Message(value.type, body, False), value.status, is_end)
        event = _read_event(value.event)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    is_own = event.operation_id in ("", None, *operations)
    is_end = is_own and event.type == RUNTIME_END
    return FedMessage(Message(event.type, bytes(value.event)), "", is_end)


def read_reply(raw: bytes) -> dict[str, Any] | None:
    """Return a client's reply in an entry; None: the entry has none."""
    if b'"lobehub.reply"' not in raw:
        return None
    try:
        entry = _read_entry(raw)
        reply = msgspec.json.decode(entry.value) if entry.name == REPLY else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return reply if isinstance(reply, dict) else None


def executor_entry(client: str, *, is_there: bool) -> bytes:
    """Return the entry that says whether a client runs the tools of the operation."""
    return encode_entry(Data(EXECUTOR, {"client": client, "isThere": is_there}))


def read_executor(raw: bytes) -> tuple[str, bool] | None:
    """Return the client of an entry of `executor_entry`, and whether it is there; None: no such."""
    if b'"lobehub.executor"' not in raw:
        return None
    try:
        entry = _read_entry(raw)
        found = msgspec.json.decode(entry.value) if entry.name == EXECUTOR else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if not isinstance(found, dict):
        return None
    return str(found.get("client")), found.get("isThere") is True
