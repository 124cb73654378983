"""Puts thoughts for later turns into `encrypted_content` of reasoning items, and reads them. Pure.

A backend gives such thoughts in `reasoning_details` (docs/protocol.md, "Thoughts that go back").
Clients of Responses keep no members that they do not know, but they send a reasoning item back with
its `encrypted_content`. So `encrypted_content` holds the details. If a client sends the
`encrypted_content` of another server, the details are left out.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from shared.log.extra import REASONING_DETAILS

_OURS = "tailrace-1:"  # in front of the base64 of a JSON array


def encrypted_content(details: list[Any]) -> str:
    """Return the details as the text of an item."""
    return _OURS + base64.b64encode(msgspec.json.encode(details)).decode()


def details_in(item: Mapping[str, Any]) -> list[Any]:
    """Return the details in an item that a client sends; empty: Tailrace made no details in it."""
    content = item.get("encrypted_content")
    if not isinstance(content, str) or not content.startswith(_OURS):
        return []
    try:
        found = msgspec.json.decode(base64.b64decode(content[len(_OURS) :], validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def keep_in(messages: list[dict[str, Any]], details: list[Any]) -> None:
    """Add the details to the assistant's turn at the end of the messages, or begin one."""
    if not details:
        return
    if not messages or messages[-1].get("role") != "assistant":
        messages.append({"role": "assistant", "content": None})
    last = messages[-1]
    last[REASONING_DETAILS] = [*last.get(REASONING_DETAILS, ()), *details]


def is_only_kept(message: Mapping[str, Any]) -> bool:
    """Whether a message has only details, so that the text after them belongs to it."""
    return (
        message.get("role") == "assistant"
        and message.get("content") is None
        and REASONING_DETAILS in message
        and "tool_calls" not in message
    )
