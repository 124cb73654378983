"""Our JSON objects as messages of `tailrace.v1`, and back. Pure, but needs the extra `grpc`.

Import this module through api/dialects/grpc/installed.py. A JSON object and its message have the
same names, so protobuf's own mapping of JSON does nearly all of the work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from api.dialects.grpc.bounds import check_fields, check_values
from api.dialects.grpc.generated import tailrace_pb2 as wire
from api.intake.strict_json import decode_json

# What can go wrong with a value that was valid JSON: too deep, too large, half a surrogate pair.
CONVERSION_ERRORS = (json_format.Error, ValueError, TypeError, OverflowError, RecursionError)
_KINDS = frozenset(field.name for field in wire.Event.DESCRIPTOR.oneofs_by_name["kind"].fields)
_OWN_EXTRA = ("usage", "tool_call")  # these have a place for `extra` themselves
_MESSAGE_MEMBERS = ("role", "content")


def opened_event(generation_id: str) -> Message:
    """Return the first message of a stream."""
    return wire.Event(opened=wire.Opened(generation_id=generation_id))


def event_message(event_id: str, raw: bytes) -> Message:
    """Return an entry of a log. Of an event that cannot be expressed only the id is left.

    Args:
        raw: the JSON of the entry, of any version.
    """
    try:
        fields = msgspec.json.decode(raw)
        kind = fields.pop("type")
        content = {"agent": fields.pop("agent", ""), "id": event_id}
        if kind not in _OWN_EXTRA:
            content["extra"] = fields.pop("extra", None)
        if kind in _KINDS:
            content[kind] = fields
        return _fill(wire.Event(), content)
    except (*CONVERSION_ERRORS, msgspec.MsgspecError, AttributeError, KeyError):
        return wire.Event(id=event_id)


def generation_message(fields: Mapping[str, Any]) -> Message:
    """Return a generation.

    Args:
        fields: the members of a snapshot or of a listing.
    """
    known = {**fields, "metadata": _decoded(fields.get("metadata"))}
    known["messages"] = [_message_fields(each) for each in fields.get("messages") or ()]
    try:
        return _fill(wire.Generation(), known)
    except CONVERSION_ERRORS:
        # A foreign value somewhere: without what may hold foreign values the rest is ours.
        for name in ("metadata", "extra", "messages", "tool_calls", "error", "usage"):
            known.pop(name, None)
        return _fill(wire.Generation(), _readable(known))


def session_message(content: Mapping[str, Any]) -> Message:
    """Return a page of a session; `content` is the native listing."""
    found = wire.SessionResponse(
        session=content["session"],
        active=content["active"],
        next_before=content["next_before"] or 0,
    )
    found.generations.extend(generation_message(each) for each in content["generations"])
    return found


def new_generation_fields(request: Any) -> dict[str, Any]:
    """Return the members of a native body for a GenerateRequest.

    Raises:
        ValueError: a number in `params`, `metadata` or a message is infinite or no number.
    """
    fields = _as_json(request)
    fields.pop("cursor", None)
    if "messages" in fields:
        fields["messages"] = [_native_message(each) for each in fields["messages"]]
    if (grace := _number(fields.get("on_disconnect", ""))) is not None:
        fields["on_disconnect"] = grace
    return fields


def read_message(kind: type[Message], payload: bytes, *, is_json: bool) -> Message:
    """Return the message that a client has sent.

    Raises:
        ValueError: the bytes are no such message. The text of the error is for the client.
        RequestError: 400 `invalid_json`.
    """
    fields = decode_json(payload or b"{}") if is_json else None
    try:
        if fields is None:
            check_fields(payload, kind.DESCRIPTOR.name)
            return kind.FromString(payload)
        if not isinstance(fields, dict):
            raise ValueError("it must be an object")
        check_values(fields)
        return _fill(kind(), fields)
    except DecodeError:
        raise ValueError(f"the message is no {kind.DESCRIPTOR.full_name}") from None
    except CONVERSION_ERRORS as exc:
        raise ValueError(f"the message is no {kind.DESCRIPTOR.full_name}: {exc}") from None


def encode_message(message: Message, *, is_json: bool) -> bytes:
    """Return a message in protobuf or in protobuf's JSON, with the same bytes on every node.

    Without an order protobuf writes the members of a Struct by a hash that differs by process.
    """
    if not is_json:
        return bytes(message.SerializeToString(deterministic=True))
    return msgspec.json.encode(json_format.MessageToDict(message), order="deterministic")


REQUESTS: Mapping[str, type[Message]] = {
    method.name: getattr(wire, method.input_type.name)
    for method in wire.DESCRIPTOR.services_by_name["Tailrace"].methods
}
SERVICE = wire.DESCRIPTOR.services_by_name["Tailrace"].full_name


def _fill(message: Message, content: Mapping[str, Any]) -> Message:
    filled: Message = json_format.ParseDict(content, message, ignore_unknown_fields=True)
    return filled


def _as_json(message: Any) -> dict[str, Any]:
    """Return a request as JSON; a number without a fraction is an integer, as clients mean it."""
    found = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return {name: _whole(value) for name, value in found.items()}


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(each) for name, each in value.items()}
    return [_whole(each) for each in value] if isinstance(value, list) else value


def _native_message(fields: dict[str, Any]) -> dict[str, Any]:
    members = fields.get("members", {})
    own = {name: fields[name] for name in _MESSAGE_MEMBERS if name in fields}
    if "parts" in fields:
        own["content"] = fields["parts"]
    return {**members, **own}


def _message_fields(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a Message for a native message."""
    content = message.get("content")
    found = {"role": message.get("role", "")}
    if isinstance(content, list):
        found["parts"] = content
    elif content is not None:
        found["content"] = content
    rest = {name: value for name, value in message.items() if name not in _MESSAGE_MEMBERS}
    return {**found, "members": rest} if rest else found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _decoded(metadata: Any) -> Any:
    return msgspec.json.decode(metadata) if isinstance(metadata, msgspec.Raw | bytes) else metadata


def _readable(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for name, value in fields.items()
    }
