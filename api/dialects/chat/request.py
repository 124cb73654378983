"""Reads the body of a chat completion. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from api.dialects.chat.fold import INCLUDE_USAGE
from api.intake.body import check_messages, invalid_request, upstream_priority
from api.intake.dialect_request import DialectRequest
from shared.log.request import Request

# The members that this system reads. All others go to the backend.
_READ_HERE = frozenset(
    (
        "model", "messages", "stream", "stream_options", "n",
        "session", "metadata", "priority", "on_disconnect", "queue_wait_s", "deadline_s",
    )
)  # fmt: skip


@dataclass(frozen=True)
class ChatRequest(DialectRequest):
    """The body of a chat completion.

    Attributes:
        is_stream: how this request is answered; it is not stored with the generation.
    """

    is_stream: bool = False


def parse_chat(body: dict[str, Any], *, grace_s: float) -> ChatRequest:
    """Read the members of a chat completion.

    Args:
        grace_s: how long a generation without readers goes on, where the body does not say so.

    Raises:
        RequestError: 422, a member is missing or wrong.
    """
    if "messages" not in body:
        raise invalid_request("messages is missing")
    if body.get("n", 1) != 1:
        raise invalid_request("n: one generation is one answer")
    is_stream = body.get("stream", False)
    if not isinstance(is_stream, bool):
        raise invalid_request("stream must be true or false")
    options = body.get("stream_options", {})
    if not isinstance(options, dict):
        raise invalid_request("stream_options must be an object")
    if not isinstance(options.get(INCLUDE_USAGE), bool | None):
        raise invalid_request(f"stream_options.{INCLUDE_USAGE} must be true or false")
    priority = upstream_priority(body)
    others = {name: value for name, value in body.items() if name not in _READ_HERE}
    request = Request(
        messages=check_messages(body["messages"]),
        params=priority | others,
        dialect={INCLUDE_USAGE: True} if options.get(INCLUDE_USAGE) is True else {},
    )
    return ChatRequest(request, grace_s, is_stream=is_stream)
