"""Custom tools of Responses, whose input is free text, as functions with one string. Pure.

Few model servers know custom tools, and every server knows functions. So the server gets a function
with the one argument `input`, and a call of this function becomes a `custom_tool_call` again. Codex
edits files with such a tool (`apply_patch`). Other gateways translate custom tools in the same way.
Source: docs/protocol.md, "Responses".
"""

from __future__ import annotations

from typing import Any

import msgspec

from api.intake.body import invalid_request

CUSTOM_TOOL = "custom"
INPUT = "input"
PARAMETERS = {
    "type": "object",
    "properties": {INPUT: {"type": "string", "description": "The whole input, as plain text."}},
    "required": [INPUT],
    "additionalProperties": False,
}
_HINT = "Give the whole input as one string in the argument `input`, and nothing else."


def as_function(where: str, tool: dict[str, Any]) -> dict[str, Any]:
    """Return a custom tool as a function of chat completions.

    A grammar of its input becomes a part of the description, where the model reads it.

    Raises:
        RequestError: 422, no name, or a description or a format of a wrong type.
    """
    name, description, form = tool.get("name"), tool.get("description"), tool.get("format")
    if not isinstance(name, str):
        raise invalid_request(f"{where}.name must be a string")
    if not isinstance(description, str | None) or not isinstance(form, dict | None):
        raise invalid_request(f"{where}: description is a string, and format an object")
    texts = [description or "", _HINT]
    if form and isinstance(form.get("definition"), str):
        syntax = str(form.get("syntax") or "")[:32]
        texts.append(f"The input must match this {syntax} grammar:\n{form['definition']}")
    function = {"name": name, "description": "\n\n".join(filter(None, texts))}
    return {"type": "function", "function": {**function, "parameters": PARAMETERS}}


def input_of(arguments: str, *, is_complete: bool) -> str:
    """Return the input of a custom tool from the arguments of its function.

    Some models leave the JSON out, or name the argument otherwise.

    Args:
        is_complete: False: the call was broken off, and broken JSON has no input.
    """
    try:
        value = msgspec.json.decode(arguments)
    except (ValueError, RecursionError):
        is_json = arguments.lstrip()[:1] in ("{", '"')
        return "" if is_json and not is_complete else arguments
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        if isinstance(value.get(INPUT), str):
            return str(value[INPUT])
        if len(value) == 1 and isinstance(text := next(iter(value.values())), str):
            return text
    return arguments
