"""Builds the body of a request to Ollama's `/api/chat`. Pure.

Members of `params` that Ollama reads under another name or in another place are translated. The
options of the model go into `options`; all other members pass unchanged.

    max_tokens, max_completion_tokens    options.num_predict
    stop                                 options.stop, a list
    response_format                      format: "json", or the schema
    reasoning_effort                     think
    tool_choice "none"                   no tools

Source: ollama/openai/openai.go, `FromChatRequest`; ollama/api/types.go, `ChatRequest`, `Options`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.config.models import Model
from shared.log.request import Request
from workers.backends.ollama.messages import translate
from workers.backends.token_limits import TOKEN_LIMITS, token_limit

RESERVED = ("model", "messages", "stream", "n", "stream_options")
OPTIONS = frozenset(
    (
        *("num_keep", "seed", "num_predict", "top_k", "top_p", "min_p", "typical_p"),
        *("repeat_last_n", "temperature", "repeat_penalty", "presence_penalty"),
        *("frequency_penalty", "mirostat", "mirostat_tau", "mirostat_eta", "penalize_newline"),
        *("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "numa"),
        *("tfs_z", "low_vram", "use_mlock", "draft_num_predict"),
    )
)
THINK = {
    "none": False, "minimal": "low", "low": "low", "medium": "medium", "high": "high",
    "xhigh": "high",
}  # fmt: skip


def encode_body(model: Model, request: Request, prefix: str) -> bytes:
    """Return the JSON to send.

    Args:
        prefix: the answer so far, which becomes the last turn; empty: no partial answer.

    Raises:
        BackendError: `upstream_refused`: a message has no form in Ollama's interface.
    """
    body, options = _split(request.params)
    messages = translate(request.messages)
    if prefix:
        _continue(messages, prefix)
    body |= {"model": model.upstream_name, "messages": messages, "stream": True}
    if options:
        body["options"] = options
    return msgspec.json.encode(model.rules.apply(body))


def _split(params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the members of the body, and the options of the model."""
    body = {name: value for name, value in params.items() if name not in RESERVED}
    given = body.pop("options", None)
    options: dict[str, Any] = {name: body.pop(name) for name in OPTIONS & body.keys()}
    if (limit := token_limit(body)) is not None:
        options["num_predict"] = limit
    for name in TOKEN_LIMITS:
        body.pop(name, None)
    if (stop := body.pop("stop", None)) is not None:
        options["stop"] = [stop] if isinstance(stop, str) else stop
    if (wanted := body.pop("response_format", None)) is not None:
        body |= _format(wanted)
    effort = body.pop("reasoning_effort", None)
    if effort in THINK and "think" not in body:
        body["think"] = THINK[effort]
    if body.get("tool_choice") == "none":
        body.pop("tools", None)
    options = {name: value for name, value in options.items() if value is not None}
    return body, options | (given if isinstance(given, dict) else {})


def _format(wanted: Any) -> dict[str, Any]:
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_object":
        return {"format": "json"}
    if kind == "json_schema":
        schema = wanted.get("json_schema")
        if isinstance(schema, dict) and isinstance(schema.get("schema"), dict):
            return {"format": schema["schema"]}
    return {}


def _continue(messages: list[dict[str, Any]], prefix: str) -> None:
    if messages and messages[-1]["role"] == "assistant" and not messages[-1].get("tool_calls"):
        # The client's messages end with the beginning of the answer: extend that turn.
        messages[-1] = messages[-1] | {"content": messages[-1]["content"] + prefix}
    else:
        messages.append({"role": "assistant", "content": prefix})
