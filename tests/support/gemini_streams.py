"""Streams of Gemini's `streamGenerateContent`, byte for byte, and how they are read.

tests/unit/workers/backends/test_official_sdks.py reads them with the official SDK as well.
"""

# ruff: noqa: E501 - lines are as long as servers send them
from __future__ import annotations

from shared.log.events import Extra, Reasoning, Token, ToolCall, Usage
from tests.support.openai_streams import Recorded
from workers.backends.contract import Finish

FORMAT = "google-gemini-v1"

TEXT = Recorded(
    """data: {"candidates": [{"content": {"parts": [{"text": "**Plan** Say","thought": true}],"role": "model"},"index": 0}],"usageMetadata": {"promptTokenCount": 12,"totalTokenCount": 50,"promptTokensDetails": [{"modality": "TEXT","tokenCount": 12}],"thoughtsTokenCount": 38},"modelVersion": "gemini-3.8-flash","responseId": "r1"}\r
\r
data: {"candidates": [{"content": {"parts": [{"text": "Grüße"}],"role": "model"},"index": 0}],"usageMetadata": {"promptTokenCount": 12,"candidatesTokenCount": 2,"totalTokenCount": 52,"promptTokensDetails": [{"modality": "TEXT","tokenCount": 12}],"thoughtsTokenCount": 38},"modelVersion": "gemini-3.8-flash","responseId": "r1"}\r
\r
data: {"candidates": [{"content": {"parts": [{"text": " 流 \\ud83d\\ude80"}],"role": "model"},"index": 0}],"modelVersion": "gemini-3.8-flash","responseId": "r1"}\r
\r
data: {"candidates": [{"content": {"parts": [{"text": "","thoughtSignature": "EqICCp8CAdHtim/XYZab"}],"role": "model"},"finishReason": "STOP","index": 0}],"usageMetadata": {"promptTokenCount": 12,"candidatesTokenCount": 6,"totalTokenCount": 56,"cachedContentTokenCount": 4,"promptTokensDetails": [{"modality": "TEXT","tokenCount": 12}],"thoughtsTokenCount": 38},"modelVersion": "gemini-3.8-flash","responseId": "r1"}\r
\r
""".encode(),
    [
        Reasoning("**Plan** Say"),
        Token("Grüße"),
        Token(" 流 🚀"),
        Extra({"delta": {"reasoning_details": [{"type": "reasoning.encrypted", "data": "EqICCp8CAdHtim/XYZab", "format": FORMAT, "after": {"characters": 9, "calls": 0}}]}}),
        Usage(12, 44, 56, {"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 38}, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 12}]}),
        Finish("stop", extra={"choice": {"native_finish_reason": "STOP"}}),
    ],
)  # fmt: skip

# Two calls at once: only the first has a signature, and only the second an id.
TOOLS = Recorded(
    b"""data: {"candidates": [{"content": {"parts": [{"functionCall": {"name": "get_weather","args": {"city": "K\\u00f6ln"}},"thoughtSignature": "CpcBAdHtim9SSUdO"},{"functionCall": {"name": "get_time","args": {},"id": "fc_2"}}],"role": "model"},"finishReason": "STOP","index": 0}],"usageMetadata": {"promptTokenCount": 70,"candidatesTokenCount": 20,"totalTokenCount": 90},"modelVersion": "gemini-3.8-flash","responseId": "r2"}

""",
    [
        ToolCall(0, "call_s_0", "get_weather", '{"city":"Köln"}', {"extra_content": {"google": {"thought_signature": "CpcBAdHtim9SSUdO"}}}),
        ToolCall(1, "fc_2", "get_time", "{}"),
        Usage(70, 20, 90),
        Finish("tool_calls", extra={"choice": {"native_finish_reason": "STOP"}}),
    ],
)  # fmt: skip

BLOCKED = Recorded(
    b"""data: {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},"usageMetadata": {"promptTokenCount": 8,"totalTokenCount": 8},"modelVersion": "gemini-3.8-flash","responseId": "r3"}

""",
    [
        Usage(8, 0, 8),
        Finish("content_filter", extra={"chunk": {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, "choice": {"native_finish_reason": "PROHIBITED_CONTENT"}}),
    ],
)  # fmt: skip

SAFETY = Recorded(
    b"""data: {"candidates": [{"content": {"parts": [{"text": "Take"}],"role": "model"},"index": 0}],"usageMetadata": {"promptTokenCount": 8,"totalTokenCount": 8},"modelVersion": "gemini-3.8-flash","responseId": "r4"}

data: {"candidates": [{"finishReason": "SAFETY","index": 0,"safetyRatings": [{"category": "HARM_CATEGORY_DANGEROUS_CONTENT","probability": "HIGH","blocked": true}]}],"usageMetadata": {"promptTokenCount": 8,"candidatesTokenCount": 1,"totalTokenCount": 9},"modelVersion": "gemini-3.8-flash","responseId": "r4"}

""",
    [
        Token("Take"),
        Usage(8, 1, 9),
        Finish("content_filter", extra={"choice": {"safetyRatings": [{"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True}], "native_finish_reason": "SAFETY"}}),
    ],
)  # fmt: skip

PICTURE = Recorded(
    b"""data: {"candidates": [{"content": {"parts": [{"inlineData": {"mimeType": "image/png","data": "iVBORw0KGgo="},"thoughtSignature": "U2lnUGlj"}],"role": "model"},"finishReason": "MAX_TOKENS","index": 0,"groundingMetadata": {"webSearchQueries": ["x"]}}],"usageMetadata": {"promptTokenCount": 8,"candidatesTokenCount": 1290,"totalTokenCount": 1298},"modelVersion": "gemini-3.8-flash-image","responseId": "r5"}

""",
    [
        Extra({"choice": {"groundingMetadata": {"webSearchQueries": ["x"]}}, "delta": {"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}, "extra_content": {"google": {"thought_signature": "U2lnUGlj"}}}]}}),
        Usage(8, 1290, 1298),
        Finish("length", extra={"choice": {"native_finish_reason": "MAX_TOKENS"}}),
    ],
)  # fmt: skip

MALFORMED = Recorded(
    b"""data: {"candidates": [{"content": {},"finishReason": "MALFORMED_FUNCTION_CALL","index": 0,"finishMessage": "Malformed function call: call(x"}],"usageMetadata": {"promptTokenCount": 8,"totalTokenCount": 8},"modelVersion": "gemini-3.8-flash","responseId": "r6"}

""",
    [],
    "the backend gave up: finish_reason 'MALFORMED_FUNCTION_CALL': Malformed function call: call(x",
)

ERROR = Recorded(
    b"""data: {"candidates": [{"content": {"parts": [{"text": "Half"}],"role": "model"},"index": 0}],"modelVersion": "gemini-3.8-flash","responseId": "r7"}

data: {"error": {"code": 503,"message": "The model is overloaded. Please try again later.","status": "UNAVAILABLE"}}

""",
    [Token("Half")],
    "The model is overloaded",
)

ARRAY = Recorded(
    b"""[{"candidates": [{"content": {"parts": [{"text": "Hi"}],"role": "model"},"index": 0}],"responseId": "r8"}
,
{"candidates": [{"content": {"parts": [{"text": " you"}],"role": "model"},"finishReason": "STOP","index": 0}],"usageMetadata": {"promptTokenCount": 3,"candidatesTokenCount": 2,"totalTokenCount": 5},"responseId": "r8"}
]
""",
    [
        Token("Hi"),
        Token(" you"),
        Usage(3, 2, 5),
        Finish("stop", extra={"choice": {"native_finish_reason": "STOP"}}),
    ],
)

ERROR_LIST = Recorded(
    b"""[{
  "error": {
    "code": 429,
    "message": "Resource has been exhausted (e.g. check quota).",
    "status": "RESOURCE_EXHAUSTED"
  }
}
]
""",
    [],
    "Resource has been exhausted",
)

ALL = {
    "text": TEXT,
    "tools": TOOLS,
    "blocked": BLOCKED,
    "safety": SAFETY,
    "picture": PICTURE,
    "malformed": MALFORMED,
    "error": ERROR,
    "array": ARRAY,
    "error_list": ERROR_LIST,
}
