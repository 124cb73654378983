"""The response object of OpenAI's Responses: the request, repeated, and the items of the answer.

The object depends only on the stored request and on the log, so every node gives the same object.
What a backend does not report is null, or zero where OpenAI's types demand a number. Parameters
that the client did not send have OpenAI's defaults, as the Open Responses schema demands. Pure.
Source: docs/protocol.md, "Responses".
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import msgspec

from api.dialects.responses.custom_tools import CUSTOM_TOOL, input_of
from api.dialects.responses.kept_reasoning import encrypted_content
from api.dialects.responses.tool_groups import NAMESPACE
from shared.log.events import Counts, Usage
from shared.log.ids import GENERATION_PREFIX
from shared.log.records import Meta
from shared.log.request import decode_request

# Members of `Request.dialect`.
BACKGROUND = "background"
UNSTORED = "unstored"
INSTRUCTED = "instructed"  # the first message is `instructions`
PREVIOUS = "previous_response_id"
SUMMARY = "reasoning_summary"  # `reasoning.summary` of the request
CUSTOM_TOOLS = "custom_tools"  # the names of custom tools, which the backend gets as functions
NAMESPACED = "namespaced"  # by name at the backend: the group of a tool and its name there
TOOL_CHOICE = "tool_choice"  # of the request, where the backend gets another form

# The texts of an item. `SUMMARY_TEXT` is reasoning for a client that asked for a summary.
MESSAGE, REFUSAL, REASONING, SUMMARY_TEXT, CALL, CUSTOM_CALL = (
    "message", "refusal", "reasoning", "summary_text", "function_call", "custom_tool_call",
)  # fmt: skip
_TYPES = {REFUSAL: MESSAGE, SUMMARY_TEXT: REASONING}  # of the others the kind is the type
_PREFIXES = {MESSAGE: "msg", REASONING: "rs", CALL: "fc", CUSTOM_CALL: "ctc"}  # of ids, by type
_RESPONSE = "resp_"


def response_id(generation_id: str) -> str:
    """Return the id of a generation as a response."""
    return _RESPONSE + generation_id.removeprefix(GENERATION_PREFIX)


def generation_id(response_id: str) -> str:
    """Return the id of a response's generation; empty: `response_id` is not a response's id."""
    if not response_id.startswith(_RESPONSE):
        return ""
    return GENERATION_PREFIX + response_id.removeprefix(_RESPONSE)


class OutputItem:
    """One item of the output: a message, reasoning or a tool call.

    Attributes:
        kind: what the item holds: `MESSAGE`, `REFUSAL`, `REASONING`, `SUMMARY_TEXT`, `CALL` or
            `CUSTOM_CALL`.
        type: the type of the item.
        index: in `output`; never used twice in one response.
        status: `in_progress`, `completed` or `incomplete`.
        pieces: of the text or arguments; each is the inside of a JSON string, so that they can be
            joined without encoding.
    """

    def __init__(self, kind: str, index: int, id_part: str, call_id: str = "", name: str = ""):
        self.kind = kind
        self.type = _TYPES.get(kind, kind)
        self.index = index
        self.id = f"{_PREFIXES[self.type]}_{id_part}_{index}"
        self.call_id = call_id or f"call_{id_part}_{index}"
        self.name = name
        self.namespace = ""  # the group of the called tool; empty: none
        self.status = "in_progress"
        self.pieces: list[bytes] = []
        self.extra: dict[str, Any] = {}  # of a tool call
        self.kept: list[Any] = []  # of reasoning: thoughts for later turns

    @property
    def text(self) -> msgspec.Raw:
        """The text or arguments so far, as a JSON string."""
        return msgspec.Raw(b'"%b"' % b"".join(self.pieces))

    @property
    def is_call(self) -> bool:
        return self.kind in (CALL, CUSTOM_CALL)

    @property
    def is_bare(self) -> bool:
        """Whether this is reasoning without a text, which has no part."""
        return bool(self.kept) and not self.pieces

    @property
    def input(self) -> str:
        """The input of a custom tool; empty while its arguments are incomplete."""
        arguments = msgspec.json.decode(self.text, type=str)
        return input_of(arguments, is_complete=self.status == "completed")

    @property
    def part(self) -> dict[str, Any]:
        """The only part of a message or of reasoning."""
        match self.kind:
            case "refusal":
                return {"type": "refusal", "refusal": self.text}
            case "reasoning":
                return {"type": "reasoning_text", "text": self.text}
            case "summary_text":
                return {"type": "summary_text", "text": self.text}
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}

    def members(self, *, is_new: bool = False) -> dict[str, Any]:
        """Return the members of the item.

        Args:
            is_new: leave the content empty, for the event that adds the item.
        """
        head = {"id": self.id, "type": self.type, "status": self.status}
        if self.is_call:
            call: dict[str, Any] = {"call_id": self.call_id, "name": self.name}
            if self.namespace:
                call[NAMESPACE] = self.namespace
            if self.kind == CALL:
                call["arguments"] = msgspec.Raw(b'""') if is_new else self.text
            else:
                call["input"] = "" if is_new else self.input
            return {**head, **call, **({"extra": self.extra} if self.extra else {})}
        content = [] if is_new or self.is_bare else [self.part]
        if self.type == REASONING:
            kept = {"encrypted_content": encrypted_content(self.kept)} if self.kept else {}
            if self.kind == SUMMARY_TEXT:
                return {**head, "summary": content, "content": [], **kept}
            return {**head, "summary": [], "content": content, **kept}
        return {**head, "role": "assistant", "content": content}


def generation_of_item(item_id: str) -> str:
    """Return the id of the generation to which an item belongs; empty: not the id of an item.

    An item's id is its prefix, the generation and the place: `msg_<generation>_0`. In the input of
    a response the place is `in0`.
    """
    parts = item_id.split("_")
    if len(parts) != 3 or parts[0] not in (*_PREFIXES.values(), "fco"):
        return ""
    return GENERATION_PREFIX + parts[1]


def response_head(meta: Meta) -> dict[str, Any]:
    """Return the members that do not change after the creation."""
    request = decode_request(meta.request)
    dialect, params = request.dialect, request.params
    return {
        "id": response_id(meta.generation_id),
        "object": "response",
        "created_at": meta.created_at_ms // 1000,
        "completed_at": None,  # the log has no times
        "background": dialect.get(BACKGROUND, False),
        "frequency_penalty": params.get("frequency_penalty", 0.0),
        "instructions": request.messages[0]["content"] if INSTRUCTED in dialect else None,
        "max_output_tokens": params.get("max_tokens"),
        "max_tool_calls": None,
        "metadata": msgspec.Raw(meta.metadata or b"{}"),
        "model": meta.model,
        "parallel_tool_calls": params.get("parallel_tool_calls", True),
        "presence_penalty": params.get("presence_penalty", 0.0),
        "previous_response_id": dialect.get(PREVIOUS),
        "prompt_cache_key": None,
        "reasoning": {
            "effort": params.get("reasoning_effort"),
            "summary": dialect.get(SUMMARY),
        },
        "safety_identifier": None,
        "service_tier": "default",
        "store": UNSTORED not in dialect,
        "temperature": params.get("temperature", 1.0),
        "text": {"format": _text_format(params.get("response_format"))},
        "tool_choice": dialect.get(TOOL_CHOICE) or _tool_choice(params.get("tool_choice", "auto")),
        "tools": [
            _tool_object(tool, dialect.get(CUSTOM_TOOLS, ()))
            for tool in _list_or_empty(params.get("tools"))
        ],
        "top_logprobs": params.get("top_logprobs", 0),
        "top_p": params.get("top_p", 1.0),
        "truncation": "disabled",
        "user": params.get("user"),
    }


def usage_object(usage: Usage | Counts) -> dict[str, Any]:
    """Return the token counts under the names of Responses; details no backend reports are 0."""
    rest = dict(usage.extra or {})
    given = [
        {**_object_or_empty(rest.pop(chat, None)), **_object_or_empty(rest.pop(own, None))}
        for chat, own in (
            ("prompt_tokens_details", "input_tokens_details"),
            ("completion_tokens_details", "output_tokens_details"),
        )
    ]
    return {
        **rest,
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, **given[0]},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0, **given[1]},
        "total_tokens": usage.total_tokens,
    }


# From the form that backends take back to the form of Responses. A generation of another dialect
# may have any value here: a value in an unknown form is returned unchanged.


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


def _tool_object(tool: Any, custom: Container[str]) -> Any:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict):
        return tool
    if function.get("name") in custom:
        texts = {name: function.get(name) for name in ("name", "description")}
        return {"type": CUSTOM_TOOL, **texts, "format": {"type": "text"}}
    defaults = {"name": "", "description": None, "parameters": None, "strict": None}
    return {"type": "function", **defaults, **function}


def _object_or_empty(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list_or_empty(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
