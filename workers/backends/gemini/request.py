"""Builds the body of a request to Gemini's `streamGenerateContent`. Pure.

Members of the vendor (`safetySettings`, `cachedContent`, `generationConfig`, …) pass; what a client
sends in `generationConfig` wins over the translation. Members that only chat completions have are
translated, or left out, because the server refuses unknown members. At the end the rules of the
model change the body (shared/config/model_request.py).
Source: ai.google.dev, "Generating content", "Thinking", "Function calling".
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.config.models import Model
from shared.log.request import Request
from workers.backends.gemini.contents import continue_turn, translate
from workers.backends.vendor.chat import (
    CHAT_ONLY,
    choice_of,
    functions_of,
    schema_of,
    stops_of,
    tokens_max,
)

# By member of a chat completion: the member of `generationConfig`.
_CONFIG = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "any": "ANY"}
# The budgets of thoughts of the models that know no levels, as Google translates efforts.
_BUDGETS = {"none": 0, "minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576}
_BUDGET_MODELS = ("gemini-2.", "gemini-1.")  # before version 3: budgets, and no signatures


def encode_body(model: Model, request: Request, prefix: str, form: str = "") -> bytes:
    """Return the JSON to send.

    Args:
        prefix: the answer so far, which the model shall continue; empty: no partial answer.
        form: ignored: the vendor knows one form, a last turn of the model.

    Raises:
        BackendError: a message has a form that the server cannot be given.
    """
    params = request.params
    is_older = any(name in model.upstream_name for name in _BUDGET_MODELS)
    system, contents = translate(request.messages, wants_signatures=not is_older)
    if prefix:
        continue_turn(contents, prefix)
    if not contents:  # the server wants at least one
        system, contents = [], [{"role": "user", "parts": system}]
    known = CHAT_ONLY | _CONFIG.keys()
    body = {name: value for name, value in params.items() if name not in known}
    body["contents"] = contents
    if system:
        body["systemInstruction"] = {"parts": system}
    body |= _tools(params)
    config = _config(params, has_levels=not is_older)
    given = body.get("generationConfig")
    if isinstance(given, dict):
        config |= given
    if config:
        body["generationConfig"] = config
    return msgspec.json.encode(model.rules.apply(body))


def _config(params: dict[str, Any], *, has_levels: bool) -> dict[str, Any]:
    config = {new: params[old] for old, new in _CONFIG.items() if params.get(old) is not None}
    if (limit := tokens_max(params)) is not None:
        config["maxOutputTokens"] = limit
    if stops := stops_of(params):
        config["stopSequences"] = stops
    if params.get("logprobs") is True:
        config["responseLogprobs"] = True
        if type(count := params.get("top_logprobs")) is int and count:
            config["logprobs"] = count
    if (schema := schema_of(params)) is not None:
        config |= {"responseMimeType": "application/json", "responseJsonSchema": schema}
    elif params.get("response_format") == {"type": "json_object"}:
        config["responseMimeType"] = "application/json"
    modalities = params.get("modalities")
    if isinstance(modalities, list):
        config["responseModalities"] = [str(word).upper() for word in modalities]
    if thinking := _thinking(params.get("reasoning_effort"), has_levels=has_levels):
        config["thinkingConfig"] = thinking
    return config


def _thinking(effort: Any, *, has_levels: bool) -> dict[str, Any]:
    if not isinstance(effort, str):
        return {}
    if not has_levels:
        budget = _BUDGETS.get(effort, _BUDGETS["high"])
        return {"thinkingBudget": budget, "includeThoughts": budget > 0}
    # Models with levels cannot stop thinking altogether.
    level = "minimal" if effort == "none" else effort
    return {"thinkingLevel": level.upper(), "includeThoughts": effort != "none"}


def _tools(params: dict[str, Any]) -> dict[str, Any]:
    functions, others = functions_of(params)
    tools = list(others)
    if functions:
        tools.insert(0, {"functionDeclarations": [*map(_declaration, functions)]})
    if not tools:
        return {}
    found: dict[str, Any] = {"tools": tools}
    choice = choice_of(params)
    if choice is not None and functions:
        mode = _MODES.get(choice)
        calling: dict[str, Any] = {"mode": mode or "ANY"}
        if choice.startswith("name:"):
            calling["allowedFunctionNames"] = [choice.removeprefix("name:")]
        if mode or "allowedFunctionNames" in calling:
            found["toolConfig"] = {"functionCallingConfig": calling}
    return found


def _declaration(function: dict[str, Any]) -> dict[str, Any]:
    declared = {"name": function["name"]}
    if function.get("description"):
        declared["description"] = function["description"]
    if isinstance(schema := function.get("parameters"), dict) and schema.get("properties"):
        declared["parametersJsonSchema"] = schema
    return declared
