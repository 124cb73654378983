"""The id of a request: `X-Request-Id` of the client, or one that is made here.

Every answer carries the id, and the node's log names it where a request failed. A client's id that
is too long, or has characters other than visible ASCII, could break a log or a header, so it is
replaced.
"""

from __future__ import annotations

import re
import secrets
from typing import Any

from starlette.types import Message, Scope

from api.transport.extensions import GENERATION_ID

HEADER = b"x-request-id"
REQUEST_ID_CHARACTERS_MAX = 128
_VALID = re.compile(rb"[!-~]{1,%d}" % REQUEST_ID_CHARACTERS_MAX)
_KEY = "tailrace.request_id"
_GENERATION = b"x-generation-id"
# The messages that carry the headers of an answer.
_STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


def request_id(scope: Scope) -> bytes:
    """Return the id of a request; the same at every call."""
    found: bytes | None = scope.get(_KEY)
    if found is None:
        sent = [value for name, value in scope.get("headers", ()) if name == HEADER]
        is_valid = len(sent) == 1 and _VALID.fullmatch(sent[0]) is not None
        found = scope[_KEY] = sent[0] if is_valid else b"req_" + secrets.token_hex(12).encode()
    return found


def with_ids(scope: Scope, message: Message) -> Message:
    """Return the first message of an answer with the ids of the request and of its generation."""
    if message["type"] not in _STARTS:
        return message
    headers: list[Any] = [*message.get("headers", ()), (HEADER, request_id(scope))]
    generation_id: str = scope.get(GENERATION_ID, "")
    if generation_id and not any(name == _GENERATION for name, _ in headers):
        headers.append((_GENERATION, generation_id.encode()))
    return {**message, "headers": headers}
