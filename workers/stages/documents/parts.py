"""Finds the attached files of a request, and puts their text into their places. Pure.

    {"type":"file","file":{"filename":"a.pdf","file_data":"data:application/pdf;base64,…"}}
    {"type":"file","file":{"file_id":"file-…"}}                     a file of /v1/files
    {"type":"image_url","image_url":{"url":"data:image/png;base64,…"}}
    ──▶ {"type":"text","text":"[file: a.pdf, 2 pages]…"}

Parts of other kinds, URLs, and ids of other systems stay as they are.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from shared.files.store import FILE_ID
from shared.log.request import Request

PDF, TEXT, PICTURE = "pdf", "text", "picture"
NAME_CHARACTERS_MAX = 120
DATA_HEAD_MAX = 200  # of a data URL, before its comma
PICTURE_NAME = "picture"
UNNAMED = "file"


@dataclass(frozen=True, slots=True)
class Attached:
    """One file of a request.

    Attributes:
        message, part: its place.
        name: for the model, for messages and for progress.
        kind: `PDF`, `TEXT` or `PICTURE`; empty: known from the record of the file.
        data: base64; empty: see `file_id`.
    """

    message: int
    part: int
    name: str
    kind: str
    data: str = ""
    file_id: str = ""


def find_files(request: Request, *, with_pictures: bool) -> list[Attached]:
    """Return the files that the stage can read, in their order."""
    found = []
    for at, message in enumerate(request.messages):
        content = message.get("content")
        for place, part in enumerate(content if isinstance(content, list) else ()):
            attached = _attached(at, place, part, with_pictures) if isinstance(part, dict) else None
            if attached is not None:
                found.append(attached)
    return found


def kind_of(media_type: str, name: str) -> str:
    """Return the kind of a file; empty: the stage does not read it."""
    media_type = media_type.strip().lower()
    if media_type in ("", "application/octet-stream"):
        media_type = mimetypes.guess_type(name)[0] or ""
    if media_type == "application/pdf":
        return PDF
    is_text = media_type.startswith("text/") or media_type in (
        "application/json",
        "application/xml",
    )
    return TEXT if is_text else ""


def with_texts(request: Request, texts: Sequence[tuple[Attached, str]]) -> Request:
    """Return the request with the text of each file in its place."""
    messages = list(request.messages)
    for attached, text in texts:
        message = dict(messages[attached.message])
        message["content"] = [*message["content"]]
        message["content"][attached.part] = {"type": "text", "text": text}
        messages[attached.message] = message
    return msgspec.structs.replace(request, messages=messages)


def shown_text(name: str, pages: Sequence[str], *, is_paged: bool) -> str:
    """Return what the model gets of a file: its name, and marks before its pages."""
    if not is_paged:
        return f"[file: {name}]\n" + "\n".join(pages) + f"\n[end of file: {name}]"
    count = "1 page" if len(pages) == 1 else f"{len(pages)} pages"
    marked = "".join(f"[page {at}]\n{text}\n" for at, text in enumerate(pages, 1))
    return f"[file: {name}, {count}]\n{marked}[end of file: {name}]"


def plain_name(name: Any) -> str:
    """Return a file name that fits into one line and cannot end its mark."""
    text = name if isinstance(name, str) else ""
    kept = "".join(each for each in text if each.isprintable() and each not in "[]")
    return kept[:NAME_CHARACTERS_MAX].strip() or UNNAMED


def _attached(at: int, place: int, part: Mapping[str, Any], with_pictures: bool) -> Attached | None:
    if part.get("type") == "image_url" and with_pictures:
        media_type, data = _data_url(_member(part.get("image_url"), "url"))
        is_picture = media_type.startswith("image/")
        return Attached(at, place, PICTURE_NAME, PICTURE, data) if is_picture and data else None
    file = part.get("file")
    if part.get("type") != "file" or not isinstance(file, dict):
        return None
    name = plain_name(file.get("filename"))
    file_id = file.get("file_id")
    if isinstance(file_id, str) and FILE_ID.fullmatch(file_id):
        return Attached(at, place, name, "", file_id=file_id)
    given = file.get("file_data")
    media_type, data = _data_url(given)
    if not data and isinstance(given, str) and ":" not in given[:DATA_HEAD_MAX]:
        data = given  # plain base64, as some clients send it
    kind = kind_of(media_type, name)
    return Attached(at, place, name, kind, data) if kind and data else None


def _data_url(url: Any) -> tuple[str, str]:
    """Return media type and base64 of a data URL; two empty texts: it is none."""
    if not isinstance(url, str) or url[:5].lower() != "data:":
        return "", ""
    head, comma, data = url[5 : DATA_HEAD_MAX + 5].partition(",")
    if not comma or not head.lower().endswith(";base64"):
        return "", ""
    del data
    return head.partition(";")[0].lower(), url[5 + len(head) + 1 :]


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else value
