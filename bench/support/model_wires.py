"""How the benchmarks' model server writes a token in the wire of each kind of backend.

A token is one event, one line or one message, with the members that real servers send. The parts
around the text are computed once for each answer, because the server must cost less than what reads
it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OBJECT = (
    b'data: {"id":"chatcmpl-%d","object":"chat.completion.chunk","created":1790000000,'
    b'"model":"bench","choices":['
)
CHOICE = b'{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]}\n\n'
USAGE = b'],"usage":{"prompt_tokens":1,"completion_tokens":%d,"total_tokens":%d}}\n\n'
SSE = b"text/event-stream"
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


@dataclass(frozen=True, slots=True)
class ModelWire:
    """The wire of one kind. All texts are of answer number n.

    Attributes:
        path: the beginning of the path of a request for an answer.
        base: the path of `base_url`.
        members: further lines of the model's table.
        around: returns the bytes before and behind the text of a token.
        first: returns what comes before the first token.
        last: returns what comes behind the last token, with the number of tokens.
        prompt_of: returns the prompt in the body of a request.
        content_type: of the response; empty: the kind is a WebSocket.
    """

    backend: str
    path: bytes
    base: str
    around: Callable[[int], tuple[bytes, bytes]]
    last: Callable[[int, int], bytes]
    prompt_of: Callable[[dict[str, Any]], str]
    first: Callable[[int], bytes] = lambda n: b""
    content_type: bytes = SSE
    members: str = ""

    @property
    def scheme(self) -> str:
        return "http" if self.content_type else "ws"


def _of_messages(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return str(content if isinstance(content, str) else content[0]["text"])


def _openai_last(n: int, count: int) -> bytes:
    stop = OBJECT % n + CHOICE % (b"{}", b'"stop"')
    return stop + OBJECT % n + USAGE % (count, count + 1) + b"data: [DONE]\n\n"


OPENAI = ModelWire(
    backend="openai",
    path=b"/v1/chat/completions",
    base="/v1",
    around=lambda n: (
        OBJECT % n + b'{"index":0,"delta":{"content":"',
        b'"},"logprobs":null,"finish_reason":null}]}\n\n',
    ),
    first=lambda n: OBJECT % n + CHOICE % (b'{"role":"assistant"}', b"null"),
    last=_openai_last,
    prompt_of=_of_messages,
)

TEXT_OBJECT = (
    b'data: {"id":"cmpl-%d","object":"text_completion","created":1790000000,"model":"bench",'
    b'"choices":['
)


def _completions_last(n: int, count: int) -> bytes:
    stop = TEXT_OBJECT % n + b'{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}]}\n\n'
    return stop + TEXT_OBJECT % n + USAGE % (count, count + 1) + b"data: [DONE]\n\n"


COMPLETIONS = ModelWire(
    backend="completions",
    path=b"/v1/completions",
    base="/v1",
    around=lambda n: (
        TEXT_OBJECT % n + b'{"index":0,"text":"',
        b'","logprobs":null,"finish_reason":null,"stop_reason":null}],"usage":null}\n\n',
    ),
    last=_completions_last,
    prompt_of=lambda body: str(body["prompt"]),
)

OLLAMA_HEAD = b'{"model":"bench","created_at":"2026-11-29T12:00:00.000000001Z","message":'
OLLAMA_LAST = (
    b'{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":9,'
    b'"load_duration":1,"prompt_eval_count":1,"prompt_eval_duration":1,"eval_count":%d,'
    b'"eval_duration":7}\n'
)

OLLAMA = ModelWire(
    backend="ollama",
    path=b"/api/chat",
    base="",
    around=lambda n: (
        OLLAMA_HEAD + b'{"role":"assistant","content":"',
        b'"},"done":false}\n',
    ),
    last=lambda n, count: OLLAMA_HEAD + OLLAMA_LAST % count,
    prompt_of=_of_messages,
    content_type=b"application/x-ndjson",
)

WEBSOCKET = ModelWire(
    backend="websocket",
    path=b"/socket",
    base="/socket",
    around=lambda n: (b'{"token":"', b'"}'),
    last=lambda n, count: (
        b'{"done":true,"usage":{"prompt_tokens":1,"completion_tokens":%d}}' % count
    ),
    prompt_of=_of_messages,
    content_type=b"",
)


def _anthropic_event(name: bytes, data: bytes) -> bytes:
    return b'event: %b\ndata: {"type":"%b"%b}\n\n' % (name, name, data)


ANTHROPIC = ModelWire(
    backend="anthropic",
    path=b"/v1/messages",
    base="/v1",
    around=lambda n: (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"',
        b'"}}\n\n',
    ),
    first=lambda n: (
        _anthropic_event(
            b"message_start",
            b',"message":{"id":"msg_%d","type":"message","role":"assistant","model":"bench",'
            b'"content":[],"stop_reason":null,"usage":{"input_tokens":1,"output_tokens":1}}' % n,
        )
        + _anthropic_event(
            b"content_block_start", b',"index":0,"content_block":{"type":"text","text":""}'
        )
    ),
    last=lambda n, count: (
        _anthropic_event(b"content_block_stop", b',"index":0')
        + _anthropic_event(
            b"message_delta",
            b',"delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":%d}'
            % count,
        )
        + _anthropic_event(b"message_stop", b"")
    ),
    prompt_of=_of_messages,
)

GEMINI_HEAD = b'data: {"candidates":[{"content":{"role":"model","parts":[{"text":"'
GEMINI_TAIL = (
    b'"}]},%b"index":0}],"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":%d,'
    b'"totalTokenCount":%d},"modelVersion":"bench","responseId":"r%d"}\r\n\r\n'
)

GEMINI = ModelWire(
    backend="gemini",
    path=b"/v1beta/models/",
    base="/v1beta",
    around=lambda n: (GEMINI_HEAD, GEMINI_TAIL % (b"", 1, 2, n)),
    last=lambda n, count: (
        GEMINI_HEAD + GEMINI_TAIL % (b'"finishReason":"STOP",', count, count + 1, n)
    ),
    prompt_of=lambda body: str(body["contents"][-1]["parts"][0]["text"]),
)

WIRES = (OPENAI, COMPLETIONS, OLLAMA, WEBSOCKET, ANTHROPIC, GEMINI)


def wire_of(request_line: bytes) -> ModelWire:
    """Return the wire of a request by its path."""
    target = request_line.split(b" ")[1]
    return next(wire for wire in WIRES if target.startswith(wire.path))


def accept_key(key: bytes) -> bytes:
    """Return the header that answers a WebSocket's key (RFC 6455, 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + WEBSOCKET_GUID).digest())


def frame(data: bytes) -> bytes:
    """Return a text frame of a server, which is not masked."""
    size = len(data)
    if size < 126:
        return b"\x81" + bytes((size,)) + data
    return b"\x81\x7e" + size.to_bytes(2, "big") + data


def unmasked(data: bytes) -> bytes:
    """Return the message in a client's frame; empty: the frame is not whole, or a close frame."""
    if len(data) < 6 or data[0] != 0x81:
        return b""
    size, at = data[1] & 0x7F, 2
    if size == 126:
        size, at = int.from_bytes(data[2:4], "big"), 4
    elif size == 127:
        size, at = int.from_bytes(data[2:10], "big"), 10
    mask, masked = data[at : at + 4], data[at + 4 : at + 4 + size]
    if len(masked) < size:
        return b""
    return bytes(byte ^ mask[n % 4] for n, byte in enumerate(masked))


def prompt_json(wire: ModelWire, body: bytes) -> dict[str, Any]:
    """Return the answer that a request asks for, as its prompt says."""
    asked: dict[str, Any] = json.loads(wire.prompt_of(json.loads(body)))
    return asked
