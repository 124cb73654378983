"""Chat messages as the input items of OpenAI's Responses. Pure.

    system, developer, user  a message with text, pictures and files
    assistant                encrypted reasoning as the model gave it, text, calls
    tool, function           the output of a call

Parts of other types are the vendor's own and pass unchanged.
Source: developers.openai.com, "Create a model response".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from workers.backends.vendor.chat import Call, calls_of, parts_of, result_id, text_of, unsendable
from workers.backends.vendor.kept_thoughts import RESPONSES, Kept, interleave, kept_of

_ROLES = ("system", "developer", "user")
_RESULTS = ("tool", "function")

Item = dict[str, Any]


def translate(messages: Sequence[Mapping[str, Any]]) -> list[Item]:
    """Return the input items.

    Raises:
        BackendError: a part has a form that the server cannot be given.
    """
    items: list[Item] = []
    customs: set[str] = set()
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        role = message.get("role")
        if role == "assistant":
            calls = calls_of(message, where)
            customs |= {call.id for call in calls if "custom" in call.call}
            items += _assistant_items(message, where, calls)
        elif role in _RESULTS:
            items.append(_output_item(message, where, customs))
        else:
            parts = parts_of(message, where)
            text = text_of(parts)
            content: Any = text if text is not None else [_part(*pair) for pair in parts]
            items.append({"role": role if role in _ROLES else "user", "content": content})
    return items


def _assistant_items(message: Mapping[str, Any], where: str, calls: list[Call]) -> list[Item]:
    parts = parts_of(message, where)
    text = text_of(parts)
    if text is None:
        # An answer holds no other parts than texts; a client may have put them together.
        text = "".join(str(part.get("text") or "") for _, part in parts)
    items: list[Item] = []
    wanted: list[dict[str, Any]] = [{"call": call} for call in calls]
    for piece in interleave(text, wanted, kept_of(message, RESPONSES)):
        if isinstance(piece, str):
            items.append({"role": "assistant", "content": piece})
        elif isinstance(piece, Kept):
            items.append(_reasoning_item(piece.detail))
        else:
            items.append(_call_item(piece["call"]))
    return items


def _reasoning_item(kept: Mapping[str, Any]) -> Item:
    item: Item = {"type": "reasoning", "summary": [], "encrypted_content": kept.get("data")}
    return item | ({"id": kept["id"]} if kept.get("id") else {})


def _call_item(call: Call) -> Item:
    if isinstance(call.call.get("custom"), dict):
        return {
            "type": "custom_tool_call",
            "call_id": call.id,
            "name": call.name,
            "input": str(call.call["custom"].get("input") or ""),
        }
    function = call.call.get("function")
    given = function.get("arguments") if isinstance(function, dict) else None
    arguments = given if isinstance(given, str) else msgspec.json.encode(call.arguments).decode()
    return {
        "type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments,
    }  # fmt: skip


def _output_item(message: Mapping[str, Any], where: str, customs: set[str]) -> Item:
    parts = parts_of(message, where)
    text = text_of(parts)
    call_id = result_id(message)
    kind = "custom_tool_call_output" if call_id in customs else "function_call_output"
    output: Any = text if text is not None else [_part(*pair) for pair in parts]
    return {"type": kind, "call_id": call_id, "output": output}


def _part(where: str, part: dict[str, Any]) -> Item:
    match part.get("type"):
        case "text":
            return {"type": "input_text", "text": part.get("text")}
        case "image_url":
            image = part.get("image_url")
            members = image if isinstance(image, dict) else {"url": image}
            if not isinstance(members.get("url"), str):
                raise unsendable(f"{where}.image_url", "must have a url")
            detail = members.get("detail") or "auto"
            return {"type": "input_image", "image_url": members["url"], "detail": detail}
        case "file":
            file = part.get("file")
            return {"type": "input_file", **_file(file if isinstance(file, dict) else {})}
        case None:
            raise unsendable(where, "must be an object with a type")
    return part


def _file(file: Mapping[str, Any]) -> Item:
    data = file.get("file_data")
    if isinstance(data, str) and data[:8].lower().startswith(("http://", "https://")):
        return {"file_url": data}
    return dict(file)
