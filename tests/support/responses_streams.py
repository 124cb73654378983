"""Streams of OpenAI's Responses, byte for byte, and how they are read.

tests/unit/workers/backends/test_official_sdks.py reads them with the official SDK as well.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.log.events import Extra, Reasoning, Token, ToolCall, Upstream, Usage
from tests.support.openai_streams import Recorded
from workers.backends.contract import Finish

FORMAT = "openai-responses-v1"


def response(status: str, **members: Any) -> dict[str, Any]:
    """Return a response object with all members that the vendor sends."""
    return {
        "id": "resp_68a1",
        "object": "response",
        "created_at": 1735689600,
        "status": status,
        "background": True,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": "gpt-5.4",
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "metadata": {},
        **members,
    }


def stream(*events: dict[str, Any]) -> bytes:
    """Return numbered events as the vendor writes them."""
    raw = b""
    for number, event in enumerate(events):
        data = msgspec.json.encode({"sequence_number": number, **event})
        raw += b"event: %b\ndata: %b\n\n" % (event["type"].encode(), data)
    return raw


def begun(**members: Any) -> list[dict[str, Any]]:
    return [
        {"type": "response.created", "response": response("queued", **members)},
        {"type": "response.queued", "response": response("queued", **members)},
        {"type": "response.in_progress", "response": response("in_progress", **members)},
    ]


def added(index: int, **item: Any) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def done(index: int, **item: Any) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def message(status: str, *content: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "msg_1", "type": "message", "status": status, "role": "assistant",
        "content": list(content),
    }  # fmt: skip


def text_delta(index: int, text: str) -> dict[str, Any]:
    return {
        "type": "response.output_text.delta", "item_id": "msg_1", "output_index": index,
        "content_index": 0, "delta": text, "logprobs": [], "obfuscation": "x7Yd",
    }  # fmt: skip


def arguments_delta(index: int, item_id: str, piece: str) -> dict[str, Any]:
    return {
        "type": "response.function_call_arguments.delta", "item_id": item_id,
        "output_index": index, "delta": piece,
    }  # fmt: skip


def summary_delta(text: str, part: int = 0) -> dict[str, Any]:
    return {
        "type": "response.reasoning_summary_text.delta", "item_id": "rs_1", "output_index": 0,
        "summary_index": part, "delta": text,
    }  # fmt: skip


def summary_part(part: int) -> dict[str, Any]:
    return {
        "type": "response.reasoning_summary_part.added", "item_id": "rs_1", "output_index": 0,
        "summary_index": part, "part": {"type": "summary_text", "text": ""},
    }  # fmt: skip


def output_text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


USAGE = {
    "input_tokens": 70,
    "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 0},
    "output_tokens": 90,
    "output_tokens_details": {"reasoning_tokens": 60},
    "total_tokens": 160,
}
COUNTED = Usage(
    70, 90, 160,
    {
        "prompt_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 60},
    },
)  # fmt: skip
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_A", "name": "get_weather"}

TEXT = Recorded(
    stream(
        *begun(),
        added(0, **message("in_progress")),
        text_delta(0, "Grüße"),
        text_delta(0, " 流 🚀"),
        done(0, **message("completed", output_text("Grüße 流 🚀"))),
        {
            "type": "response.completed",
            "response": response(
                "completed", usage=USAGE, output=[message("completed", output_text("Grüße 流 🚀"))]
            ),
        },
    ),
    [Upstream("resp_68a1"), Token("Grüße"), Token(" 流 🚀"), COUNTED, Finish("stop")],
)

TOOLS = Recorded(
    stream(
        *begun(),
        added(0, id="rs_1", type="reasoning", summary=[], encrypted_content="part"),
        summary_part(0),
        summary_delta("Weather"),
        summary_part(1),
        summary_delta("in Köln", 1),
        done(0, id="rs_1", type="reasoning", summary=[], encrypted_content="gAAAAABo_whole"),
        added(1, **CALL, arguments="", status="in_progress"),
        arguments_delta(1, "fc_1", '{"city":'),
        arguments_delta(1, "fc_1", '"Köln"}'),
        done(1, **CALL, arguments='{"city":"Köln"}', status="completed"),
        {"type": "response.completed", "response": response("completed", usage=USAGE)},
    ),
    [
        Upstream("resp_68a1"),
        Reasoning("Weather"),
        Reasoning("\n\n"),
        Reasoning("in Köln"),
        Extra(
            {
                "delta": {
                    "reasoning_details": [
                        {
                            "type": "reasoning.encrypted",
                            "id": "rs_1",
                            "data": "gAAAAABo_whole",
                            "format": FORMAT,
                        }
                    ]
                }
            }
        ),
        ToolCall(0, "call_A", "get_weather"),
        ToolCall(0, arguments='{"city":'),
        ToolCall(0, arguments='"Köln"}'),
        COUNTED,
        Finish("tool_calls"),
    ],
)

REFUSAL = Recorded(
    stream(
        *begun(background=False),
        added(0, **message("in_progress")),
        {
            "type": "response.refusal.delta", "item_id": "msg_1", "output_index": 0,
            "content_index": 0, "delta": "I cannot",
        },
        done(0, **message("completed", {"type": "refusal", "refusal": "I cannot"})),
        {"type": "response.completed", "response": response("completed", background=False)},
    ),
    [
        Token("I cannot", {"delta": {"refusal": "I cannot"}}),
        Finish("content_filter", extra={"choice": {"native_finish_reason": "refusal"}}),
    ],
)  # fmt: skip

INCOMPLETE = Recorded(
    stream(
        *begun(),
        added(0, **message("in_progress")),
        text_delta(0, "So far"),
        {
            "type": "response.incomplete",
            "response": response(
                "incomplete", usage=USAGE, incomplete_details={"reason": "max_output_tokens"}
            ),
        },
    ),
    [
        Upstream("resp_68a1"),
        Token("So far"),
        COUNTED,
        Finish("length", extra={"choice": {"native_finish_reason": "max_output_tokens"}}),
    ],
)

FAILED = Recorded(
    stream(
        *begun(),
        added(0, **message("in_progress")),
        text_delta(0, "Half"),
        {
            "type": "response.failed",
            "response": response(
                "failed", error={"code": "server_error", "message": "The model failed."}
            ),
        },
    ),
    [Upstream("resp_68a1"), Token("Half")],
    "The model failed.",
)

ERROR = Recorded(
    stream(
        *begun(),
        {"type": "error", "code": "rate_limit_exceeded", "message": "Too fast.", "param": None},
    ),
    [Upstream("resp_68a1")],
    "Too fast.",
)

# A tool of the vendor, a picture, two messages, annotations and probabilities.
RICH = Recorded(
    stream(
        *begun(service_tier="default"),
        added(
            0,
            id="ws_1",
            type="web_search_call",
            status="in_progress",
            action={"type": "search", "query": "x"},
        ),
        {
            "type": "response.web_search_call.searching", "item_id": "ws_1", "output_index": 0,
        },
        done(
            0, id="ws_1", type="web_search_call", status="completed",
            action={"type": "search", "query": "x"},
        ),
        added(1, **message("in_progress")),
        text_delta(1, "First"),
        {
            "type": "response.output_text.annotation.added", "item_id": "msg_1", "output_index": 1,
            "content_index": 0, "annotation_index": 0,
            "annotation": {
                "type": "url_citation", "url": "https://e.example/", "title": "T",
                "start_index": 0, "end_index": 5,
            },
        },
        done(1, **message("completed", output_text("First"))),
        added(2, id="ig_1", type="image_generation_call", status="in_progress", result=None),
        done(2, id="ig_1", type="image_generation_call", status="completed", result="iVBORw0KGgo="),
        added(3, **message("in_progress")),
        {
            **text_delta(3, "Second"),
            "logprobs": [{"token": "Second", "logprob": -0.1, "top_logprobs": []}],
        },
        {"type": "response.completed", "response": response("completed", service_tier="default")},
    ),
    [
        Upstream("resp_68a1"),
        Extra(
            {
                "delta": {
                    "output_items": [
                        {
                            "id": "ws_1",
                            "type": "web_search_call",
                            "status": "completed",
                            "action": {"type": "search", "query": "x"},
                        }
                    ]
                }
            }
        ),
        Token("First"),
        Extra(
            {
                "delta": {
                    "annotations": [
                        {
                            "type": "url_citation",
                            "url": "https://e.example/",
                            "title": "T",
                            "start_index": 0,
                            "end_index": 5,
                        }
                    ]
                }
            }
        ),
        Extra(
            {
                "delta": {
                    "images": [
                        {
                            "type": "image_url",
                            "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="},
                        }
                    ]
                }
            }
        ),
        Token("\n\n"),
        Token(
            "Second",
            {
                "choice": {
                    "logprobs": {
                        "content": [{"token": "Second", "logprob": -0.1, "top_logprobs": []}]
                    }
                }
            },
        ),
        Finish("stop", extra={"chunk": {"service_tier": "default"}}),
    ],
)  # fmt: skip

ALL = {
    "text": TEXT,
    "tools": TOOLS,
    "refusal": REFUSAL,
    "incomplete": INCOMPLETE,
    "failed": FAILED,
    "error": ERROR,
    "rich": RICH,
}
