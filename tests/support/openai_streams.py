"""Streams as OpenAI-compatible servers send them, byte for byte in each one's own manner.

Each is (bytes, what a reader must make of them, the failure's message or None).
"""

# ruff: noqa: E501 - lines are as long as servers send them
from __future__ import annotations

from typing import NamedTuple

from shared.log.events import Reasoning, Token, ToolCall, Usage
from workers.backends.contract import BackendItem, Finish


class Recorded(NamedTuple):
    raw: bytes
    items: list[BackendItem]
    failure: str = ""


OPENAI = Recorded(
    """data: {"id":"chatcmpl-B1","object":"chat.completion.chunk","created":1735689600,"model":"gpt-4o","service_tier":"default","system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-B1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Grüße"},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-B1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" 👩‍🚀 流"},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-B1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" \\u00e9\\ud83d\\ude80"},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-B1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}

data: {"id":"chatcmpl-B1","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13,"prompt_tokens_details":{"cached_tokens":0}}}

data: [DONE]

""".encode(),
    [
        Token("Grüße", {"chunk": {"service_tier": "default", "system_fingerprint": "fp_1"}}),
        Token(" 👩‍🚀 流"),
        Token(" é🚀"),
        Usage(9, 4, 13, {"prompt_tokens_details": {"cached_tokens": 0}}),
        Finish("stop"),
    ],
)

OPENAI_TOOLS = Recorded(
    b"""data: {"choices":[{"index":0,"delta":{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_a","type":"function","function":{"name":"weather","arguments":""}}]},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\\"city\\":"}}]},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\\"K\xc3\xb6ln\\"}"}}]},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"call_b","type":"function","function":{"name":"time","arguments":"{}"}}]},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}

data: [DONE]

""",
    [
        ToolCall(0, "call_a", "weather", '{"city":'),
        ToolCall(0, arguments='"Köln"}'),
        ToolCall(1, "call_b", "time", "{}"),
        Finish("tool_calls"),
    ],
)

OPENAI_REFUSAL = Recorded(
    b"""data: {"choices":[{"index":0,"delta":{"role":"assistant","content":null,"refusal":"I can"},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"refusal":"not."},"finish_reason":"content_filter"}]}

data: [DONE]

""",
    [
        Token("I can", {"delta": {"refusal": "I can"}}),
        Token("not.", {"delta": {"refusal": "not."}}),
        Finish("content_filter"),
    ],
)

# Running usage in every chunk, thoughts under the new name, several tokens in one chunk.
VLLM = Recorded(
    """data: {"id":"chatcmpl-v","object":"chat.completion.chunk","created":1,"model":"q","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":5,"total_tokens":5,"completion_tokens":0}}

data: {"choices":[{"index":0,"delta":{"reasoning":"Hm — "},"logprobs":null,"finish_reason":null,"token_ids":null}],"usage":{"prompt_tokens":5,"total_tokens":6,"completion_tokens":1}}

data: {"choices":[{"index":0,"delta":{"reasoning":"so","reasoning_content":"so"},"finish_reason":null}],"usage":{"prompt_tokens":5,"total_tokens":7,"completion_tokens":2}}

data: {"choices":[{"index":0,"delta":{"content":"Ja, eins zwei"},"finish_reason":null}],"usage":{"prompt_tokens":5,"total_tokens":10,"completion_tokens":5}}

data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":"length","stop_reason":null}],"usage":{"prompt_tokens":5,"total_tokens":11,"completion_tokens":6}}

data: {"choices":[],"usage":{"prompt_tokens":5,"total_tokens":11,"completion_tokens":6}}

data: [DONE]

""".encode(),
    [
        Reasoning("Hm — "),
        Reasoning("so"),
        Token("Ja, eins zwei"),
        Usage(5, 6, 11),
        Finish("length"),
    ],
)

VLLM_ERROR = Recorded(
    """data: {"choices":[{"index":0,"delta":{"content":"fast fertíg"},"finish_reason":null}]}

data: {"error": {"message": "EngineCore encountered an issue – see stack trace", "type": "InternalServerError", "param": null, "code": 500}}

data: [DONE]

""".encode(),
    [Token("fast fertíg")],
    "EngineCore encountered an issue – see stack trace",
)

VLLM_ERROR_AFTER_FINISH = Recorded(
    b"""data: {"choices":[{"index":0,"delta":{"content":"done?"},"finish_reason":"stop"}]}

data: {"error": {"message": "usage failed", "type": "InternalServerError", "code": 500}}

data: [DONE]

""",
    [Token("done?")],
    "usage failed",
)

LLAMA_CPP = Recorded(
    """data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"created":1,"id":"c","model":"m","system_fingerprint":"b1","object":"chat.completion.chunk"}

data: {"choices":[{"finish_reason":null,"index":0,"delta":{"reasoning_content":"Überlegung"}}],"object":"chat.completion.chunk"}

data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"Hé"}}],"object":"chat.completion.chunk"}

data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}],"object":"chat.completion.chunk","usage":{"completion_tokens":2,"prompt_tokens":3,"total_tokens":5},"timings":{"prompt_n":3,"predicted_ms":10.5}}

data: [DONE]

""".encode(),
    [
        Reasoning("Überlegung", {"chunk": {"system_fingerprint": "b1"}}),
        Token("Hé"),
        Usage(3, 2, 5),
        Finish("stop", "", {"chunk": {"timings": {"prompt_n": 3, "predicted_ms": 10.5}}}),
    ],
)

LLAMA_CPP_ERROR = Recorded(
    """data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"Hé"}}]}

error: {"code":500,"message":"the slot is gone – sorry","type":"server_error"}

data: [DONE]

""".encode(),
    [Token("Hé")],
    "the slot is gone – sorry",
)

# Comments between, CRLF, usage beside a repeated finish.
OPENROUTER = Recorded(
    """: OPENROUTER PROCESSING

: OPENROUTER PROCESSING

data: {"id":"gen-1","provider":"X","choices":[{"index":0,"delta":{"role":"assistant","content":"añ"},"finish_reason":null,"native_finish_reason":null}]}

: OPENROUTER PROCESSING — é

data: {"id":"gen-1","choices":[{"index":0,"delta":{"role":"assistant","content":"o"},"finish_reason":"stop","native_finish_reason":"STOP"}]}

data: {"id":"gen-1","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"cost":0.01}}

data: [DONE]

""".replace("\n", "\r\n").encode(),
    [
        Token("añ", {"chunk": {"provider": "X"}}),
        Token("o", {"choice": {"native_finish_reason": "STOP"}}),
        Usage(1, 2, 3, {"cost": 0.01}),
        Finish("stop"),
    ],
)

OPENROUTER_ERROR = Recorded(
    b"""data: {"choices":[{"index":0,"delta":{"content":"abc"},"finish_reason":null}]}

data: {"id":"gen-2","error":{"code":"server_error","message":"Provider disconnected"},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}

""",
    [Token("abc")],
    "Provider disconnected",
)

# No space after the colon, lone CRs, a keep-alive in capitals, an event over two data lines.
DEEPSEEK = Recorded(
    """: keep-alive

data:{"choices":[{"index":0,"delta":{"content":null,"reasoning_content":"想"},"finish_reason":null}]}

data:{"choices":
data:[{"index":0,"delta":{"content":"好","reasoning_content":null},"finish_reason":null}]}

id: 7
retry: 10
data:{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}],"usage":{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6}}

data:[DONE]

""".replace("\n", "\r").encode(),
    [Reasoning("想"), Token("好"), Usage(4, 2, 6), Finish("stop")],
)

MISTRAL = Recorded(
    """data: {"choices":[{"index":0,"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"peut-être"}]}]},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"content":[{"type":"text","text":"déjà"},{"type":"reference"}]},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"content":"","tool_calls":[{"id":"a1","function":{"name":"f","arguments":"{}"}},{"id":"a2","function":{"name":"g","arguments":{"n":1}}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":4,"completion_tokens":2}}

data: [DONE]

""".encode(),
    [
        Reasoning("peut-être"),
        Token("déjà", {"delta": {"content_parts": [{"type": "reference"}]}}),
        ToolCall(0, "a1", "f", "{}"),
        ToolCall(1, "a2", "g", '{"n":1}'),
        Usage(4, 2, 6),
        Finish("tool_calls"),
    ],
)

# Two answers were asked for behind our back: only the first counts.
TWO_CHOICES = Recorded(
    b"""data: {"choices":[{"index":1,"delta":{"content":"B"},"finish_reason":null},{"index":0,"delta":{"content":"A"},"finish_reason":null}]}

data: {"choices":[{"index":1,"delta":{},"finish_reason":"length"}]}

data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}

data: [DONE]

""",
    [Token("A"), Finish("stop")],
)

# `stream` ignored: one document, after the white space that some proxies send to stay alive.
WHOLE = Recorded(
    """

  {"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant",
  "content":"Ganz, à la fois","tool_calls":null},"finish_reason":"stop"}],
  "usage":{"prompt_tokens":1,"completion_tokens":3,"total_tokens":4}}
""".encode(),
    [Token("Ganz, à la fois"), Usage(1, 3, 4), Finish("stop")],
)

WHOLE_ERROR = Recorded(b'{"error":"model is loading"}', [], "model is loading")

DONE_ALONE = Recorded(
    b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n',
    [Token("a")],
    "the backend said [DONE] without a finish_reason",
)

CUT_OFF = Recorded(
    b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n',
    [Token("a")],
    "the backend's answer broke off without a finish_reason",
)

FINISH_ALONE = Recorded(
    b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}',
    [Token("a"), Finish("stop")],
)

TORN_USAGE = Recorded(
    b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tok',
    [Token("a"), Finish("stop")],
)

BAD_UTF8 = Recorded(
    b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"content":"\xc3\x28"}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"content":"b"},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n",
    [Token("a")],
    "the backend sent broken data",
)

BAD_UTF8_UNREAD = Recorded(  # in a member that nobody reads
    b'data: {"x":"\xff","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n",
    [],
    "the backend sent broken data",
)

BAD_JSON = Recorded(
    b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\ndata: {"choices":[\n\n',
    [Token("a")],
    "the backend sent broken data",
)

HTML = Recorded(
    b"<html><body>502 Bad Gateway</body></html>\n",
    [],
    "the backend answered with an HTML page: 502 Bad Gateway",
)

ALL = {
    name.lower(): value for name, value in list(globals().items()) if isinstance(value, Recorded)
}
