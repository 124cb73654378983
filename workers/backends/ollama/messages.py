"""Translates chat messages into those of Ollama. Pure.

    content as parts          text, and `images`: the base64 of `data:` URLs
    tool_calls[].arguments    an object instead of a JSON text
    role tool                 `tool_name`, found by the id of the call
    role developer            role system
    reasoning                 `thinking`

Source: ollama/api/types.go, `Message`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from workers.backends.reading.parts import refused, text_of


def translate(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages in Ollama's form.

    Raises:
        BackendError: `upstream_refused`: a part has no form in Ollama's interface.
    """
    names: dict[str, str] = {}  # of the tools, by the id of the call
    return [_translate(message, f"messages[{at}]", names) for at, message in enumerate(messages)]


def _translate(message: Mapping[str, Any], where: str, names: dict[str, str]) -> dict[str, Any]:
    role = str(message.get("role", "user"))
    content, pictures = text_of(message.get("content"), where, _picture)
    made: dict[str, Any] = {
        "role": "system" if role == "developer" else role,
        "content": content,
    }
    if pictures:
        made["images"] = pictures
    thought = message.get("reasoning") or message.get("reasoning_content")
    if isinstance(thought, str) and thought:
        made["thinking"] = thought
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        made["tool_calls"] = [
            _call(call, f"{where}.tool_calls[{at}]", names) for at, call in enumerate(calls)
        ]
    if role == "tool":
        call_id = str(message.get("tool_call_id", ""))
        made |= {"tool_call_id": call_id} if call_id else {}
        if name := message.get("name") or names.get(call_id):
            made["tool_name"] = name
    return made


def _call(call: Any, where: str, names: dict[str, str]) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise refused(f"{where}: has no function with a name")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments)
        except ValueError:
            arguments = None
    if not isinstance(arguments, dict):
        raise refused(f"{where}.function.arguments: must be a JSON object, for a model of Ollama")
    made: dict[str, Any] = {"function": {"name": function["name"], "arguments": arguments}}
    if isinstance(call_id := call.get("id"), str) and call_id:
        names[call_id] = function["name"]
        made["id"] = call_id
    return made


def _picture(url: str, where: str) -> str:
    head, separator, data = url.partition(";base64,")
    if not head.startswith("data:") or not separator:
        raise refused(f"{where}: a model of Ollama takes pictures as data: URLs in base64 only")
    return data
