"""Chats as clients send them, for the tests of the vendors' requests."""

from __future__ import annotations

from typing import Any

PIXEL = "iVBORw0KGgo="
PDF = "JVBERi0xLjQ="


def user(*parts: Any, **members: Any) -> dict[str, Any]:
    """Return a message of the user; one text is a string."""
    content = parts[0] if len(parts) == 1 and isinstance(parts[0], str) else list(parts)
    return {"role": "user", "content": content, **members}


def text(words: str, **members: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **members}


def picture(url: str = f"data:image/png;base64,{PIXEL}") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def file(data: str, name: str = "a.pdf") -> dict[str, Any]:
    return {"type": "file", "file": {"filename": name, "file_data": data}}


def call(call_id: str, name: str, arguments: str = "{}", **members: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function, **members}


def answer(content: Any = None, *calls: dict[str, Any], **members: Any) -> dict[str, Any]:
    tool_calls = {"tool_calls": list(calls)} if calls else {}
    return {"role": "assistant", "content": content, **tool_calls, **members}


def result(call_id: str, content: Any, **members: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content, **members}


TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "a", "strict": True, "schema": {"type": "object", "properties": {}}},
}
# What many clients of OpenAI's API always send.
HABITS: dict[str, Any] = {
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": {},
    "store": False,
    "stream_options": {"include_usage": True},
    "n": 1,
}
