"""The messages of an AG-UI thread as chat messages. Pure.

A model server gets text, multimodal content, tool calls with their results, and the thoughts that
its own kind of server has encrypted. Activities and readable thoughts are only for display.
Messages of the assistant that follow each other become one, because in AG-UI the text and the tool
calls of one turn have a message each, and chat templates refuse two turns of one author.
Source: docs/dialects/ag-ui.md, "Messages".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from api.dialects.ag_ui.content import read_content
from api.intake.body import invalid_request
from shared.log.extra import REASONING_DETAILS

_TEXT_ROLES = ("system", "developer")
ROLES = (*_TEXT_ROLES, "user", "assistant", "tool", "reasoning", "activity")


def read_messages(sent: Any) -> list[dict[str, Any]]:
    """Return the chat messages of `messages`; may be empty.

    Raises:
        RequestError: 422, the message names the member.
    """
    if not isinstance(sent, list):
        raise invalid_request("messages must be an array")
    for index, message in enumerate(sent):
        _check(f"messages[{index}]", message)
    answered = {message["toolCallId"] for message in sent if message["role"] == "tool"}
    thread = _Thread(answered)
    for index, message in enumerate(sent):
        thread.add(f"messages[{index}]", message)
    return thread.messages


def _check(where: str, message: Any) -> None:
    if not isinstance(message, dict):
        raise invalid_request(f"{where} must be an object")
    role = message.get("role")
    if role not in ROLES:
        raise invalid_request(f"{where}.role must be one of {', '.join(ROLES)}")
    for name in ("id", "name", "encryptedValue", "error"):
        if not isinstance(message.get(name), str | None):
            raise invalid_request(f"{where}.{name} must be a string")
    if role == "tool" and not isinstance(message.get("toolCallId"), str):
        raise invalid_request(f"{where}.toolCallId must be a string")
    content = message.get("content")
    if role in _TEXT_ROLES and not isinstance(content, str):
        raise invalid_request(f"{where}.content must be a string")
    if role in ("user", "tool") and not isinstance(content, str | list):
        raise invalid_request(f"{where}.content must be a string or an array of parts")
    if role == "assistant" and not isinstance(content, str | list | None):
        raise invalid_request(f"{where}.content must be a string")


class _Thread:
    """The chat messages so far.

    Args:
        answered: the ids of the calls that have a result. The others are left out: model servers
            refuse a history in which a call has none.
    """

    def __init__(self, answered: set[str]) -> None:
        self.messages: list[dict[str, Any]] = []
        self._answered = answered
        self._thoughts: list[Any] = []  # for the next message of the assistant

    def add(self, where: str, message: Mapping[str, Any]) -> None:
        role = message["role"]
        if role in ("reasoning", "assistant"):
            self._thoughts += _thoughts_in(message.get("encryptedValue"))
        if role == "assistant":
            self._add_turn(where, message)
        elif role == "tool":
            content = read_content(f"{where}.content", message["content"]) or message.get("error")
            result = {"tool_call_id": message["toolCallId"], "content": content or ""}
            self.messages.append({"role": "tool", **result})
        elif role in (*_TEXT_ROLES, "user"):
            content = read_content(f"{where}.content", message["content"])
            name = {"name": message["name"]} if message.get("name") else {}
            if content:
                self.messages.append({"role": role, "content": content, **name})

    def _add_turn(self, where: str, message: Mapping[str, Any]) -> None:
        calls = _read_calls(f"{where}.toolCalls", message.get("toolCalls"))
        calls = [call for call in calls if call["id"] in self._answered]
        text = read_content(f"{where}.content", message.get("content") or "")
        if not isinstance(text, str):
            raise invalid_request(f"{where}.content of an assistant must be text")
        if not (text or calls):
            return
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": None})
        turn = self.messages[-1]
        turn["content"] = ((turn["content"] or "") + text) or None
        if calls:
            turn["tool_calls"] = [*turn.get("tool_calls", ()), *calls]
        if self._thoughts:
            turn[REASONING_DETAILS] = [*turn.get(REASONING_DETAILS, ()), *self._thoughts]
            self._thoughts = []


def _read_calls(where: str, calls: Any) -> list[dict[str, Any]]:
    if calls is None:
        return []
    if not isinstance(calls, list):
        raise invalid_request(f"{where} must be an array")
    for index, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(call.get("id"), str):
            raise invalid_request(f"{where}[{index}] must have an id and a function")
        if not all(isinstance(function.get(name), str) for name in ("name", "arguments")):
            raise invalid_request(f"{where}[{index}].function: name and arguments are strings")
    return [
        {
            "id": call["id"],
            "type": "function",
            "function": {name: call["function"][name] for name in ("name", "arguments")},
        }
        for call in calls
    ]


def _thoughts_in(encrypted: str | None) -> list[Any]:
    """Return the thoughts that a run of this server gave; none in a value of another server."""
    if not encrypted or not encrypted.startswith("["):
        return []
    try:
        thoughts = msgspec.json.decode(encrypted)
    except (msgspec.MsgspecError, RecursionError):
        return []
    return [thought for thought in thoughts if isinstance(thought, dict)]
