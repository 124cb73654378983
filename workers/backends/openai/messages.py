"""Gives messages without content the form that every server of chat completions takes. Pure.

Clients write "no content" as null, as an empty array or by leaving the member out. Servers differ:
OpenAI refuses an empty array, llama.cpp a missing member, and chat templates expect the result of
a tool to be a string. Messages with content are not changed: texts and pictures keep their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_RESULT_ROLES = ("tool", "function")


def with_content(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages, each with `content`: null, or empty for the result of a tool."""
    return [message if message.get("content") else _filled(message) for message in messages]


def _filled(message: dict[str, Any]) -> dict[str, Any]:
    if message.get("content") == "":
        return message
    return message | {"content": "" if message.get("role") in _RESULT_ROLES else None}
