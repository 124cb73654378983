"""What a client asked for, as it is kept with the generation and handed to a backend.

A request may be a megabyte long, and most who look at a generation need none of it. So what a
listing shows (the prompt, cut) and what a dialect must know again are computed here, once, when the
request is accepted, and stand in meta as fields of their own. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from shared.log.records import Meta

PROMPT_CHARACTERS_MAX = 4_000  # of the prompt that a listing shows


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """One prompt, in the chat form that every backend takes.

    Attributes:
        messages: `role` and `content` each, oldest first; a bare prompt is one user message.
        params: passed on to the backend as they came: max_tokens, temperature, stop, tools, …
        dialect: what the client's own dialect must know again to answer; no backend sees it.
    """

    messages: list[dict[str, Any]]
    params: dict[str, Any] = {}
    dialect: dict[str, Any] = {}


encode_request = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(Request).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def shown_prompt(request: Request) -> str:
    """Return the text of the last user message, at most `PROMPT_CHARACTERS_MAX` of it."""
    for message in reversed(request.messages):
        if message.get("role") == "user":
            return _text_of(message.get("content"))[:PROMPT_CHARACTERS_MAX]
    return ""


def encode_dialect(request: Request) -> bytes:
    """Return what the dialect must know again, as meta keeps it; empty: nothing."""
    return encode_request(request.dialect) if request.dialect else b""


def dialect_of(meta: Meta) -> dict[str, Any]:
    """Return what the dialect of a generation must know again to answer."""
    if meta.dialect:
        return _decode_object(meta.dialect)
    return decode_request(meta.request).dialect if meta.request else {}


def shown_fields(raw: bytes) -> Mapping[bytes, bytes]:
    """Return the fields that meta lacks where an older version has created the generation.

    Args:
        raw: the whole request; what cannot be read shows nothing.
    """
    try:
        request = decode_request(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {b"prompt": b""}
    return {b"prompt": shown_prompt(request).encode(), b"dialect": encode_dialect(request)}


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        part["text"]
        for part in parts
        if isinstance(part, dict) and isinstance(part.get("text"), str)
    )
