"""Builds the body of a request to Anthropic's Messages. Pure.

Members of the vendor (`thinking`, `top_k`, `container`, `mcp_servers`, …) pass unchanged. Members
that only chat completions have are translated, or left out, because the server refuses unknown
members. At the end the rules of the model change the body (shared/config/model_request.py).
Source: platform.claude.com, "Create a Message".
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.config.models import Model
from shared.log.request import Request
from workers.backends.anthropic.messages import CACHE, continue_turn, lacks_thoughts, translate
from workers.backends.vendor.chat import (
    CHAT_ONLY,
    choice_of,
    functions_of,
    schema_of,
    stops_of,
    tokens_max,
)

# The member is needed. Each model that the vendor still serves can give so many tokens.
MAX_TOKENS = 32_000
TEMPERATURE_MAX = 1.0  # OpenAI's goes up to 2
_TIERS = ("auto", "standard_only")  # OpenAI's other words mean nothing here
_MODES = {"auto": "auto", "none": "none", "required": "any", "any": "any"}
_TOOL_MEMBERS = ("name", "description", "strict", CACHE)


def encode_body(model: Model, request: Request, prefix: str, form: str = "") -> bytes:
    """Return the JSON to send.

    Args:
        prefix: the answer so far, which the model shall continue; empty: no partial answer.
        form: ignored: the vendor knows one form, a last turn of the assistant.

    Raises:
        BackendError: a message has a form that the server cannot be given.
    """
    params = request.params
    system, turns = translate(request.messages)
    if prefix:
        continue_turn(turns, prefix)
    body = {name: value for name, value in params.items() if name not in CHAT_ONLY}
    body |= {"model": model.upstream_name, "messages": turns, "stream": True}
    body["max_tokens"] = _max_tokens(params)
    if system:
        body["system"] = [*system, *_system_of(body.get("system"))]
    if stops := [text for text in stops_of(params) if text.strip()]:
        body["stop_sequences"] = stops
    if isinstance(user := params.get("user"), str):
        body.setdefault("metadata", {"user_id": user})
    if params.get("service_tier") in _TIERS:
        body["service_tier"] = params["service_tier"]
    temperature = body.get("temperature")
    if isinstance(temperature, int | float) and temperature > TEMPERATURE_MAX:
        body["temperature"] = TEMPERATURE_MAX
    body |= _tools(params)
    _set_output(body, params)
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "enabled" and lacks_thoughts(turns):
        del body["thinking"]
    return msgspec.json.encode(model.rules.apply(body))


def _max_tokens(params: dict[str, Any]) -> int:
    given = tokens_max(params)
    if given is not None:
        return given
    thinking = params.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    # The budget of the thoughts is a part of the limit.
    return MAX_TOKENS + (budget if type(budget) is int and budget >= MAX_TOKENS else 0)


def _system_of(given: Any) -> list[dict[str, Any]]:
    if isinstance(given, str):
        return [{"type": "text", "text": given}] if given.strip() else []
    return given if isinstance(given, list) else []


def _tools(params: dict[str, Any]) -> dict[str, Any]:
    functions, others = functions_of(params)
    tools = [*map(_tool, functions), *others]
    if not tools:
        return {}
    choice = _choice(params)
    return {"tools": tools, "tool_choice": choice} if choice else {"tools": tools}


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    tool = {name: function[name] for name in _TOOL_MEMBERS if function.get(name) is not None}
    schema = function.get("parameters")
    if not isinstance(schema, dict):
        schema = {}
    return tool | {"input_schema": {"type": "object", **schema}}


def _choice(params: dict[str, Any]) -> dict[str, Any] | None:
    given = params.get("tool_choice")
    if isinstance(given, dict) and given.get("type") in ("auto", "any", "none", "tool"):
        return given
    choice = choice_of(params)
    found: dict[str, Any] | None = None
    if choice in _MODES:
        found = {"type": _MODES[choice]}
    elif choice is not None and choice.startswith("name:"):
        found = {"type": "tool", "name": choice.removeprefix("name:")}
    if params.get("parallel_tool_calls") is False and (found or {}).get("type") != "none":
        found = {**(found or {"type": "auto"}), "disable_parallel_tool_use": True}
    return found


def _set_output(body: dict[str, Any], params: dict[str, Any]) -> None:
    """Translate the effort of the reasoning, and the schema of the answer."""
    effort = params.get("reasoning_effort")
    output: dict[str, Any] = {}
    if effort == "none":
        body.setdefault("thinking", {"type": "disabled"})
    elif isinstance(effort, str):
        output["effort"] = "low" if effort == "minimal" else effort
        # Newer models omit the text of their thoughts otherwise.
        body.setdefault("thinking", {"type": "adaptive", "display": "summarized"})
    if (schema := schema_of(params)) is not None:
        output["format"] = {"type": "json_schema", "schema": schema}
    given = body.get("output_config")
    if output:
        body["output_config"] = output | (given if isinstance(given, dict) else {})
