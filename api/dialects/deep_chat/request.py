"""The messages of deep-chat, read as a prompt. Pure. Source: docs/protocol.md, "deep-chat"."""

from __future__ import annotations

from typing import Any

from api.dialects.deep_chat.fold import STATUS_ROLE
from api.dialects.deep_chat.form import read_text_member
from api.intake.body import check_params, invalid_request
from api.intake.dialect_request import DialectRequest
from shared.log.request import Request

ROLES = {"user": "user", "ai": "assistant", "assistant": "assistant", "system": "system"}


def parse_deep_chat(body: dict[str, Any], *, grace_s: float) -> DialectRequest:
    """Read the members of a request of deep-chat.

    Args:
        grace_s: how long a generation without readers goes on, where the body does not say so.

    Raises:
        RequestError: 422, a member is missing or wrong.
    """
    sent = body.get("messages")
    if not isinstance(sent, list):
        raise invalid_request("messages must be an array that is not empty")
    read = [_read_message(f"messages[{index}]", message) for index, message in enumerate(sent)]
    messages = [message for message in read if message is not None]
    if not messages:
        raise invalid_request("messages must be an array that is not empty")
    # A page may give these as strings of JSON: only this form works with files and without.
    for name in ("params", "metadata"):
        if isinstance(body.get(name), str):
            body[name] = read_text_member(name, body[name])
    return DialectRequest(Request(messages=messages, params=check_params(body)), grace_s)


def _read_message(where: str, message: Any) -> dict[str, Any] | None:
    """Return a message as backends take it. None: the message is not for a model."""
    if not isinstance(message, dict):
        raise invalid_request(f"{where} must be an object")
    role = message.get("role", "user")
    if not isinstance(role, str):
        raise invalid_request(f"{where}.role must be a string")
    # A client that sends its history also sends the statuses and errors that it has shown.
    if role == STATUS_ROLE or message.get("error") is not None:
        return None
    text = message.get("text")
    if text is None:
        text = message.get("html")
    if text is not None and not isinstance(text, str):
        raise invalid_request(f"{where}.text must be a string")
    # In the component a role may be a person's name. For a model such a person is the user.
    role = ROLES.get(role, "user")
    files = _read_files(where, message.get("files")) if role == "user" else []
    if not text and not files:
        if message.get("files"):
            return None
        raise invalid_request(f"{where}.text is missing")
    if not files:
        return {"role": role, "content": text}
    parts = [{"type": "text", "text": text}] if text else []
    return {"role": role, "content": [*parts, *files]}


def _read_files(where: str, files: Any) -> list[dict[str, Any]]:
    """Return the parts of a message for its pictures, and for other files in data URLs.

    Files without `src` are left out: the component shows them, and does not send them.
    """
    if files is None:
        return []
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        raise invalid_request(f"{where}.files must be an array of objects")
    return [part for file in files if (part := _part_of(file)) is not None]


def _part_of(file: dict[str, Any]) -> dict[str, Any] | None:
    source, name = file.get("src"), file.get("name")
    if not isinstance(source, str):
        return None
    if file.get("type") == "image":
        return {"type": "image_url", "image_url": {"url": source}}
    if not source.startswith("data:"):
        return None
    named = {"filename": name} if isinstance(name, str) else {}
    return {"type": "file", "file": {**named, "file_data": source}}
