"""The input items of Responses as chat messages, which every backend takes, and back.

Pure. An item that no backend can be given is refused by name and not left out: an answer that
ignores half of the question is worse than an error. Only the reasoning of earlier turns is left
out, because chat completions have no place for it. Source: docs/protocol.md, "Responses".
"""

from __future__ import annotations

from typing import Any

from api.intake.body import check_messages, invalid_request

_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = ("input_text", "output_text", "text")


def messages_of(items: Any) -> list[dict[str, Any]]:
    """Return `input` as chat messages; a string is a message of the user.

    Raises:
        RequestError: 422, an item is wrong or not supported.
    """
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    if not isinstance(items, list):
        raise invalid_request("input must be a string or an array of items")
    messages: list[dict[str, Any]] = []
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise invalid_request(f"input[{index}] must be an object")
        _add_item(messages, f"input[{index}]", item)
    return check_messages(messages) if messages else []


def _add_item(messages: list[dict[str, Any]], where: str, item: dict[str, Any]) -> None:
    match item.get("type", "message"):
        case "message":
            messages.append(_read_message(where, item))
        case "function_call":
            call = _tool_call(where, item)
            if messages and messages[-1]["role"] == "assistant":
                # In chat completions the text and the calls of one turn are one message.
                messages[-1].setdefault("tool_calls", []).append(call)
            else:
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        case "function_call_output":
            messages.append(_tool_output(where, item))
        case "reasoning":
            pass
        case other:
            raise invalid_request(f"{where}.type: {str(other)[:80]!r} is not supported here")


def _read_message(where: str, item: dict[str, Any]) -> dict[str, Any]:
    role, content = item.get("role"), item.get("content")
    if role not in _ROLES:
        raise invalid_request(f"{where}.role must be one of {', '.join(_ROLES)}")
    if isinstance(content, list):
        content = _read_content(f"{where}.content", content)
        if role == "assistant" and all(part["type"] == "text" for part in content):
            content = "".join(
                part["text"] for part in content
            )  # the chat templates of some models take no parts
        elif len(content) == 1 and content[0]["type"] == "text":
            content = content[0]["text"]
    elif not isinstance(content, str):
        raise invalid_request(f"{where}.content must be a string or an array of parts")
    return {"role": role, "content": content}


def _read_content(where: str, parts: list[Any]) -> list[dict[str, Any]]:
    return [_read_part(f"{where}[{index}]", part) for index, part in enumerate(parts)]


def _read_part(where: str, part: Any) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise invalid_request(f"{where} must be an object")
    kind = part.get("type")
    if kind in _TEXTS:
        return {"type": "text", "text": _read_text(where, part, "text")}
    if kind == "refusal":
        return {"type": "text", "text": _read_text(where, part, "refusal")}
    if kind == "input_image" and part.get("image_url") is not None:
        url = {"url": _read_text(where, part, "image_url")}
        detail = part.get("detail")
        return {"type": "image_url", "image_url": url | ({"detail": detail} if detail else {})}
    if kind == "input_file" and part.get("file_data") is not None:
        names = ("filename", "file_data")
        file = {name: _read_text(where, part, name) for name in names if part.get(name) is not None}
        return {"type": "file", "file": file}
    if kind == "input_audio" and isinstance(part.get("input_audio"), dict):
        return {"type": "input_audio", "input_audio": part["input_audio"]}
    raise invalid_request(f"{where}: a part {str(kind)[:80]!r} like this is not supported here")


def _tool_call(where: str, item: dict[str, Any]) -> dict[str, Any]:
    function = {name: _read_text(where, item, name) for name in ("name", "arguments")}
    return {"id": _read_text(where, item, "call_id"), "type": "function", "function": function}


def _tool_output(where: str, item: dict[str, Any]) -> dict[str, Any]:
    output = item.get("output")
    if isinstance(output, list):
        parts = _read_content(f"{where}.output", output)
        is_text = all(part["type"] == "text" for part in parts)
        output = "".join(part["text"] for part in parts) if is_text else parts
    elif not isinstance(output, str):
        raise invalid_request(f"{where}.output must be a string or an array of parts")
    return {"role": "tool", "tool_call_id": _read_text(where, item, "call_id"), "content": output}


def _read_text(where: str, item: dict[str, Any], name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise invalid_request(f"{where}.{name} must be a string")
    return value


# From messages back to items, for a client that lists the input of a response.


def items_of(messages: list[dict[str, Any]], id_part: str) -> list[dict[str, Any]]:
    """Return chat messages as items, whose ids depend only on `id_part` and on their order."""
    items: list[dict[str, Any]] = []

    def add(kind: str, prefix: str, **members: Any) -> None:
        item_id = f"{prefix}_{id_part}_in{len(items)}"
        items.append({"id": item_id, "type": kind, "status": "completed", **members})

    for message in messages:
        content, role = message.get("content"), message.get("role", "user")
        if role == "tool":
            call_id, output = message.get("tool_call_id", ""), _parts_back(content, "input_text")
            if isinstance(content, str):
                add("function_call_output", "fco", call_id=call_id, output=content)
            else:
                add("function_call_output", "fco", call_id=call_id, output=output)
            continue
        if content is not None:
            kind = "output_text" if role == "assistant" else "input_text"
            add("message", "msg", role=role, content=_parts_back(content, kind))
        for call in message.get("tool_calls") or []:
            function = call.get("function") or {}
            members = {name: function.get(name, "") for name in ("name", "arguments")}
            add("function_call", "fc", call_id=call.get("id", ""), **members)
    return items


def _parts_back(content: Any, text_kind: str) -> list[Any]:
    if isinstance(content, str):
        return [_text_back(content, text_kind)]
    return [_part_back(part, text_kind) for part in content or []]


def _part_back(part: dict[str, Any], text_kind: str) -> dict[str, Any]:
    match part.get("type"):
        case "text":
            return _text_back(part.get("text", ""), text_kind)
        case "image_url" if isinstance(part.get("image_url"), dict):
            image = part["image_url"]
            url, detail = image.get("url", ""), image.get("detail", "auto")
            return {"type": "input_image", "image_url": url, "detail": detail, "file_id": None}
        case "file" if isinstance(part.get("file"), dict):
            return {"type": "input_file", **part["file"]}
    return part


def _text_back(text: str, kind: str) -> dict[str, Any]:
    part: dict[str, Any] = {"type": kind, "text": text}
    return {**part, "annotations": [], "logprobs": []} if kind == "output_text" else part
