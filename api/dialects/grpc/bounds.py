"""Counts what a request holds before protobuf decodes it. Pure.

A value takes two bytes on the wire and a hundred times as much when it is decoded, and a decoder
cannot be interrupted. So the fields are counted first, and counting stops at `FIELDS_MAX`.
Source: protobuf's "Encoding".
"""

from __future__ import annotations

from typing import Any

FIELDS_MAX = 20_000  # of one request: a message has 3, a value in an object 4
DEPTH_MAX = 100  # of messages in messages, as protobuf's decoders have it
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
# The fields that hold messages, by kind of message and number.
_SUB_MESSAGES: dict[str, dict[int, str]] = {
    "GenerateRequest": {2: "Message", 4: "Struct", 6: "Struct"},
    "Message": {3: "ListValue", 4: "Struct"},
    "Struct": {1: "Entry"},
    "Entry": {2: "Value"},
    "Value": {5: "Struct", 6: "ListValue"},
    "ListValue": {1: "Value"},
}
TOO_MANY = f"the message has more than {FIELDS_MAX} fields"
BROKEN = "the message is no protobuf"


def check_fields(raw: bytes, kind: str = "GenerateRequest") -> None:
    """Check that a message has not too many fields, with those of the messages in it.

    Raises:
        ValueError: it has, or it is no protobuf. The text of the error is for the client.
    """
    # Each row: the rest of one message, as (place, end, kind).
    rows = [(0, len(raw), kind)]
    count = 0
    while rows:
        at, end, kind = rows.pop()
        subs = _SUB_MESSAGES.get(kind, {})
        while at < end:
            count += 1
            if count > FIELDS_MAX:
                raise ValueError(TOO_MANY)
            tag, at = _varint(raw, at, end)
            wire_type = tag & 7
            if wire_type == _VARINT:
                _, at = _varint(raw, at, end)
            elif wire_type in _FIXED_BYTES:
                at += _FIXED_BYTES[wire_type]
            elif wire_type == _LENGTH:
                size, start = _varint(raw, at, end)
                at = start + size
                sub = subs.get(tag >> 3)
                if sub is not None and at <= end:
                    rows.append((at, end, kind))
                    if len(rows) > DEPTH_MAX:
                        raise ValueError("the message is nested too deep")
                    rows.append((start, at, sub))
                    break
            else:
                raise ValueError(BROKEN)
            if at > end:
                raise ValueError(BROKEN)


def check_values(value: Any) -> None:
    """Check that decoded JSON has no more than `FIELDS_MAX` values.

    Raises:
        ValueError: it has.
    """
    waiting, count = [value], 0
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict | list):
            count += len(each)
            if count > FIELDS_MAX:
                raise ValueError(TOO_MANY)
            waiting.extend(each.values() if isinstance(each, dict) else each)


def _varint(raw: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError(BROKEN)
