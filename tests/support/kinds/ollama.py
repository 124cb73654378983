"""The kind `ollama` in the common suite: a server that speaks `/api/chat`."""

# ruff: noqa: E501 - lines are as long as servers send them
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from shared.config.settings import Settings
from shared.log.events import Reasoning, Token, ToolCall, Usage
from tests.support.kinds.kind import TriedKind
from tests.support.kinds.plan import Broken, Done, Text, Thought, ToolUse, parts
from tests.support.openai_streams import Recorded
from tests.support.upstream import Upstream
from tests.support.upstream_script import Cut, Pause, Script, Step, script_of
from workers.backends.contract import Finish
from workers.backends.ollama.reader import OllamaReader

CREATED = "2026-11-28T12:00:00.000000001Z"


class OllamaServerWire:
    """`/api/chat`, as Ollama 0.12 writes it."""

    content_type = "application/x-ndjson"

    def is_answer(self, line: str) -> bool:
        return "POST /api/chat " in line

    def script_of(self, body: dict[str, Any]) -> Script:
        return script_of(body)

    def prompt_of(self, body: dict[str, Any]) -> str:
        return next(m["content"] for m in reversed(body["messages"]) if m["role"] == "user")

    def prefix_of(self, body: dict[str, Any]) -> str:
        last = body["messages"][-1]
        return str(last["content"]) if last["role"] == "assistant" else ""

    def error(self, message: str, kind: str = "server_error") -> bytes:
        return msgspec.json.encode({"error": message})

    def steps(
        self, body: dict[str, Any], script: Script, start: int, *, is_faulty: bool
    ) -> Iterator[Step]:
        limit = body.get("options", {}).get("num_predict")
        prompt = self.prompt_of(body)
        for part in parts(script, prompt, start=start, max_tokens=limit, is_faulty=is_faulty):
            match part:
                case Pause() | Cut():
                    yield part
                case Text(text):
                    yield line({"message": {"role": "assistant", "content": text}})
                case Thought(text):
                    yield line({"message": {"role": "assistant", "content": "", "thinking": text}})
                case ToolUse(name, arguments):
                    function = {"name": name, "arguments": msgspec.json.decode("".join(arguments))}
                    message = {
                        "role": "assistant",
                        "content": "",
                        "tool_calls": [{"function": function}],
                    }
                    yield line({"message": message})
                case Done(reason, said, thought):
                    word = "stop" if reason == "tool_calls" else reason
                    yield line(
                        {
                            "message": {"role": "assistant", "content": ""},
                            "done_reason": word,
                            "load_duration": 7,
                            "prompt_eval_count": 5,
                            "eval_count": said + thought,
                        },
                        done=True,
                    )
                case Broken("error"):
                    yield b'{"error":"the upstream broke as told"}\n'
                case Broken("garbage"):
                    yield b'{"message":{"role":"assistant","content":"\xff\xfe"},"done":false}\n'
                case Broken("huge_line"):
                    yield b'{"message":{"content":"' + b"x" * 2**21


def line(members: dict[str, Any], *, done: bool = False) -> bytes:
    whole = {"model": "m", "created_at": CREATED, **members, "done": done}
    return msgspec.json.encode(whole) + b"\n"


def in_body(body: dict[str, Any], name: str) -> Any:
    return body.get("options", {}).get(name, body.get(name))


def pictures(body: dict[str, Any]) -> list[tuple[str, str]]:
    # Ollama finds the type in the bytes of the picture.
    return [("image/png", data) for m in body["messages"] for data in m.get("images", ())]


def reader(settings: Settings) -> OllamaReader:
    return OllamaReader(line_bytes_max=settings.upstream_line_bytes_max, seed="s")


STREAMS = {
    "an answer": Recorded(
        """{"model":"llama3.2","created_at":"2025-08-04T08:52:19.385406455-07:00","message":{"role":"assistant","content":"Grüße"},"done":false}
{"model":"llama3.2","created_at":"2025-08-04T08:52:19.412-07:00","message":{"role":"assistant","content":" \\ud83d\\ude80 流"},"done":false}
{"model":"llama3.2","created_at":"2025-08-04T08:52:19.5-07:00","message":{"role":"assistant","content":""},"done_reason":"stop","done":true,"total_duration":4883583458,"load_duration":1334875,"prompt_eval_count":26,"prompt_eval_duration":342546000,"eval_count":282,"eval_duration":4535599000}
""".encode(),
        [
            Token("Grüße"),
            Token(" 🚀 流"),
            Usage(
                26,
                282,
                308,
                {
                    "total_duration": 4883583458,
                    "load_duration": 1334875,
                    "prompt_eval_duration": 342546000,
                    "eval_duration": 4535599000,
                },
            ),
            Finish("stop"),
        ],
    ),
    "thinking and a tool": Recorded(
        b"""{"model":"qwen3","created_at":"2025-07-07T20:22:19.184789Z","message":{"role":"assistant","content":"","thinking":"Hm"},"done":false}
{"model":"qwen3","created_at":"2025-07-07T20:22:19.2Z","message":{"role":"assistant","content":"","tool_calls":[{"id":"call_9","function":{"index":0,"name":"weather","arguments":{"city":"Tokyo","days":[1,2]}}}]},"done":false}
{"model":"qwen3","created_at":"2025-07-07T20:22:19.3Z","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"now","arguments":{}}}]},"done":false}
{"model":"qwen3","created_at":"2025-07-07T20:22:19.4Z","message":{"role":"assistant","content":""},"done_reason":"stop","done":true,"prompt_eval_count":169,"eval_count":15}
""",
        [
            Reasoning("Hm"),
            ToolCall(0, "call_9", "weather", '{"city":"Tokyo","days":[1,2]}'),
            ToolCall(1, "call_s_1", "now", "{}"),
            Usage(169, 15, 184),
            Finish("tool_calls"),
        ],
    ),
    "an error in mid-answer": Recorded(
        b"""{"model":"m","message":{"role":"assistant","content":"Hi"},"done":false}
{"error":"llama runner process no longer running: 2"}
""",
        [Token("Hi")],
        "llama runner process no longer running: 2",
    ),
    "the model was only loaded": Recorded(
        b'{"model":"m","created_at":"2024-09-12T21:17:29.1Z","message":{"role":"assistant","content":""},"done_reason":"load","done":true}\n',
        [],
        "the backend only did this: load the model",
    ),
    "no line end at the end": Recorded(
        b'{"message":{"content":"Hi"},"done":false}\r\n\n{"message":{"content":""},"done":true,"done_reason":"length","eval_count":1}',
        [Token("Hi"), Usage(0, 1, 1), Finish("length")],
    ),
    "a page": Recorded(
        b"<html><title>502 Bad Gateway</title></html>\n",
        [],
        "the backend answered with an HTML page: 502 Bad Gateway",
    ),
}


OLLAMA = TriedKind(
    name="ollama",
    serve=lambda: Upstream(wire=OllamaServerWire(), path=""),
    can=frozenset(
        (
            *("reasoning", "tools", "pictures", "max_tokens", "stop", "params", "usage"),
            *("continuation", "status", "errors", "lines"),
        )
    ),
    in_body=in_body,
    pictures=pictures,
    reader=reader,
    streams=STREAMS,
)
