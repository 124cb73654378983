r"""The binary frames of a client on /v1/ws: a line of JSON, a line feed, the bytes. Pure.

    {"type":"audio","id":"gen_…","seq":3,"last":true} LF <bytes>

Source: docs/audio.md, "Over WebSocket".
"""

from __future__ import annotations

from typing import Any

from api.errors import request_error
from api.intake.strict_json import decode_json
from shared.audio.input import AudioChunk
from shared.errors import RequestError

HEAD_BYTES_MAX = 1_024  # of the line, without the line feed
MEMBERS = {"type", "id", "seq", "last"}


def split_frame(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the line of a binary frame, and the bytes behind it.

    Raises:
        RequestError: 400, the line is not JSON; 422, there is no line, or it is no object.
    """
    end = data.find(b"\n", 0, HEAD_BYTES_MAX + 1)
    if end < 0:
        raise _invalid(
            f"a binary frame begins with a line of JSON of at most {HEAD_BYTES_MAX} bytes, and a "
            "line feed"
        )
    head = decode_json(data[:end])
    if not isinstance(head, dict):
        raise _invalid("the line of a binary frame is a JSON object")
    return head, data[end + 1 :]


def read_chunk(head: dict[str, Any], data: bytes) -> AudioChunk:
    """Return the chunk of a frame `audio`.

    Raises:
        RequestError: 422, a wrong member.
    """
    if head.get("type") != "audio":
        raise _invalid("type: a binary frame of a client is audio")
    if unknown := head.keys() - MEMBERS:
        raise _invalid(f"{min(unknown)[:40]}: an audio frame has {', '.join(sorted(MEMBERS))}")
    seq, is_last = head.get("seq"), head.get("last", False)
    if type(seq) is not int:
        raise _invalid("seq must be a whole number")
    if type(is_last) is not bool:
        raise _invalid("last must be true or false")
    if not isinstance(head.get("id"), str):
        raise _invalid("id must be a generation's id")
    return AudioChunk(seq, data, is_last)


def _invalid(message: str) -> RequestError:
    return request_error("invalid_request", message)
