"""The tools of Responses as tools of chat completions. Pure.

Backends of chat completions run functions only. A custom tool becomes a function
(api/dialects/responses/custom_tools.py). Clients also send tools that OpenAI runs itself,
and types that are newer than this version. Such a tool is left out, and the answer names its place:
the model can still answer with the other tools, and a refusal would stop the whole client.
Source: docs/protocol.md, "Responses".
"""

from __future__ import annotations

from typing import Any

from api.dialects.responses.custom_tools import CUSTOM_TOOL, as_function
from api.dialects.responses.tool_groups import PlacedTool, chat_name
from api.intake.body import invalid_request

_TOOL_MEMBERS = ("name", "description", "parameters", "strict")
_MODES = ("auto", "required")
_NAMED = ("function", CUSTOM_TOOL)  # tools that a choice names


def chat_tools(tools: list[PlacedTool], ignored: list[str]) -> list[dict[str, Any]]:
    """Return the functions and custom tools among `tools` as functions of chat completions.

    Args:
        ignored: gets the place of each tool that was left out, for example `tools[4]`.

    Raises:
        RequestError: 422, a function or a custom tool without a name, or a part of a wrong type.
    """
    found = []
    functions = names_of(tools, "function")
    for placed in tools:
        where, tool = placed.where, placed.tool
        if tool["type"] == CUSTOM_TOOL and tool.get("name") not in functions:
            found.append(as_function(where, tool))
            continue
        if tool["type"] != "function":
            ignored.append(where)
            continue
        if not isinstance(tool.get("name"), str):
            raise invalid_request(f"{where}.name must be a string")
        if not isinstance(tool.get("parameters"), dict | None):
            raise invalid_request(f"{where}.parameters must be an object")
        function = {name: tool[name] for name in _TOOL_MEMBERS if tool.get(name) is not None}
        found.append({"type": "function", "function": function})
    return found


def names_of(tools: list[PlacedTool], kind: str) -> list[str]:
    """Return the names of the tools of a type; a tool without a name is left out."""
    found = [placed.tool.get("name") for placed in tools if placed.tool["type"] == kind]
    return [name for name in found if isinstance(name, str)]


def choose_tools(
    tools: list[dict[str, Any]], choice: Any, ignored: list[str]
) -> tuple[list[dict[str, Any]], Any]:
    """Return the tools that the backend gets, and its `tool_choice`; None: it gets none.

    Args:
        tools: the result of `chat_tools`.
        choice: `tool_choice` of the body; None: absent.
        ignored: gets `tool_choice` if the choice names a tool that was left out.

    Raises:
        RequestError: 422, a choice that is neither a string nor an object with a type.
    """
    if choice is None or isinstance(choice, str):
        # Backends refuse `tool_choice` without tools, and some SDKs always send it.
        return tools, choice if tools else None
    if not isinstance(choice, dict) or not isinstance(choice.get("type"), str):
        raise invalid_request("tool_choice must be a string or an object with a type")
    if choice["type"] == "allowed_tools":
        return _allowed(tools, choice, ignored)
    name, is_named = chat_name(choice), choice["type"] in _NAMED
    if is_named and not isinstance(name, str):
        raise invalid_request("tool_choice.name must be a string")
    is_there = choice["type"] == "function" or name in [tool["function"]["name"] for tool in tools]
    if is_named and is_there and tools:
        return tools, {"type": "function", "function": {"name": name}}
    ignored.append("tool_choice")
    return tools, None


def _allowed(
    tools: list[dict[str, Any]], choice: dict[str, Any], ignored: list[str]
) -> tuple[list[dict[str, Any]], Any]:
    """Apply `allowed_tools` here, because few servers have this form: the others are not sent."""
    mode, allowed = choice.get("mode", "auto"), choice.get("tools")
    if mode not in _MODES:
        raise invalid_request(f"tool_choice.mode must be one of {', '.join(_MODES)}")
    if not isinstance(allowed, list) or not all(isinstance(tool, dict) for tool in allowed):
        raise invalid_request("tool_choice.tools must be an array of objects")
    names = [chat_name(tool) for tool in allowed if tool.get("type") in _NAMED]
    left = [tool for tool in tools if tool["function"]["name"] in names]
    if mode == "required" and not left:
        ignored.append("tool_choice")
    return left, mode if left else None
