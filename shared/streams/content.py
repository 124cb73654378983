"""The bytes of a stream: media types, and the rules of JSON mode.

In a stream of `application/json` an append is one value, or an array whose members are appended as
values of their own. The stream stores the text of the values exactly as it was sent, separated by
commas: no number loses a digit. A reader gets the texts of several entries in one array. Pure.
Source: the Durable Streams protocol, "JSON Mode".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

JSON_TYPE = "application/json"
DEFAULT_TYPE = "application/octet-stream"
_TYPE = re.compile(r"[\w-]+/[\w-]+", re.ASCII)
_BLANK = b" \t\r\n"
_SPACE = re.compile(r"[ \t\r\n]*")


def media_of(content_type: str) -> str:
    """Return the media type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def is_media_type(content_type: str) -> bool:
    """Whether a header names a media type at all."""
    return _TYPE.match(content_type) is not None


def is_text(media: str) -> bool:
    """Whether the bytes of a stream can stand in an event stream; others are sent in base64."""
    return media.startswith("text/") or media == JSON_TYPE


def flatten(raw: bytes) -> bytes:
    """Return the values of an append to a JSON stream, separated by commas; empty: there are none.

    Args:
        raw: valid JSON.
    """
    text = raw.strip(_BLANK)
    if text.startswith(b"["):
        return text[1:-1].strip(_BLANK)
    return text


def split_values(stored: bytes) -> list[bytes]:
    """Return the values of an entry of a JSON stream, each as its text."""
    text, decoder, values, at = stored.decode(), json.JSONDecoder(), [], 0
    while at < len(text):
        _, end = decoder.raw_decode(text, at)
        values.append(text[at:end].encode())
        comma = _after_blank(text, end)
        at = _after_blank(text, comma + 1)
    return values


def join(media: str, pieces: Iterable[bytes]) -> bytes:
    """Return the body of a response with these entries."""
    if media == JSON_TYPE:
        return b"[" + b",".join(pieces) + b"]"
    return b"".join(pieces)


def _after_blank(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()
