"""Builds the body of a request to `/v1/completions`. Pure.

    messages                             prompt, by the template of the model
    max_completion_tokens, max_tokens    max_tokens; without one the model's own
    stop                                 with the texts of the template
    logprobs, top_logprobs               logprobs, a number
    tools                                refused, except with tool_choice "none"

All other members of `params` pass unchanged.
Source: OpenAI's API reference, "Create completion"; vLLM, `CompletionRequest`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.config.kinds.completions import MAX_TOKENS, TEMPLATES
from shared.config.models import Model
from shared.log.request import Request
from workers.backends.completions.prompt import render
from workers.backends.reading.parts import refused
from workers.backends.token_limits import TOKEN_LIMITS, token_limit

RESERVED = ("model", "messages", "stream", "n", "prompt")
# Chat completions have these members, and completions do not.
_OF_CHATS = ("tools", "tool_choice", "parallel_tool_calls", "reasoning_effort", "top_logprobs")


def encode_body(model: Model, request: Request, prefix: str) -> bytes:
    """Return the JSON to send.

    Args:
        prefix: the answer so far, which stands behind the prompt; empty: no partial answer.

    Raises:
        BackendError: `upstream_refused`: the request cannot be written as a text.
    """
    params = request.params
    if params.get("tools") and params.get("tool_choice") != "none":
        raise refused("tools: this model continues a text and calls no tools", "tools")
    body = {name: value for name, value in params.items() if name not in (*RESERVED, *_OF_CHATS)}
    template = model.options.get("template", TEMPLATES["text"])
    body["model"] = model.upstream_name
    body["prompt"] = render(request.messages, template, prefix)
    body["stream"] = True
    options = body.get("stream_options")
    body["stream_options"] = (options if isinstance(options, dict) else {}) | {
        "include_usage": True
    }
    limit = token_limit(body, model.options.get("max_tokens", MAX_TOKENS))
    for name in TOKEN_LIMITS:
        body.pop(name, None)
    body["max_tokens"] = limit
    if stops := [*template.stop, *_stops(body.pop("stop", None))]:
        body["stop"] = stops
    if (wanted := body.get("logprobs")) is not None and isinstance(wanted, bool):
        del body["logprobs"]
        if wanted:
            body["logprobs"] = params.get("top_logprobs") or 1
    return msgspec.json.encode(model.rules.apply(body))


def _stops(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
