"""AG-UI events as protocol buffers: the message `Event` of @ag-ui/proto 1.0.

    4 bytes, big-endian: the length of the message
    message: one field, whose number names the type of the event
        1    BaseEvent: 1 the type as a number
        2 …  the members, by `_FIELDS`

Written by hand, because the Python package of AG-UI has no protocol buffers, and the package
`protobuf` would be a dependency for this alone. Only the events of builder.py have a row. Pure.
Source: sdks/typescript/packages/proto of ag-ui-protocol/ag-ui; tests/clients/test_ag_ui.py decodes
every recorded log with the official decoder.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

# Type -> number of its field in `Event`, its number in `EventType`, and its members with number and
# kind: s string, b bool, v Value, m Struct, p JSON patch, u usage, o outcome.
_FIELDS: Mapping[str, tuple[int, int, Mapping[str, tuple[int, str]]]] = {
    "TEXT_MESSAGE_START": (
        1, 0, {"messageId": (2, "s"), "role": (3, "s"), "subagentRunId": (5, "s")}),
    "TEXT_MESSAGE_CONTENT": (2, 1, {"messageId": (2, "s"), "delta": (3, "s")}),
    "TEXT_MESSAGE_END": (3, 2, {"messageId": (2, "s")}),
    "TOOL_CALL_START": (
        4, 3,
        {"toolCallId": (2, "s"), "toolCallName": (3, "s"), "parentMessageId": (4, "s"),
         "subagentRunId": (5, "s")}),
    "TOOL_CALL_ARGS": (5, 4, {"toolCallId": (2, "s"), "delta": (3, "s")}),
    "TOOL_CALL_END": (6, 5, {"toolCallId": (2, "s")}),
    "STATE_SNAPSHOT": (7, 6, {"snapshot": (2, "v"), "subagentRunId": (3, "s")}),
    "STATE_DELTA": (8, 7, {"delta": (2, "p"), "subagentRunId": (3, "s")}),
    "RAW": (10, 9, {"event": (2, "v"), "source": (3, "s")}),
    "CUSTOM": (11, 10, {"name": (2, "s"), "value": (3, "v"), "subagentRunId": (4, "s")}),
    "RUN_STARTED": (
        12, 11, {"threadId": (2, "s"), "runId": (3, "s"), "protocolVersion": (6, "s")}),
    "RUN_FINISHED": (
        13, 12,
        {"threadId": (2, "s"), "runId": (3, "s"), "result": (4, "v"), "outcome": (5, "o"),
         "usage": (7, "u")}),
    "RUN_ERROR": (14, 13, {"code": (2, "s"), "message": (3, "s"), "usage": (4, "u")}),
    "STEP_STARTED": (15, 14, {"stepName": (2, "s"), "subagentRunId": (3, "s")}),
    "STEP_FINISHED": (16, 15, {"stepName": (2, "s"), "subagentRunId": (3, "s")}),
    "SUBAGENT_STARTED": (19, 16, {"subagentRunId": (2, "s"), "name": (3, "s")}),
    "SUBAGENT_FINISHED": (20, 17, {"subagentRunId": (2, "s")}),
    "SUBAGENT_ERROR": (21, 18, {"subagentRunId": (2, "s"), "message": (3, "s"), "code": (4, "s")}),
    "ACTIVITY_SNAPSHOT": (
        23, 22,
        {"subagentRunId": (2, "s"), "messageId": (3, "s"), "activityType": (4, "s"),
         "content": (5, "m"), "replace": (6, "b")}),
    "REASONING_START": (25, 24, {"subagentRunId": (2, "s"), "messageId": (3, "s")}),
    "REASONING_MESSAGE_START": (
        26, 25, {"subagentRunId": (2, "s"), "messageId": (3, "s"), "role": (4, "s")}),
    "REASONING_MESSAGE_CONTENT": (27, 26, {"messageId": (3, "s"), "delta": (4, "s")}),
    "REASONING_MESSAGE_END": (28, 27, {"messageId": (3, "s")}),
    "REASONING_END": (30, 29, {"messageId": (3, "s")}),
    "REASONING_ENCRYPTED_VALUE": (
        31, 30, {"subtype": (3, "s"), "entityId": (4, "s"), "encryptedValue": (5, "s")}),
}  # fmt: skip
_OPERATIONS = ("add", "remove", "replace", "move", "copy", "test")  # by their number
_COUNTS = {
    "inputTokens": 3, "outputTokens": 4, "totalTokens": 5, "reasoningTokens": 6,
    "cachedInputTokens": 7,
}  # fmt: skip
_VARINT, _FIXED64, _BYTES = 0, 1, 2
_LENGTH_BYTES = 4


def frame(event: Mapping[str, Any]) -> bytes:
    """Return one event with its length before it."""
    arm, number, members = _FIELDS[event["type"]]
    body = _bytes(1, _number(1, number) if number else b"")
    for name, (place, kind) in members.items():
        if name in event:
            body += _KINDS[kind](place, event[name])
    message = _bytes(arm, body)
    return struct.pack(">I", len(message)) + message


def after_frame(framed: bytes) -> bytes:
    """Return what follows the first frame."""
    (length,) = struct.unpack_from(">I", framed)
    return framed[_LENGTH_BYTES + length :]


def _varint(number: int) -> bytes:
    coded = bytearray()
    while number > 0x7F:
        coded.append(number & 0x7F | 0x80)
        number >>= 7
    coded.append(number)
    return bytes(coded)


def _number(place: int, number: int) -> bytes:
    return _varint(place << 3 | _VARINT) + _varint(number)


def _bytes(place: int, value: bytes) -> bytes:
    return _varint(place << 3 | _BYTES) + _varint(len(value)) + value


def _string(place: int, value: str) -> bytes:
    return _bytes(place, value.encode())


def _bool(place: int, value: bool) -> bytes:
    return _number(place, int(value))


def _struct(place: int, value: Mapping[str, Any]) -> bytes:
    entries = (_string(1, name) + _value(2, inner) for name, inner in value.items())
    return _bytes(place, b"".join(_bytes(1, entry) for entry in entries))


def _value(place: int, value: Any) -> bytes:
    """Return a google.protobuf.Value, whose numbers are all floating-point numbers."""
    match value:
        case None:
            inner = _number(1, 0)
        case bool():
            inner = _number(4, int(value))
        case int() | float():
            inner = _varint(2 << 3 | _FIXED64) + struct.pack("<d", value)
        case str():
            inner = _string(3, value)
        case Mapping():
            inner = _struct(5, value)
        case _:
            inner = _bytes(6, b"".join(_value(1, item) for item in value))
    return _bytes(place, inner)


def _patch(place: int, operations: list[dict[str, Any]]) -> bytes:
    coded = b""
    for operation in operations:
        number = _OPERATIONS.index(operation["op"])
        body = (_number(1, number) if number else b"") + _string(2, operation["path"])
        if "from" in operation:
            body += _string(3, operation["from"])
        if "value" in operation:
            body += _value(4, operation["value"])
        coded += _bytes(place, body)
    return coded


def _usage(place: int, rows: list[dict[str, Any]]) -> bytes:
    coded = b""
    for row in rows:
        counts = b"".join(_number(_COUNTS[name], row[name]) for name in _COUNTS if name in row)
        coded += _bytes(place, _string(2, row["model"]) + counts)
    return coded


def _outcome(place: int, outcome: Mapping[str, str]) -> bytes:
    return _string(place, outcome["type"])


_KINDS: Mapping[str, Callable[[int, Any], bytes]] = {
    "s": _string, "b": _bool, "v": _value, "m": _struct, "p": _patch, "u": _usage, "o": _outcome,
}  # fmt: skip
