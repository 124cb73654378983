"""Builds the body of a request to OpenAI's Responses. Pure.

The request asks for background mode, in which the server goes on after a disconnect, and for
encrypted reasoning, which a later turn needs. `set = {background = false, store = false}` in the
models file turns the mode off. Members that the two forms share, and those that only this form
has, pass unchanged. At the end the rules of the model change the body
(shared/config/model_request.py). Source: developers.openai.com, "Create a model response".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.config.models import Model
from shared.log.extra import is_empty
from shared.log.request import Request
from workers.backends.responses.items import translate
from workers.backends.vendor.chat import choice_of, tokens_max

ENCRYPTED = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"
_TRANSLATED = frozenset(
    (
        "model", "messages", "stream", "stream_options", "n", "store", "max_tokens", "audio",
        "max_completion_tokens", "response_format", "verbosity", "reasoning_effort", "logprobs",
        "tools", "tool_choice", "modalities", "min_tokens", "continue_final_message",
        "add_generation_prompt", "input",
    )
)  # fmt: skip
# Chat completions have these, Responses do not; clients often send them with a value that says
# nothing. Any other value goes to the server, which refuses it in its own words.
_IDLE: dict[str, Any] = {
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "stop": None,
    "seed": None,
    "logit_bias": {},
}


def body_of(model: Model, request: Request) -> dict[str, Any]:
    """Return the body to send, before it is encoded.

    Raises:
        BackendError: a message has a form that the server cannot be given.
    """
    params = request.params
    body = {
        name: value
        for name, value in params.items()
        if name not in _TRANSLATED and not (name in _IDLE and _is_idle(name, value))
    }
    body |= {
        "model": model.upstream_name,
        "input": translate(request.messages),
        "stream": True,
        "store": True,
        "background": True,
    }
    included = params.get("include")
    body["include"] = [*(included if isinstance(included, list) else ()), ENCRYPTED]
    if (limit := tokens_max(params)) is not None:
        body["max_output_tokens"] = limit
    if params.get("logprobs") is True:
        body["include"].append(LOGPROBS)
    if text := _text(params):
        body["text"] = text | _given(body, "text")
    if isinstance(effort := params.get("reasoning_effort"), str):
        body["reasoning"] = {"effort": effort, "summary": "auto"} | _given(body, "reasoning")
    if tools := params.get("tools"):
        body["tools"] = [_tool(tool) for tool in tools] if isinstance(tools, list) else tools
        if (choice := params.get("tool_choice")) is not None:
            body["tool_choice"] = _choice(choice, params)
    return model.rules.apply(body)


def _is_idle(name: str, value: Any) -> bool:
    return is_empty(value) or value == _IDLE[name]


def _given(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    return value if isinstance(value, dict) else {}


def _text(params: Mapping[str, Any]) -> dict[str, Any]:
    text: dict[str, Any] = {}
    form = params.get("response_format")
    if isinstance(form, dict) and form.get("type") not in (None, "text"):
        schema = form.get("json_schema")
        text["format"] = {"type": form["type"], **(schema if isinstance(schema, dict) else {})}
    if params.get("verbosity") is not None:
        text["verbosity"] = params["verbosity"]
    return text


def _tool(tool: Any) -> Any:
    """Return a tool in the form of Responses, whose members stand beside its type."""
    if not isinstance(tool, dict):
        return tool
    kind = tool.get("type")
    inner = tool.get(kind) if kind in ("function", "custom") else None
    if not isinstance(inner, dict):
        return tool  # a tool that the server runs itself
    flat = {"type": kind, **inner}
    if kind == "function":
        flat.setdefault("parameters", {"type": "object", "properties": {}})
        flat.setdefault("strict", False)  # the default of chat completions
    elif isinstance(form := flat.get("format"), dict) and isinstance(form.get("grammar"), dict):
        flat["format"] = {"type": "grammar", **form["grammar"]}
    return flat


def _choice(choice: Any, params: Mapping[str, Any]) -> Any:
    if isinstance(choice, dict) and isinstance(choice.get("allowed_tools"), dict):
        allowed = choice["allowed_tools"]
        given = allowed.get("tools")
        tools = [_named(tool) for tool in given] if isinstance(given, list) else []
        return {"type": "allowed_tools", "mode": allowed.get("mode", "auto"), "tools": tools}
    return _named(choice) if isinstance(choice, dict) else choice


def _named(tool: Any) -> Any:
    name = choice_of({"tool_choice": tool})
    if not isinstance(tool, dict) or name is None or not name.startswith("name:"):
        return tool
    return {"type": tool.get("type", "function"), "name": name.removeprefix("name:")}
