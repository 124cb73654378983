"""The response object of OpenAI's Responses: what was asked, said back, and the items of an answer.

Everything here is a function of what was stored at creation and of the log: every node gives the
same object. What a backend does not report is null, or zero where OpenAI's types demand a number;
what was not asked for is OpenAI's own default there, as the Open Responses schema demands it.
Pure. Source: docs/protocol.md, "Responses".
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.log.events import Counts, Usage
from shared.log.records import Meta
from shared.log.request import decode_request

# Members of `Request.dialect`.
BACKGROUND = "background"
UNSTORED = "unstored"
INSTRUCTED = "instructed"  # the first message is `instructions`
PREVIOUS = "previous_response_id"

MESSAGE, REASONING, CALL = "message", "reasoning", "function_call"
_PREFIXES = {MESSAGE: "msg", REASONING: "rs", CALL: "fc"}
_GENERATION, _RESPONSE = "gen_", "resp_"


def response_id(generation_id: str) -> str:
    """Return the id of a generation as a response."""
    return _RESPONSE + generation_id.removeprefix(_GENERATION)


def generation_id(response_id: str) -> str:
    """Return the id of a response's generation; of anything else, one that names nothing."""
    if not response_id.startswith(_RESPONSE):
        return ""
    return _GENERATION + response_id.removeprefix(_RESPONSE)


class Item:
    """One item of the output; `pieces` are the bodies of JSON strings, which can be joined."""

    def __init__(self, kind: str, index: int, id_part: str, call_id: str = "", name: str = ""):
        self.kind = kind
        self.index = index
        self.id = f"{_PREFIXES[kind]}_{id_part}_{index}"
        self.call_id = call_id or f"call_{id_part}_{index}"
        self.name = name
        self.status = "in_progress"
        self.pieces: list[bytes] = []

    @property
    def text(self) -> msgspec.Raw:
        """All of it, as a JSON string."""
        return msgspec.Raw(b'"%b"' % b"".join(self.pieces))

    @property
    def part(self) -> dict[str, Any]:
        """The one part of a message's or a thought's content."""
        if self.kind == REASONING:
            return {"type": "reasoning_text", "text": self.text}
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}

    def members(self, *, is_new: bool = False) -> dict[str, Any]:
        """Return the item as it stands; `is_new`: as it is added, without content."""
        head = {"id": self.id, "type": self.kind, "status": self.status}
        if self.kind == CALL:
            arguments = msgspec.Raw(b'""') if is_new else self.text
            return {**head, "call_id": self.call_id, "name": self.name, "arguments": arguments}
        content = [] if is_new else [self.part]
        if self.kind == REASONING:
            return {**head, "summary": [], "content": content}
        return {**head, "role": "assistant", "content": content}


def response_head(meta: Meta) -> dict[str, Any]:
    """Return the members that stay the same from the creation on."""
    request = decode_request(meta.request)
    asked, params = request.dialect, request.params
    return {
        "id": response_id(meta.generation_id),
        "object": "response",
        "created_at": meta.created_at_ms // 1000,
        "completed_at": None,  # the log has no times
        "background": asked.get(BACKGROUND, False),
        "frequency_penalty": params.get("frequency_penalty", 0.0),
        "instructions": request.messages[0]["content"] if INSTRUCTED in asked else None,
        "max_output_tokens": params.get("max_tokens"),
        "max_tool_calls": None,
        "metadata": msgspec.Raw(meta.metadata or b"{}"),
        "model": meta.model,
        "parallel_tool_calls": params.get("parallel_tool_calls", True),
        "presence_penalty": params.get("presence_penalty", 0.0),
        "previous_response_id": asked.get(PREVIOUS),
        "prompt_cache_key": None,
        "reasoning": {"effort": params.get("reasoning_effort"), "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": UNSTORED not in asked,
        "temperature": params.get("temperature", 1.0),
        "text": {"format": _text_format(params.get("response_format"))},
        "tool_choice": _tool_choice(params.get("tool_choice", "auto")),
        "tools": [_tool(tool) for tool in _list(params.get("tools"))],
        "top_logprobs": params.get("top_logprobs", 0),
        "top_p": params.get("top_p", 1.0),
        "truncation": "disabled",
        "user": params.get("user"),
    }


def usage_object(usage: Usage | Counts) -> dict[str, Any]:
    """Return the counts as Responses name them; what backends do not tell apart is 0."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }


# From the form that backends take, back to that of Responses. A generation that was started in
# another dialect may hold anything here: what has another form is said as it is.


def _text_format(chosen: Any) -> Any:
    if not isinstance(chosen, dict):
        return {"type": "text"}
    schema = chosen.get("json_schema")
    if chosen.get("type") == "json_schema" and isinstance(schema, dict):
        return {"type": "json_schema", **schema}
    return chosen


def _tool_choice(chosen: Any) -> Any:
    function = chosen.get("function") if isinstance(chosen, dict) else None
    if isinstance(function, dict):
        return {"type": "function", "name": function.get("name", "")}
    return chosen


def _tool(tool: Any) -> Any:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict):
        return tool
    defaults = {"name": "", "description": None, "parameters": None, "strict": None}
    return {"type": "function", **defaults, **function}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
