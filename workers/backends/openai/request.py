"""Builds the body of a chat completions request, with or without a partial answer to continue.

Pure. The client's `params` are sent unchanged, except for members that this system sets itself: the
model, the messages, streaming, and the number of answers. At the end the rules of the model change
the body (shared/config/model_request.py).
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.config.models import Model
from shared.log.request import Request
from workers.backends.openai.messages import with_content

RESERVED = ("model", "messages", "stream", "n")


def encode_body(model: Model, request: Request, prefix: str, form: str = "") -> bytes:
    """Return the JSON to send.

    Args:
        prefix: the answer so far, which the server shall continue; empty: no partial answer.
        form: one of the styles of the kind; empty: the model's `continue_style`.
    """
    body = {key: value for key, value in request.params.items() if key not in RESERVED}
    body["model"] = model.upstream_name
    body["messages"] = with_content(request.messages)
    body["stream"] = True
    options = body.get("stream_options")
    body["stream_options"] = (options if isinstance(options, dict) else {}) | {
        "include_usage": True
    }
    if prefix:
        _continue(body, form or model.continue_style, prefix)
    return msgspec.json.encode(model.rules.apply(body))


def _continue(body: dict[str, Any], style: str, prefix: str) -> None:
    before = body["messages"]
    turn: dict[str, Any] = {"role": "assistant", "content": prefix}
    if before and _is_open_turn(before[-1], style, body):
        # The client's messages end with the beginning of the answer: extend that turn.
        *before, last = before
        turn = last | {"content": last["content"] + prefix}
    if style == "prefix":
        turn["prefix"] = True
    elif style == "continue_final_message":
        body["continue_final_message"] = True
        body["add_generation_prompt"] = False
    body["messages"] = [*before, turn]


def _is_open_turn(last: dict[str, Any], style: str, body: dict[str, Any]) -> bool:
    """Whether the client's last message is an assistant turn that the server shall continue."""
    if last.get("role") != "assistant" or not isinstance(last.get("content"), str):
        return False
    return style == "trailing" or bool(last.get("prefix") or body.get("continue_final_message"))
