"""The body of POST /v1/responses, read into what the system knows. Pure.

Members that OpenAI has and that mean nothing to a backend behind chat completions are left out;
members that are neither OpenAI's nor ours go to the backend as they are. What would need something
that is not here (conversations, prompt templates, OpenAI's own tools) is refused.
Source: docs/protocol.md, "Responses".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from api.dialects.responses.input import messages_of
from api.dialects.responses.response_object import BACKGROUND, INSTRUCTED, PREVIOUS, UNSTORED
from api.intake.body import wrong
from api.intake.dialect_request import DialectRequest
from shared.log.request import Request

# Ours, OpenAI's without a meaning for a backend, and what a chat body would say in other words.
_NOT_PASSED_ON = frozenset(
    (
        "model", "input", "instructions", "stream", "stream_options", "background", "store",
        "previous_response_id", "tools", "tool_choice", "text", "reasoning", "max_output_tokens",
        "include", "truncation", "max_tool_calls", "service_tier", "context_management",
        "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "safety_identifier",
        "moderation",
        "session", "metadata", "priority", "on_disconnect",
        "messages", "n", "max_tokens", "max_completion_tokens", "response_format",
        "reasoning_effort",
    )
)  # fmt: skip
_REFUSED = ("conversation", "prompt")
_FLAGS = ("stream", "background")
_TOOL_MEMBERS = ("name", "description", "parameters", "strict")


@dataclass(frozen=True)
class ResponseRequest(DialectRequest):
    """What a body asks for.

    Attributes:
        is_stream: of this request alone, not of the generation.
        previous: the response that it goes on from; empty: none.
    """

    is_stream: bool = False
    is_background: bool = False
    previous: str = ""

    @property
    def is_read(self) -> bool:
        return self.is_stream or not self.is_background


def parse_response(body: dict[str, Any], *, grace_s: float) -> ResponseRequest:
    """Read the members of a new response.

    Raises:
        RequestError: 422.
    """
    for name in _REFUSED:
        if name in body:
            raise wrong(f"{name} is not supported here")
    is_stream, is_background = (_flag(body, name) for name in _FLAGS)
    is_stored = _flag(body, "store", default=True)
    if is_background and not is_stored:
        raise wrong("background needs store: true")
    if is_background:
        body.pop("on_disconnect", None)  # never cancelled by a disconnect, whatever is said
    previous = _string(body, "previous_response_id")
    messages = messages_of(body.get("input", []))
    if not messages and not previous:
        raise wrong("input is missing")
    dialect: dict[str, Any] = {BACKGROUND: True} if is_background else {}
    if not is_stored:
        dialect[UNSTORED] = True
    if previous:
        dialect[PREVIOUS] = previous
    instructions = _string(body, "instructions")
    if instructions:
        dialect[INSTRUCTED] = True
        messages = [{"role": "system", "content": instructions}, *messages]
    request = Request(messages=messages, params=_params(body), dialect=dialect)
    return ResponseRequest(
        request,
        None if is_background else grace_s,
        is_stream=is_stream,
        is_background=is_background,
        previous=previous,
    )


def _params(body: dict[str, Any]) -> dict[str, Any]:
    params = {name: value for name, value in body.items() if name not in _NOT_PASSED_ON}
    if "max_output_tokens" in body:
        params["max_tokens"] = _count(body, "max_output_tokens")
    tools = _tools(body.get("tools", []))
    if tools:  # a choice without any is refused by backends, and some SDKs always send one
        params["tools"] = tools
        if "tool_choice" in body:
            params["tool_choice"] = _tool_choice(body["tool_choice"])
    text, reasoning = _object(body, "text"), _object(body, "reasoning")
    form = text.get("format")
    if form is not None:
        params |= _response_format(form)
    if text.get("verbosity") is not None:
        params["verbosity"] = text["verbosity"]
    if reasoning.get("effort") is not None:
        params["reasoning_effort"] = reasoning["effort"]
    if params.get("top_logprobs"):
        params["logprobs"] = True
    return params


def _tools(tools: Any) -> list[dict[str, Any]]:
    if not isinstance(tools, list):
        raise wrong("tools must be an array")
    chat = []
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise wrong(f"{where}: only tools of type function are supported here")
        if not isinstance(tool.get("name"), str):
            raise wrong(f"{where}.name must be a string")
        function = {name: tool[name] for name in _TOOL_MEMBERS if tool.get(name) is not None}
        chat.append({"type": "function", "function": function})
    return chat


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, str):
        return choice
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    raise wrong("tool_choice must be a string or a function")


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
    raise wrong("text.format.type must be text, json_object or json_schema")


def _flag(body: dict[str, Any], name: str, *, default: bool = False) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise wrong(f"{name} must be true or false")
    return value


def _string(body: dict[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise wrong(f"{name} must be a string")
    return value


def _count(body: dict[str, Any], name: str) -> int:
    value = body[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise wrong(f"{name} must be a whole number from 1")
    return value


def _object(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name, {})
    if not isinstance(value, dict):
        raise wrong(f"{name} must be an object")
    return value
