"""The body of a chat completions request, also of one that goes on from a partial answer.

Pure. What the client sent in `params` is passed on as it is, except where it would change what this
system relies on: the model, the messages, streaming, and one answer per request.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.config.models import Model
from shared.log.request import Request

RESERVED = ("model", "messages", "stream", "n")


def encode_body(model: Model, request: Request, prefix: str) -> bytes:
    """Return the JSON to send.

    Args:
        prefix: the answer so far; the server is told to go on from it, in the model's style.

    `max_tokens` stays as it was when going on. How many of the server's tokens the prefix has is
    not known here, and a guess that is too high would end an answer with `length` that had room
    left; so an answer that was taken over may be longer than asked, by at most the prefix.
    """
    body = {key: value for key, value in request.params.items() if key not in RESERVED}
    body["model"] = model.upstream_name
    body["messages"] = request.messages
    body["stream"] = True
    options = body.get("stream_options")
    body["stream_options"] = (options if isinstance(options, dict) else {}) | {
        "include_usage": True
    }
    if prefix:
        _continue(body, model.continue_style, prefix)
    return msgspec.json.encode(body)


def _continue(body: dict[str, Any], style: str, prefix: str) -> None:
    before = body["messages"]
    turn: dict[str, Any] = {"role": "assistant", "content": prefix}
    if before and _is_open(before[-1], style, body):
        # The client had begun the answer itself: the prefix belongs to the same turn.
        *before, last = before
        turn = last | {"content": last["content"] + prefix}
    if style == "prefix":
        turn["prefix"] = True
    elif style == "continue_final_message":
        body["continue_final_message"] = True
        body["add_generation_prompt"] = False
    body["messages"] = [*before, turn]


def _is_open(last: dict[str, Any], style: str, body: dict[str, Any]) -> bool:
    if last.get("role") != "assistant" or not isinstance(last.get("content"), str):
        return False
    return style == "trailing" or bool(last.get("prefix") or body.get("continue_final_message"))
