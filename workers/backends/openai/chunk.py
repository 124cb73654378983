r"""Decodes the data of one event of a chat stream, and separates known members from unknown ones.

An odd value must not end an answer that was paid for. So only these members are required to have
their type; a value of another type there is a failure:

    the chunk, each choice, `delta`, `message`, each tool call, its `function`    an object or null
    `choices`, `tool_calls`                  a list or null; `tool_calls` may also be one object

In all other members a value of another type is not read but kept in `extra`, or dropped if JSON
cannot hold it: NaN, Infinity and numbers beyond 64 bits become null. Torn UTF-8 and broken JSON are
failures. `\ud83d` without its other half is decoded as it is; `half_pairs.py` joins or replaces it.
Pure.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from shared.errors import BackendError
from shared.log.extra import clean, is_empty
from shared.text.json_values import VALUES_MAX, has_too_many_values
from workers.backends.reading.json_object import CHECKED_BYTES_MIN

# Members that the reader interprets, or that the answer has from us: never in `extra`.
CHUNK_MEMBERS = frozenset(("id", "object", "created", "model", "choices", "usage", "error"))
CHOICE_MEMBERS = frozenset(("index", "delta", "message", "finish_reason", "usage", "error"))
DELTA_MEMBERS = frozenset(("role", "tool_calls", "function_call"))
CALL_MEMBERS = frozenset(("index", "id", "function"))
FUNCTION_MEMBERS = frozenset(("name", "arguments"))

_decode = msgspec.json.decode
_ABSENT = msgspec.Raw()


# The parts of a chunk of very many values that are decoded; the rest is skipped.
class _RawChoice(msgspec.Struct, omit_defaults=True):
    index: msgspec.Raw = _ABSENT
    delta: msgspec.Raw = _ABSENT
    message: msgspec.Raw = _ABSENT
    finish_reason: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT


class _RawChunk(msgspec.Struct, omit_defaults=True):
    choices: list[_RawChoice] | None = None
    usage: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT
    object: msgspec.Raw = _ABSENT
    message: msgspec.Raw = _ABSENT


_decode_raw = msgspec.json.Decoder(_RawChunk).decode


def read_chunk(payload: bytes, warnings: set[str]) -> dict[str, Any]:
    """Return the chunk.

    Args:
        warnings: gets the names of what was repaired or left out.

    Raises:
        BackendError: the data is not a JSON object, or has too many values.
    """
    try:
        if not payload.isascii():
            payload.decode()  # a clear error, and lone halves are escapes, never bytes
        if len(payload) > CHECKED_BYTES_MIN and has_too_many_values(payload):
            warnings.add("extra_too_large")
            payload = _without_skipped(payload)
        chunk = _decode_leniently(payload, warnings)
    except (ValueError, RecursionError) as exc:  # msgspec's errors are ValueErrors
        raise BackendError("upstream_error", f"the backend sent broken data: {exc}") from exc
    return required_object(chunk, "chunk")


_PLAIN_CHOICE = CHOICE_MEMBERS - {"message", "usage", "error"}
_PLAIN_DELTA = frozenset(("role", "content"))


def plain_text_of(chunk: dict[str, Any]) -> str | None:
    """Return the text of a chunk that says nothing else; None: read it member by member.

    A null says nothing. Facts that a server repeats in every chunk make a chunk special.
    """
    choices = chunk.get("choices")
    if chunk.get("usage") or not isinstance(choices, list) or len(choices) != 1:
        return None
    choice = choices[0]
    if not isinstance(choice, dict) or choice.get("index") or choice.get("finish_reason"):
        return None
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return None
    text = delta.get("content")
    if not isinstance(text, str) or not _is_decoded(text):
        return None
    for members, known in (
        (chunk, CHUNK_MEMBERS), (choice, _PLAIN_CHOICE), (delta, _PLAIN_DELTA),
    ):  # fmt: skip
        if not members.keys() <= known and any(
            value is not None for name, value in members.items() if name not in known
        ):
            return None
    return text


def _is_decoded(text: str) -> bool:
    """Whether `text` has no lone halves of characters."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def required_object(value: Any, name: str) -> dict[str, Any]:
    """Return a required member that must be an object or null.

    Raises:
        BackendError: it is another value.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        message = f"the backend sent broken data: {name} is no object"
        raise BackendError("upstream_error", message)
    return value


def as_list(value: Any, name: str) -> list[Any]:
    """Return a required member that must be a list or null; raises as `required_object`."""
    if value is None:
        return []
    if not isinstance(value, list):
        message = f"the backend sent broken data: {name} is no list"
        raise BackendError("upstream_error", message)
    return value


def unknown_members(
    value: dict[str, Any], known: frozenset[str], warnings: set[str]
) -> dict[str, Any]:
    """Return the members that are not `known` and not empty, in a form that can be stored."""
    if value.keys() <= known:
        return {}
    found = {
        name: member for name, member in value.items() if name not in known and not is_empty(member)
    }
    if not found:
        return found
    cleaned, is_changed = clean(found)
    if is_changed:
        warnings.add("odd_value")
    return {name: member for name, member in cleaned.items() if not is_empty(member)}


def _decode_leniently(payload: bytes, warnings: set[str]) -> Any:
    try:
        return _decode(payload)
    except (ValueError, RecursionError) as exc:
        if isinstance(exc, RecursionError):
            raise
        # Python's decoder is slower, but also reads NaN, Infinity and lone halves of pairs.
        chunk = json.loads(payload.decode())
        warnings.add("odd_value")
        return chunk


def _without_skipped(payload: bytes) -> bytes:
    """Return a chunk of very many values without the members that the reader does not read.

    Raises:
        BackendError: decoding the rest would block the other runs of this worker for too long.
    """
    chunk = _decode_raw(payload)
    parts = [chunk.usage, chunk.error, chunk.object, chunk.message]
    for choice in chunk.choices or ():
        parts += [choice.delta, choice.message, choice.error]
    if has_too_many_values(b",".join(map(bytes, parts))):
        message = f"the backend sent a chunk of more than {VALUES_MAX} values"
        raise BackendError("upstream_error", message, retryable=False)
    return msgspec.json.encode(chunk)
