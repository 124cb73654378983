"""Builds the message that asks for an answer. Pure.

The usual message has `messages`, `model` and the members of `params`. A table `request` in the
models file replaces it: `$messages`, `$prompt` (the last text of the user), `$model` and `$params`
stand for values.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.config.models import Model
from shared.log.request import Request

RESERVED = ("model", "messages")


def encode_message(model: Model, request: Request, prefix: str) -> bytes:
    """Return the JSON to send.

    Args:
        prefix: the answer so far, which becomes the last turn; empty: no partial answer.
    """
    messages = list(request.messages)
    if prefix:
        messages.append({"role": "assistant", "content": prefix})
    params = {name: value for name, value in request.params.items() if name not in RESERVED}
    template = model.options.get("request")
    if template is None:
        message = {"messages": messages, "model": model.upstream_name, **params}
    else:
        values = {
            "$messages": messages,
            "$prompt": _last_text(messages),
            "$model": model.upstream_name,
            "$params": params,
        }
        message = {name: _filled(value, values) for name, value in template.items()}
    return msgspec.json.encode(model.rules.apply(message))


def _filled(value: Any, values: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, values) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, values) for inner in value]
    return values.get(value, value) if isinstance(value, str) else value


def _last_text(messages: list[dict[str, Any]]) -> str:
    content = next((m.get("content") for m in reversed(messages) if m.get("role") == "user"), "")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))
