"""The parts of a message in Responses as parts of a chat message, and back. Pure.

Invariant: the parts keep their order. Source: docs/protocol.md, "Responses".
"""

from __future__ import annotations

from typing import Any

from api.intake.body import invalid_request

_TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
# By type of a part whose content an upload can hold: the member for the content itself.
_INSTEAD_OF_IDS = {"input_image": "image_url", "input_file": "file_data"}
_WEB_SCHEMES = ("http://", "https://")


def read_parts(where: str, parts: list[Any]) -> list[dict[str, Any]]:
    """Return the content of an item as parts of a chat message.

    Raises:
        RequestError: 422, a part is wrong or not supported.
    """
    return [_read_part(f"{where}[{index}]", part) for index, part in enumerate(parts)]


def parts_back(content: Any, text_kind: str) -> list[Any]:
    """Return the content of a chat message as parts of an item.

    Args:
        text_kind: the type of a text: `input_text` or `output_text`.
    """
    if isinstance(content, str):
        return [_text_back(content, text_kind)]
    return [_part_back(part, text_kind) for part in content or []]


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
        return _file_part(where, part, "file_data")
    if kind == "input_file" and part.get("file_url") is not None:
        # Chat completions have no member for the URL of a file. The servers that fetch files
        # (OpenRouter is one) take the URL as `file_data`.
        return _file_part(where, part, "file_url")
    if kind == "input_audio" and isinstance(part.get("input_audio"), dict):
        return {"type": "input_audio", "input_audio": part["input_audio"]}
    if isinstance(kind, str) and kind in _INSTEAD_OF_IDS and part.get("file_id") is not None:
        hint = f"send the content as a data URL in {_INSTEAD_OF_IDS[kind]}"
        raise invalid_request(f"{where}.file_id: the model cannot get an uploaded file; {hint}")
    raise invalid_request(f"{where}: a part {str(kind)[:80]!r} like this is not supported here")


def _file_part(where: str, part: dict[str, Any], source: str) -> dict[str, Any]:
    named = part.get("filename") is not None
    name = {"filename": _read_text(where, part, "filename")} if named else {}
    return {"type": "file", "file": {**name, "file_data": _read_text(where, part, source)}}


def _read_text(where: str, part: dict[str, Any], name: str) -> str:
    value = part.get(name)
    if not isinstance(value, str):
        raise invalid_request(f"{where}.{name} must be a string")
    return value


def _part_back(part: dict[str, Any], text_kind: str) -> dict[str, Any]:
    match part.get("type"):
        case "text":
            return _text_back(part.get("text", ""), text_kind)
        case "image_url" if isinstance(part.get("image_url"), dict):
            image = part["image_url"]
            url, detail = image.get("url", ""), image.get("detail", "auto")
            return {"type": "input_image", "image_url": url, "detail": detail, "file_id": None}
        case "file" if isinstance(part.get("file"), dict):
            return {"type": "input_file", **_file_back(part["file"])}
    return part


def _file_back(file: dict[str, Any]) -> dict[str, Any]:
    data = file.get("file_data")
    if not isinstance(data, str) or not data.lower().startswith(_WEB_SCHEMES):
        return file
    others = {name: value for name, value in file.items() if name != "file_data"}
    return {**others, "file_url": data}


def _text_back(text: str, kind: str) -> dict[str, Any]:
    part: dict[str, Any] = {"type": kind, "text": text}
    return {**part, "annotations": [], "logprobs": []} if kind == "output_text" else part
