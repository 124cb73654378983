"""Streams of Anthropic's Messages, byte for byte in the vendor's manner, and how they are read.

tests/unit/workers/backends/test_official_sdks.py reads them with the official SDK as well.
"""

# ruff: noqa: E501 - lines are as long as servers send them
from __future__ import annotations

from shared.log.events import Extra, Reasoning, Token, ToolCall, Usage
from tests.support.openai_streams import Recorded
from workers.backends.contract import Finish

FORMAT = "anthropic-claude-v1"

TEXT = Recorded(
    """event: message_start
data: {"type":"message_start","message":{"id":"msg_01A","type":"message","role":"assistant","model":"claude-opus-5-5","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":25,"cache_creation_input_tokens":100,"cache_read_input_tokens":300,"cache_creation":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":0},"output_tokens":1,"service_tier":"standard"}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Grüße"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" 流 \\ud83d\\ude80"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":15}}

event: message_stop
data: {"type":"message_stop"}

""".encode(),
    [
        Token("Grüße"),
        Token(" 流 🚀"),
        Usage(
            425,
            15,
            440,
            {
                "prompt_tokens_details": {"cached_tokens": 300, "cache_write_tokens": 100},
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 100,
                    "ephemeral_1h_input_tokens": 0,
                },
                "service_tier": "standard",
            },
        ),
        Finish("stop", extra={"choice": {"native_finish_reason": "end_turn"}}),
    ],
)

# Thoughts with a signature, a redacted one, a text, thoughts again, and two calls of which the
# second has no arguments.
TOOLS = Recorded(
    b"""event: message_start
data: {"type":"message_start","message":{"id":"msg_01B","type":"message","role":"assistant","model":"claude-opus-4-8","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":472,"output_tokens":2}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Weather in"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":" K\\u00f6ln."}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EqQBCgIYAhIM1gbcDa9GJwZA2b3h"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"EmwKAhgBEgy3va3pzix"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: content_block_start
data: {"type":"content_block_start","index":2,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"I look."}}

event: content_block_stop
data: {"type":"content_block_stop","index":2}

event: content_block_start
data: {"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"toolu_01T1x","name":"get_weather","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{\\"city\\": \\"K"}}

event: content_block_delta
data: {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"\\u00f6ln\\"}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":3}

event: content_block_start
data: {"type":"content_block_start","index":4,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":4,"delta":{"type":"signature_delta","signature":"EqMB"}}

event: content_block_stop
data: {"type":"content_block_stop","index":4}

event: content_block_start
data: {"type":"content_block_start","index":5,"content_block":{"type":"tool_use","id":"toolu_01T2x","name":"get_time","input":{}}}

event: content_block_stop
data: {"type":"content_block_stop","index":5}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":89,"output_tokens_details":{"thinking_tokens":40}}}

event: message_stop
data: {"type":"message_stop"}

""",
    [
        Reasoning("Weather in"),
        Reasoning(" Köln."),
        Extra({"delta": {"reasoning_details": [{"type": "reasoning.text", "text": "Weather in Köln.", "signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3h", "format": FORMAT}]}}),
        Extra({"delta": {"reasoning_details": [{"type": "reasoning.encrypted", "data": "EmwKAhgBEgy3va3pzix", "format": FORMAT}]}}),
        Token("I look."),
        ToolCall(0, "toolu_01T1x", "get_weather"),
        ToolCall(0, arguments='{"city": "K'),
        ToolCall(0, arguments='öln"}'),
        Extra({"delta": {"reasoning_details": [{"type": "reasoning.text", "text": "", "signature": "EqMB", "format": FORMAT, "after": {"characters": 7, "calls": 1}}]}}),
        ToolCall(1, "toolu_01T2x", "get_time"),
        ToolCall(1, arguments="{}"),
        Usage(472, 89, 561, {"completion_tokens_details": {"reasoning_tokens": 40}}),
        Finish("tool_calls", extra={"choice": {"native_finish_reason": "tool_use"}}),
    ],
)  # fmt: skip

REFUSAL = Recorded(
    b"""event: message_start
data: {"type":"message_start","message":{"id":"msg_01C","type":"message","role":"assistant","model":"claude-opus-5-5","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":9,"output_tokens":1}}}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"refusal","stop_sequence":null,"stop_details":{"type":"refusal","category":"cyber","explanation":null}},"usage":{"output_tokens":2}}

event: message_stop
data: {"type":"message_stop"}

""",
    [
        Usage(9, 2, 11),
        Finish("content_filter", extra={"choice": {"stop_details": {"type": "refusal", "category": "cyber", "explanation": None}, "native_finish_reason": "refusal"}}),
    ],
)  # fmt: skip

OVERLOADED = Recorded(
    b"""event: message_start
data: {"type":"message_start","message":{"id":"msg_01D","type":"message","role":"assistant","model":"claude-opus-5-5","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":9,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Half"}}

event: error
data: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_011"}

""",
    [Token("Half")],
    "Overloaded",
)

# A tool that the vendor runs itself, citations, and a turn that the vendor has paused.
SERVER_TOOL = Recorded(
    b"""event: message_start
data: {"type":"message_start","message":{"id":"msg_01E","type":"message","role":"assistant","model":"claude-opus-5-5","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":100,"output_tokens":3}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"server_tool_use","id":"srvtoolu_014","name":"web_search","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\\"query\\":"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"\\"x\\"}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"web_search_tool_result","tool_use_id":"srvtoolu_014","content":[{"type":"web_search_result","title":"T","url":"https://e.example/","encrypted_content":"Eqgf","page_age":null}]}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: content_block_start
data: {"type":"content_block_start","index":2,"content_block":{"type":"text","text":"","citations":[]}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"citations_delta","citation":{"type":"web_search_result_location","url":"https://e.example/","title":"T","encrypted_index":"Eo8","cited_text":"c"}}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"So far"}}

event: content_block_stop
data: {"type":"content_block_stop","index":2}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"pause_turn","stop_sequence":null},"usage":{"input_tokens":900,"output_tokens":30,"server_tool_use":{"web_search_requests":1,"web_fetch_requests":0}}}

event: message_stop
data: {"type":"message_stop"}

""",
    [
        Extra({"delta": {"content_blocks": [{"type": "server_tool_use", "id": "srvtoolu_014", "name": "web_search", "input": {"query": "x"}}]}}),
        Extra({"delta": {"content_blocks": [{"type": "web_search_tool_result", "tool_use_id": "srvtoolu_014", "content": [{"type": "web_search_result", "title": "T", "url": "https://e.example/", "encrypted_content": "Eqgf", "page_age": None}]}]}}),
        Extra({"delta": {"citations": [{"type": "web_search_result_location", "url": "https://e.example/", "title": "T", "encrypted_index": "Eo8", "cited_text": "c"}]}}),
        Token("So far"),
        Usage(900, 30, 930, {"server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 0}}),
        Finish("length", extra={"choice": {"native_finish_reason": "pause_turn"}}),
    ],
)  # fmt: skip

ALL = {
    "text": TEXT,
    "tools": TOOLS,
    "refusal": REFUSAL,
    "overloaded": OVERLOADED,
    "server_tool": SERVER_TOOL,
}
