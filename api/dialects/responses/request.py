"""Reads the body of POST /v1/responses as a prompt. Pure.

Members of OpenAI's that mean nothing to a backend of chat completions are left out. Members that
are neither OpenAI's nor ours go to the backend unchanged. Members that need a feature which does
not exist here (conversations, prompt templates) are refused. Tools and items that only OpenAI can
use are left out, and `ignored` names them.
Source: docs/protocol.md, "Responses".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from api.dialects.responses.custom_tools import CUSTOM_TOOL
from api.dialects.responses.input import messages_of, references_of, resolve
from api.dialects.responses.response_object import (
    BACKGROUND,
    CUSTOM_TOOLS,
    INSTRUCTED,
    NAMESPACED,
    PREVIOUS,
    SUMMARY,
    TOOL_CHOICE,
    UNSTORED,
)
from api.dialects.responses.tool_groups import placed_tools
from api.dialects.responses.tools import chat_tools, choose_tools, names_of
from api.dialects.responses.turn_key import ClientTurn, turn_of
from api.intake.body import invalid_request, upstream_priority
from api.intake.dialect_request import DialectRequest
from shared.log.request import Request

COUNT_MAX = 10**9  # of `max_output_tokens`; servers refuse such numbers, too
# Our own members, OpenAI's members without a meaning for a backend, and the members of a chat
# completion that Responses write in another way.
_NOT_PASSED_ON = frozenset(
    (
        "model", "input", "instructions", "stream", "stream_options", "background", "store",
        "previous_response_id", "tools", "tool_choice", "text", "reasoning", "max_output_tokens",
        "include", "truncation", "max_tool_calls", "service_tier", "context_management",
        "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "safety_identifier",
        "moderation", "client_metadata",
        "session", "metadata", "priority", "on_disconnect", "queue_wait_s", "deadline_s",
        "messages", "n", "max_tokens", "max_completion_tokens", "response_format",
        "reasoning_effort",
    )
)  # fmt: skip
_REFUSED = ("conversation", "prompt")
_FLAGS = ("stream", "background")
# Chats of the AI SDK name each earlier item of theirs, and every response is read from Redis.
REFERENCES_MAX = 1_000


@dataclass(frozen=True)
class ResponseRequest(DialectRequest):
    """The body of a new response.

    Attributes:
        is_stream: how this request is answered; it is not stored with the generation.
        is_background: without `is_stream` the request is answered before the generation has ended.
        previous: the id of the response that the new one continues; empty: none.
        references: the ids of items that the input only names. Until `with_items`, `request` lacks
            the whole input.
        items: the input, if `references` is not empty.
        turn: that the client names; None: none.
        ignored: the places in the body that the backend does not get, for example `tools[4]`.
    """

    is_stream: bool = False
    is_background: bool = False
    previous: str = ""
    references: tuple[str, ...] = ()
    items: tuple[Any, ...] = ()
    ignored: tuple[str, ...] = ()
    turn: ClientTurn | None = None

    @property
    def is_answered_from_log(self) -> bool:
        """Whether this request is answered from the log."""
        return self.is_stream or not self.is_background

    def with_items(self, found: Mapping[str, dict[str, Any]]) -> ResponseRequest:
        """Return the request with the whole input.

        Args:
            found: the items that the input names, by id.

        Raises:
            RequestError: 422, an item is wrong, or no item says anything.
        """
        ignored = list(self.ignored)
        messages = messages_of(resolve(list(self.items), found), ignored)
        if not messages and not self.previous:
            raise invalid_request("input: there is nothing in it that a model can read")
        own = self.request
        request = msgspec.structs.replace(own, messages=[*own.messages, *messages])
        return replace(self, request=request, references=(), items=(), ignored=tuple(ignored))


def parse_response(
    body: dict[str, Any], *, grace_s: float, may_be_empty: bool = False
) -> ResponseRequest:
    """Read the members of a new response.

    Args:
        grace_s: how long a generation in the foreground goes on without readers, where the body
            does not say so.
        may_be_empty: the request may have no input.

    Raises:
        RequestError: 422, a member is missing, wrong or not supported.
    """
    for name in _REFUSED:
        if name in body:
            raise invalid_request(f"{name} is not supported here")
    if body.get("n", 1) != 1:
        raise invalid_request("n: one generation is one answer")
    is_stream, is_background = (_read_flag(body, name) for name in _FLAGS)
    is_stored = _read_flag(body, "store", default=True)
    if is_background and not is_stored:
        raise invalid_request("background needs store: true")
    if is_background:
        body.pop("on_disconnect", None)  # a disconnect never cancels a background response
    previous = _read_string(body, "previous_response_id")
    ignored: list[str] = []
    items = body.get("input", [])
    references = references_of(items)
    if len(references) > REFERENCES_MAX:
        raise invalid_request(f"input: at most {REFERENCES_MAX} items of type item_reference")
    messages = [] if references else messages_of(items, ignored)
    if not (messages or references or previous or may_be_empty):
        raise invalid_request("input is missing")
    dialect: dict[str, Any] = {BACKGROUND: True} if is_background else {}
    if not is_stored:
        dialect[UNSTORED] = True
    if previous:
        dialect[PREVIOUS] = previous
    instructions = _read_string(body, "instructions")
    if instructions:
        dialect[INSTRUCTED] = True
        messages = [{"role": "system", "content": instructions}, *messages]
    params = upstream_priority(body) | _backend_params(body) | _tool_params(body, dialect, ignored)
    if summary := _summary(_read_object(body, "reasoning")):
        dialect[SUMMARY] = summary
    request = Request(messages=messages, params=params, dialect=dialect)
    return ResponseRequest(
        request,
        None if is_background else grace_s,
        is_stream=is_stream,
        is_background=is_background,
        previous=previous,
        references=references,
        items=tuple(items) if references else (),
        ignored=tuple(ignored),
        turn=turn_of(body),
    )


def _backend_params(body: dict[str, Any]) -> dict[str, Any]:
    params = {name: value for name, value in body.items() if name not in _NOT_PASSED_ON}
    if "max_output_tokens" in body:
        params["max_tokens"] = _read_count(body, "max_output_tokens")
    text, reasoning = _read_object(body, "text"), _read_object(body, "reasoning")
    form = text.get("format")
    if form is not None:
        params |= _response_format(form)
    if text.get("verbosity") is not None:
        params["verbosity"] = text["verbosity"]
    if not isinstance(reasoning.get("effort"), str | None):
        raise invalid_request("reasoning.effort must be a string")
    if reasoning.get("effort") is not None:
        params["reasoning_effort"] = reasoning["effort"]
    if params.get("top_logprobs"):
        params["logprobs"] = True
    return params


def _tool_params(
    body: dict[str, Any], dialect: dict[str, Any], ignored: list[str]
) -> dict[str, Any]:
    choice = body.get("tool_choice")
    given = placed_tools(body, ignored)
    tools, chat_choice = choose_tools(chat_tools(given, ignored), choice, ignored)
    is_changed = isinstance(choice, dict) and (
        choice["type"] == "allowed_tools" or (choice["type"] == CUSTOM_TOOL and chat_choice)
    )
    if is_changed:
        dialect[TOOL_CHOICE] = choice
    functions = names_of(given, "function")
    custom = [name for name in names_of(given, CUSTOM_TOOL) if name not in functions]
    if custom:
        dialect[CUSTOM_TOOLS] = custom
    if origins := {placed.tool["name"]: placed.origin for placed in given if placed.origin}:
        dialect[NAMESPACED] = origins
    chosen = {} if chat_choice is None else {"tool_choice": chat_choice}
    return {"tools": tools, **chosen} if tools else chosen


def _summary(reasoning: dict[str, Any]) -> str:
    """Return which summary of the reasoning is asked for; empty: none.

    Raises:
        RequestError: 422, it is no string.
    """
    for name in ("summary", "generate_summary"):  # the second is OpenAI's older name
        value = reasoning.get(name)
        if not isinstance(value, str | None):
            raise invalid_request(f"reasoning.{name} must be a string")
        if value and value != "none":
            return value
    return ""


def _response_format(form: Any) -> dict[str, Any]:
    kind = form.get("type") if isinstance(form, dict) else None
    match kind:
        case "text":
            return {}
        case "json_object":
            return {"response_format": {"type": "json_object"}}
        case "json_schema":
            schema = {name: value for name, value in form.items() if name != "type"}
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
    raise invalid_request("text.format.type must be text, json_object or json_schema")


def _read_flag(body: dict[str, Any], name: str, *, default: bool = False) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise invalid_request(f"{name} must be true or false")
    return value


def _read_string(body: dict[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise invalid_request(f"{name} must be a string")
    return value


def _read_count(body: dict[str, Any], name: str) -> int:
    value = body[name]
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # in JSON Schema 16.0 is an integer
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= COUNT_MAX:
        raise invalid_request(f"{name} must be a whole number from 1 to {COUNT_MAX:,}")
    return value


def _read_object(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name, {})
    if not isinstance(value, dict):
        raise invalid_request(f"{name} must be an object")
    return value
