"""The request of a generation, as meta stores it and a backend receives it.

A request may be a megabyte long, and most readers of meta do not need it. So this module computes
two small parts once, when the request is accepted: the prompt that a listing shows, and the data
that the dialect needs for later responses. Meta stores both as separate fields. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from shared.log.records import Meta

PROMPT_CHARACTERS_MAX = 4_000  # of a prompt in a listing


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """One prompt, in the chat form that every backend accepts.

    Attributes:
        messages: each with `role` and `content`, oldest first; a bare prompt is one user message.
        params: passed unchanged to the backend: max_tokens, temperature, stop, tools, …
        audio: media type of the audio input; empty: the generation has none.
        dialect: data that the client's dialect needs for later responses; no backend sees it.
    """

    messages: list[dict[str, Any]]
    params: dict[str, Any] = {}
    dialect: dict[str, Any] = {}
    audio: str = ""


encode_request = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(Request).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def shown_prompt(request: Request) -> str:
    """Return the text of the last user message, cut at `PROMPT_CHARACTERS_MAX`."""
    for message in reversed(request.messages):
        if message.get("role") == "user":
            return _text_of(message.get("content"))[:PROMPT_CHARACTERS_MAX]
    return ""


def encode_dialect(request: Request) -> bytes:
    """Return the JSON of `Request.dialect` for meta; empty: no data."""
    return encode_request(request.dialect) if request.dialect else b""


def dialect_of(meta: Meta) -> dict[str, Any]:
    """Return `Request.dialect` from meta, or from the request where an older version wrote meta."""
    if meta.dialect:
        return _decode_object(meta.dialect)
    return decode_request(meta.request).dialect if meta.request else {}


def shown_fields(raw: bytes) -> Mapping[bytes, bytes]:
    """Return the fields that meta lacks if an older version created the generation.

    Args:
        raw: the JSON of the whole request. If it cannot be decoded, the prompt is empty.
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
        part["text"][:PROMPT_CHARACTERS_MAX]  # the whole text may have megabytes
        for part in parts
        if isinstance(part, dict) and isinstance(part.get("text"), str)
    )
