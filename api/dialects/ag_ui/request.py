"""RunAgentInput, the body of a run, read as a prompt. Pure.

    threadId    the session
    runId       the idempotency key, together with threadId
    messages    messages.py
    tools       params.tools
    context     text in the system message
    state       kept for the client, when an answer begins anew; no model sees it
    forwardedProps.tailrace    the members that all dialects share, and `params`

Source: docs/dialects/ag-ui.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from api.dialects.ag_ui.messages import read_messages
from api.dialects.ag_ui.run import RUN, STATE, THREAD, VERSION, run_key
from api.intake.body import (
    check_messages,
    check_params,
    has_controls,
    invalid_request,
)
from api.intake.dialect_request import DialectRequest
from shared.config.credentials import SESSION_CHARACTERS_MAX
from shared.log.request import Request

NAME_CHARACTERS_MAX = 256  # of a thread, and of a run
STATE_BYTES_MAX = 16_384  # of a state that is kept with the request
OWN_PROPS = "tailrace"
_NOT_SHARED = ("model", "messages", "prompt")
_CONTEXT_TITLE = "Context of the application:"


@dataclass(frozen=True)
class AgUiRequest(DialectRequest):
    """The body of a run."""


def parse_ag_ui(agent: str, body: dict[str, Any]) -> AgUiRequest:
    """Read the members of a run of `agent`. Sets `model`, `session`, and what all dialects share.

    Raises:
        RequestError: 422, a member is missing or wrong; the message names it.
    """
    thread_id, run_id = _read_name(body, "threadId"), _read_name(body, "runId")
    if not run_id:
        raise invalid_request("runId must be a string that is not empty")
    for name in ("protocolVersion", "parentRunId"):
        if not isinstance(body.get(name, ""), str):
            raise invalid_request(f"{name} must be a string")
    if body.get("resume"):
        raise invalid_request("resume: no run of this server waits for an answer")
    messages = read_messages(body.get("messages"))
    if not messages:
        raise invalid_request("messages: there is nothing in them that a model can read")
    context = _read_context(body.get("context", []))
    tools = _read_tools(body.get("tools", []))
    _take_shared(body)
    params = check_params(body)
    if tools:
        params = {"tools": tools, **params}
    body["model"] = agent
    if 0 < len(thread_id) <= SESSION_CHARACTERS_MAX:
        body.setdefault("session", thread_id)
    dialect = {THREAD: thread_id, RUN: run_id, **_kept_state(body.get("state", {}))}
    if body.get("protocolVersion"):
        dialect[VERSION] = body["protocolVersion"][:NAME_CHARACTERS_MAX]
    request = Request(check_messages(_with_context(messages, context)), params, dialect)
    return AgUiRequest(request, idempotency_key=run_key(thread_id, run_id))


def _read_name(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or len(value) > NAME_CHARACTERS_MAX or has_controls(value):
        raise invalid_request(
            f"{name} must be a string of at most {NAME_CHARACTERS_MAX} characters, "
            "without control characters"
        )
    return value


def _kept_state(state: Any) -> dict[str, Any]:
    return {STATE: state} if len(msgspec.json.encode(state)) <= STATE_BYTES_MAX else {}


def _take_shared(body: dict[str, Any]) -> None:
    """Move the members of `forwardedProps.tailrace` to the body.

    The official client removes members that AG-UI does not know from the body. Other members of
    `forwardedProps` are the application's own.
    """
    props = body.get("forwardedProps")
    own = props.get(OWN_PROPS) if isinstance(props, dict) else None
    if own is None:
        return
    if not isinstance(own, dict):
        raise invalid_request(f"forwardedProps.{OWN_PROPS} must be an object")
    body |= {
        name: value for name, value in own.items() if value is not None and name not in _NOT_SHARED
    }


def _read_tools(tools: Any) -> list[dict[str, Any]]:
    if not isinstance(tools, list):
        raise invalid_request("tools must be an array")
    return [_read_tool(f"tools[{index}]", tool) for index, tool in enumerate(tools)]


def _read_tool(where: str, tool: Any) -> dict[str, Any]:
    if not isinstance(tool, dict):
        raise invalid_request(f"{where} must be an object")
    name, description, parameters = (
        tool.get(member) for member in ("name", "description", "parameters")
    )
    if not isinstance(name, str) or not name:
        raise invalid_request(f"{where}.name must be a string that is not empty")
    if not isinstance(description, str | None):
        raise invalid_request(f"{where}.description must be a string")
    if not isinstance(parameters, dict | None):
        raise invalid_request(f"{where}.parameters must be a JSON Schema, an object")
    members = {"description": description, "parameters": parameters}
    function = {"name": name, **{key: value for key, value in members.items() if value}}
    return {"type": "function", "function": function}


def _read_context(context: Any) -> str:
    """Return the context as text; empty: there is none."""
    if not isinstance(context, list):
        raise invalid_request("context must be an array")
    for index, item in enumerate(context):
        members = [item.get(name) for name in ("description", "value")] if _is_object(item) else []
        if not members or not all(isinstance(member, str) for member in members):
            raise invalid_request(f"context[{index}] must have a description and a value, strings")
    if not context:
        return ""
    pieces = (f"{item['description']}\n{item['value']}" for item in context)
    return "\n\n".join((_CONTEXT_TITLE, *pieces))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _with_context(messages: list[dict[str, Any]], context: str) -> list[dict[str, Any]]:
    """Return the messages with the context at the end of the first system message.

    Many chat templates take one system message, and only at the beginning.
    """
    if not context:
        return messages
    first = messages[0]
    if first["role"] in ("system", "developer") and isinstance(first["content"], str):
        return [{**first, "content": f"{first['content']}\n\n{context}"}, *messages[1:]]
    return [{"role": "system", "content": context}, *messages]
