"""`response.steer`: input of the user for a response that is still running.

The input waits until the response has completed; then the node continues the response with it, with
the settings of the response. If the response asks for results of tools, the input waits for the
`response.create` that brings them. What waits exists only on its socket, as at OpenAI. Pure.
Source: docs/dialects/responses-websocket.md.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from api.dialects.responses.input import messages_of
from api.dialects.responses.request import ResponseRequest
from api.dialects.responses.response_object import INSTRUCTED, PREVIOUS
from shared.errors import RequestError
from shared.log.records import Meta
from shared.log.request import decode_request

STEERS_MAX = 16  # that wait for one response
HELD_MAX = 32  # responses of one socket for whose results of tools steers wait
STEER_BYTES_MAX = 65_536  # of the frame: the input is kept until the response has ended
_MEMBERS = frozenset(("type", "previous_response_id", "input"))
_MESSAGE_MEMBERS = frozenset(("type", "role", "content", "id", "status"))
_OUTPUTS = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
}


class SteerError(Exception):
    """Input that is not taken.

    Attributes:
        code: as OpenAI names the reason.
        message: for a person.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Steer(NamedTuple):
    """Accepted input.

    Attributes:
        parent: id of the response that it steers.
        input: as the client sent it.
    """

    id: str
    parent: str
    input: Any

    @property
    def items(self) -> list[dict[str, Any]]:
        """The input as items."""
        if isinstance(self.input, str):
            return [{"type": "message", "role": "user", "content": self.input}]
        return list(self.input)


def read_steer(frame: dict[str, Any], size: int) -> Steer:
    """Return the input of a `response.steer`, with a new id.

    Args:
        size: bytes of the frame.

    Raises:
        SteerError: `invalid_input`.
    """
    parent, given = frame.get("previous_response_id"), frame.get("input")
    if not isinstance(parent, str) or not parent:
        raise _invalid("previous_response_id: the id of the response to steer")
    if unknown := sorted(frame.keys() - _MEMBERS):
        raise _invalid(f"response.steer has no member {unknown[0][:80]!r}")
    if size > STEER_BYTES_MAX:
        raise _invalid(f"response.steer has at most {STEER_BYTES_MAX:,} bytes")
    if not given or not isinstance(given, str | list):
        raise _invalid("input: a text, or an array of messages of the user")
    for item in given if isinstance(given, list) else ():
        if not isinstance(item, dict) or item.get("role") != "user":
            raise _invalid("input: only messages with the role user")
        if item.get("type") not in (None, "message") or item.keys() - _MESSAGE_MEMBERS:
            raise _invalid("input: a message has the members type, role and content")
    steer = Steer(f"steer_{secrets.token_hex(16)}", parent, given)
    try:
        messages_of(steer.items)
    except RequestError as exc:
        raise _invalid(exc.message) from None
    return steer


def required_input(output: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what a completed response still needs from the client: results of its calls."""
    stubs = []
    for item in output:
        kind = _OUTPUTS.get(item["type"])
        if kind is not None:
            name = {"name": item["name"]} if kind == "function_call_output" else {}
            stubs.append({"type": kind, "call_id": item["call_id"], **name})
    return stubs


def joined_input(steers: Sequence[Steer], given: Any) -> Any:
    """Return the input of a request after the input of steers."""
    if isinstance(given, str):
        given = [{"type": "message", "role": "user", "content": given}]
    if not isinstance(given, list | None):
        return given  # refused where the request is read
    return [*(item for steer in steers for item in steer.items), *(given or [])]


def successor_of(meta: Meta, parent: str, steers: Sequence[Steer]) -> ResponseRequest:
    """Return the request that continues a response with steers, without its conversation.

    Args:
        meta: of the response, with its request.
        parent: id of the response.
    """
    request = decode_request(meta.request)
    head = request.messages[: 1 if INSTRUCTED in request.dialect else 0]
    messages = [*head, *messages_of(joined_input(steers, None))]
    dialect = {**request.dialect, PREVIOUS: parent}
    new = msgspec.structs.replace(request, messages=messages, dialect=dialect)
    return ResponseRequest(new, meta.grace_s, is_stream=True, previous=parent)


def shared_members(meta: Meta) -> dict[str, Any]:
    """Return the members of a request that a successor has in common with its parent."""
    members: dict[str, Any] = {"model": meta.model, "priority": meta.priority}
    if meta.session:
        members["session"] = meta.session
    if meta.metadata:
        members["metadata"] = msgspec.json.decode(meta.metadata)
    return members


def accepted_event(steer: Steer) -> dict[str, Any]:
    return {"type": "response.steer.accepted", "steer": _named(steer)}


def pending_event(steer: Steer, stubs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "type": "response.steer.pending",
        "steer": _named(steer),
        "reason": "waiting_for_required_input",
        "required_input": stubs,
    }


def failed_event(error: SteerError, *, parent: Any, given: Any, steer_id: str = "") -> Any:
    """Return the event with which a client gets its input back.

    Args:
        parent, given: as the client sent them.
        steer_id: empty: the input was never accepted.
    """
    named = {"id": steer_id} if steer_id else {}
    described = {"type": "invalid_request_error", "code": error.code, "message": error.message}
    return {
        "type": "response.steer.failed",
        "steer": {**named, "previous_response_id": parent, "input": given},
        "error": described,
    }


def _named(steer: Steer) -> dict[str, str]:
    return {"id": steer.id, "previous_response_id": steer.parent}


def _invalid(message: str) -> SteerError:
    return SteerError("invalid_input", message)
