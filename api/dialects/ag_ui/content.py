"""Content parts of AG-UI as the parts that chat completions take. Pure.

Source: docs/dialects/ag-ui.md, "Messages".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.intake.body import invalid_request

MEDIA = ("image", "audio", "video", "document")
_SOURCES = ("data", "url", "file")
# Chat completions name these two forms only.
_AUDIO_FORMS = {
    "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav",
    "audio/mpeg": "mp3", "audio/mp3": "mp3",
}  # fmt: skip


def read_content(where: str, content: Any) -> str | list[dict[str, Any]]:
    """Return the content as a string if it is only text, else as parts; empty for nothing.

    Raises:
        RequestError: 422, a part is wrong; the message names its place.
    """
    if isinstance(content, str):
        return content
    parts = [
        part for index, item in enumerate(content) for part in _read_part(f"{where}[{index}]", item)
    ]
    # The chat templates of some models take no parts.
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _read_part(where: str, part: Any) -> list[dict[str, Any]]:
    """Return a part; none for an empty text."""
    if not isinstance(part, dict):
        raise invalid_request(f"{where} must be an object")
    kind = part.get("type")
    if kind == "text":
        if not isinstance(part.get("text"), str):
            raise invalid_request(f"{where}.text must be a string")
        return [{"type": "text", "text": part["text"]}] if part["text"] else []
    if kind == "binary":  # of clients before AG-UI 1.0
        return [_media_part(*_read_binary(where, part), part)]
    if kind not in MEDIA:
        raise invalid_request(f"{where}.type must be one of text, {', '.join(MEDIA)}")
    return [_media_part(kind, *_read_source(f"{where}.source", part.get("source")), part)]


def _read_source(where: str, source: Any) -> tuple[str, str, str]:
    """Return what names the data (`url` or `file`), its value and its media type."""
    if not isinstance(source, dict) or source.get("type") not in _SOURCES:
        raise invalid_request(f"{where}.type must be one of {', '.join(_SOURCES)}")
    kind, value, media_type = source["type"], source.get("value"), source.get("mimeType") or ""
    if not isinstance(value, str) or not value:
        raise invalid_request(f"{where}.value must be a string that is not empty")
    if not isinstance(media_type, str) or (kind == "data" and not media_type):
        raise invalid_request(f"{where}.mimeType must be a string")
    if kind == "data":
        return "url", f"data:{media_type};base64,{value}", media_type
    return kind, value, media_type


def _read_binary(where: str, part: Mapping[str, Any]) -> tuple[str, str, str, str]:
    media_type = part.get("mimeType")
    names = (("data", "data"), ("url", "url"), ("file", "id"))
    given = [(kind, part[name]) for kind, name in names if part.get(name)]
    if not given or not isinstance(media_type, str):
        raise invalid_request(f"{where} must have a mimeType, and one of data, url and id")
    kind, value = given[0]
    media = media_type.partition("/")[0]
    source = {"type": kind, "value": value, "mimeType": media_type}
    return (media if media in MEDIA else "document", *_read_source(where, source))


def _media_part(
    kind: str, named: str, value: str, media_type: str, part: Mapping[str, Any]
) -> dict[str, Any]:
    if named == "file":
        return {"type": "file", "file": {"file_id": value}}
    if kind == "image":
        return {"type": "image_url", "image_url": {"url": value}}
    if kind == "video":
        return {"type": "video_url", "video_url": {"url": value}}
    form = _AUDIO_FORMS.get(media_type) if kind == "audio" else None
    if form and value.startswith("data:"):
        audio = {"data": value.partition(",")[2], "format": form}
        return {"type": "input_audio", "input_audio": audio}
    metadata = part.get("metadata")
    name = part.get("filename") or (metadata.get("filename") if isinstance(metadata, dict) else "")
    name_member = {"filename": name} if name and isinstance(name, str) else {}
    return {"type": "file", "file": {**name_member, "file_data": value}}
