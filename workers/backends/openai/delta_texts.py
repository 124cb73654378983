"""Takes the texts out of a delta: a text, or a list of parts as Mistral and others send it.

What is not read stays in the delta, so that the reader keeps it as `extra`. Pure.
"""

from __future__ import annotations

from typing import Any

from shared.log.extra import is_empty
from workers.backends.reading.half_pairs import CONTENT, REASONING


def take_text(members: dict[str, Any], name: str) -> str | None:
    """Take a text out of `members`; a value of another type stays, as something unknown."""
    value = members.get(name)
    if not isinstance(value, str):
        return None
    del members[name]
    return value


def take_content(members: dict[str, Any]) -> list[tuple[str, str]]:
    """Take the content out of `members`: a text, or a list of parts with text and reasoning.

    Parts of other kinds, for example pictures, stay as `content_parts`.
    """
    content = members.pop("content", None)
    if isinstance(content, str):
        return [(CONTENT, content)]
    if not isinstance(content, list):
        if not is_empty(content):
            members["content_parts"] = [content]
        return []
    said: list[tuple[str, str]] = []
    rest: list[Any] = []
    for part in content:
        found = _texts_of_part(part)
        said += found
        if not found and not is_empty(part):
            rest.append(part)
    if rest:
        members["content_parts"] = rest
    return said


def _texts_of_part(part: Any) -> list[tuple[str, str]]:
    """Return the text of a part, and with Mistral also its reasoning."""
    if isinstance(part, str):
        return [(CONTENT, part)] if part else []
    if not isinstance(part, dict):
        return []
    said: list[tuple[str, str]] = []
    if (text := part.get("text")) and isinstance(text, str):
        said.append((CONTENT, text))
    thinking = part.get("thinking")
    for inner in thinking if isinstance(thinking, list) else [{"text": thinking}]:
        text = inner.get("text") if isinstance(inner, dict) else None
        if text and isinstance(text, str):
            said.append((REASONING, text))
    return said
