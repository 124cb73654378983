"""Reads the messages and params of a chat, for requests that have another form. Pure.

If a vendor's form cannot express a part of a request, the request is refused, and the error names
the part. The alternative, to leave the part out, would give an answer to half of a question.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from shared.errors import BackendError, Refusal
from workers.backends.token_limits import token_limits

# Members of a chat completion that other vendors' requests have no place for. Their servers refuse
# unknown members, and many clients always send some of these.
CHAT_ONLY = frozenset(
    (
        "model", "messages", "stream", "stream_options", "n", "store", "frequency_penalty",
        "presence_penalty", "logit_bias", "logprobs", "top_logprobs", "seed", "prediction",
        "modalities", "audio", "web_search_options", "prompt_cache_key", "prompt_cache_retention",
        "safety_identifier", "verbosity", "functions", "function_call", "response_format",
        "reasoning_effort", "max_tokens", "max_completion_tokens", "stop", "user", "tools",
        "tool_choice", "parallel_tool_calls", "service_tier", "continue_final_message",
        "add_generation_prompt", "priority", "min_tokens",
    )
)  # fmt: skip
_NAMES = {"image/jpg": "image/jpeg"}  # vendors refuse the first
_DATA_URL = re.compile(r"data:([^;,]*)((?:;[^;,]*)*),", re.IGNORECASE)


class Inline(NamedTuple):
    """Content that stands in the request itself, in base64."""

    media_type: str
    data: str


class Call(NamedTuple):
    """A call of a function in an assistant message.

    Attributes:
        arguments: an object; arguments that are none stand under `arguments`.
        call: all members, as the client sent them.
    """

    id: str
    name: str
    arguments: dict[str, Any]
    call: Mapping[str, Any]


def unsendable(where: str, problem: str) -> BackendError:
    """Return the refusal of a request that cannot be translated.

    Args:
        where: the member, for example `messages[2].content[0]`.
        problem: what is wrong and what to send instead.
    """
    message = f"{where}: {problem}"
    refusal = Refusal(message, 400, "unsupported_value", "invalid_request_error", where)
    return BackendError("upstream_refused", message, retryable=False, upstream=refusal)


def parts_of(message: Mapping[str, Any], where: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the parts of a message, each with its place. A text is one part.

    A refusal of the model counts as its text.
    """
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}] if content else []
    if content is not None and not isinstance(content, list):
        raise unsendable(f"{where}.content", "must be a text or a list of parts")
    parts = [
        (f"{where}.content[{number}]", {"type": "text", "text": part} if isinstance(part, str)
         else part if isinstance(part, dict) else {})
        for number, part in enumerate(content or ())
    ]  # fmt: skip
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal and not parts:
        parts.append((f"{where}.refusal", {"type": "text", "text": refusal}))
    return parts


def text_of(parts: list[tuple[str, dict[str, Any]]]) -> str | None:
    """Return the text of parts that are plain texts; None: another part is among them."""
    pieces = []
    for _, part in parts:
        if not part.keys() <= {"type", "text"} or not isinstance(part.get("text"), str):
            return None
        pieces.append(part["text"])
    return "".join(pieces)


def calls_of(message: Mapping[str, Any], where: str) -> list[Call]:
    """Return the calls of an assistant message."""
    calls = message.get("tool_calls") or []
    if not calls and isinstance(message.get("function_call"), dict):
        function = message["function_call"]
        calls = [{"id": legacy_id(function.get("name")), "function": function}]
    found = []
    for number, call in enumerate(calls if isinstance(calls, list) else ()):
        place = f"{where}.tool_calls[{number}]"
        if not isinstance(call, dict):
            raise unsendable(place, "must be an object")
        function = call.get("function")
        custom = call.get("custom")
        if isinstance(function, dict):
            arguments = object_in(function.get("arguments"), "arguments")
        elif isinstance(custom, dict):
            function, arguments = custom, {"input": custom.get("input") or ""}
        else:
            raise unsendable(place, "must be the call of a function")
        name = function.get("name")
        if not isinstance(name, str):
            raise unsendable(f"{place}.function.name", "must be a string")
        found.append(Call(str(call.get("id") or legacy_id(name)), name, arguments, call))
    return found


def result_id(message: Mapping[str, Any]) -> str:
    """Return the id of the call that a message with a result answers."""
    return str(message.get("tool_call_id") or legacy_id(message.get("name")))


def legacy_id(name: Any) -> str:
    """Return the id of a call in the old form of chat completions, which has none."""
    return f"call_{name}"


def object_in(text: Any, member: str) -> dict[str, Any]:
    """Return the JSON object in a text; another value stands under `member`."""
    if isinstance(text, dict):
        return text
    if not isinstance(text, str) or not text.strip():
        return {}
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        value = text
    return value if isinstance(value, dict) else {member: value}


def inline_of(url: str, where: str) -> Inline | None:
    """Return the content of a `data:` URL; None: it is another URL.

    Raises:
        BackendError: the URL holds no base64.
    """
    match = _DATA_URL.match(url[:200])
    if match is None:
        if url[:5].lower() == "data:":
            raise unsendable(where, "is no data URL: send data:<type>;base64,<data>")
        return None
    data = url[match.end() :]
    if ";base64" not in match[2].lower():
        raise unsendable(where, "must hold base64: send data:<type>;base64,<data>")
    media_type = match[1].strip().lower() or "text/plain"
    return Inline(_NAMES.get(media_type, media_type), data)


def decoded(inline: Inline, where: str) -> str:
    """Return inline content that is text."""
    try:
        return base64.b64decode(inline.data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as exc:
        raise unsendable(where, "must be UTF-8 in base64") from exc


def stops_of(params: Mapping[str, Any]) -> list[str]:
    """Return the texts at which the model shall stop."""
    stop = params.get("stop")
    found = [stop] if isinstance(stop, str) else stop
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def tokens_max(params: Mapping[str, Any]) -> int | None:
    """Return the limit of the answer, tokens; None: the client sent none."""
    return next((limit for limit in token_limits(params) if type(limit) is int), None)


def functions_of(params: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the tools that are functions, with their members, and the vendor's own tools.

    Members beside `function` (`cache_control`) are members of the function here. `allowed_tools`
    are applied.
    """
    functions, others = [], []
    tools = params.get("tools")
    if not tools and isinstance(params.get("functions"), list):
        tools = [{"type": "function", "function": function} for function in params["functions"]]
    for number, tool in enumerate(tools if isinstance(tools, list) else ()):
        where = f"tools[{number}]"
        if not isinstance(tool, dict):
            raise unsendable(where, "must be an object")
        function = tool.get("function")
        if tool.get("type") == "custom" and isinstance(tool.get("custom"), dict):
            raise unsendable(where, "this model takes no custom tools: send a function")
        if not isinstance(function, dict):
            others.append(tool)
            continue
        if not isinstance(function.get("name"), str):
            raise unsendable(f"{where}.function.name", "must be a string")
        beside = {name: value for name, value in tool.items() if name not in ("type", "function")}
        functions.append({**function, **beside})
    choice = params.get("tool_choice")
    if isinstance(choice, dict) and isinstance(choice.get("allowed_tools"), dict):
        given = choice["allowed_tools"].get("tools")
        allowed = [_name_of(tool) for tool in given] if isinstance(given, list) else []
        functions = [function for function in functions if function["name"] in allowed]
    return functions, others


def choice_of(params: Mapping[str, Any]) -> str | None:
    """Return the mode of `tool_choice`, or `name:` and the name of a function; None: no choice."""
    choice = params.get("tool_choice", params.get("function_call"))
    if isinstance(choice, dict) and isinstance(choice.get("allowed_tools"), dict):
        choice = choice["allowed_tools"].get("mode", "auto")
    if isinstance(choice, str):
        return choice
    name = _name_of(choice)
    return f"name:{name}" if name else None


def _name_of(tool: Any) -> str | None:
    if not isinstance(tool, dict):
        return None
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else tool.get("name")
    return name if isinstance(name, str) else None


def schema_of(params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the JSON schema that the answer shall have; None: none is asked for."""
    form = params.get("response_format")
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        return None
    schema = form.get("json_schema")
    found = schema.get("schema") if isinstance(schema, dict) else None
    return found if isinstance(found, dict) else None
