"""The kind `completions` in the common suite: a server that continues a raw text."""

# ruff: noqa: E501 - lines are as long as servers send them
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from shared.config.settings import Settings
from shared.log.events import Token, Usage
from tests.support.kinds.kind import TriedKind
from tests.support.kinds.plan import Broken, Done, Text, Thought, ToolUse, parts
from tests.support.openai_streams import Recorded
from tests.support.upstream import EVENT_STREAM, Upstream
from tests.support.upstream_script import Cut, Pause, Script, Step, error_body, script_of
from workers.backends.completions.reader import CompletionsReader
from workers.backends.contract import Finish


class CompletionsServerWire:
    """`/v1/completions`, as vLLM writes it. The prompt is a script in braces, then the answer."""

    content_type = EVENT_STREAM

    def is_answer(self, line: str) -> bool:
        return "POST /v1/completions " in line

    def script_of(self, body: dict[str, Any]) -> Script:
        return script_of({"messages": [{"role": "user", "content": self.prompt_of(body)}]})

    def prompt_of(self, body: dict[str, Any]) -> str:
        prompt = str(body["prompt"])
        return prompt[: prompt.rindex("}") + 1]

    def prefix_of(self, body: dict[str, Any]) -> str:
        return str(body["prompt"])[len(self.prompt_of(body)) :]

    def error(self, message: str, kind: str = "server_error") -> bytes:
        return error_body(message, kind=kind)

    def steps(
        self, body: dict[str, Any], script: Script, start: int, *, is_faulty: bool
    ) -> Iterator[Step]:
        prompt, limit = self.prompt_of(body), body["max_tokens"]
        for part in parts(script, prompt, start=start, max_tokens=limit, is_faulty=is_faulty):
            match part:
                case Pause() | Cut():
                    yield part
                case Text(text):
                    yield chunk(text)
                case Done(reason, said, _):
                    yield chunk("", reason)
                    usage = {
                        "prompt_tokens": 4,
                        "completion_tokens": said,
                        "total_tokens": said + 4,
                    }
                    yield frame({"object": "text_completion", "choices": [], "usage": usage})
                    yield b"data: [DONE]\n\n"
                case Broken("error"):
                    yield b"data: " + error_body("the upstream broke as told", code=500) + b"\n\n"
                    yield b"data: [DONE]\n\n"
                case Broken("garbage"):
                    yield b'data: {"choices":[{"index":0,"text":"\xff\xfe"}]}\n\n'
                case Broken("huge_line"):
                    yield b"data: " + b"x" * 2**21
                case Thought() | ToolUse() | Broken():
                    raise AssertionError("a text has none")


def chunk(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    return frame({"object": "text_completion", "model": "m", "choices": [choice]})


def frame(members: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(members) + b"\n\n"


def reader(settings: Settings) -> CompletionsReader:
    return CompletionsReader(
        line_bytes_max=settings.upstream_line_bytes_max,
        body_bytes_max=settings.answer_bytes_max,
        seed="s",
    )


STREAMS = {
    "vllm": Recorded(
        """data: {"id":"cmpl-1","object":"text_completion","created":1790000000,"model":"SmolLM2","choices":[{"index":0,"text":" Grüße","logprobs":null,"finish_reason":null,"stop_reason":null}],"usage":null}

data: {"id":"cmpl-1","object":"text_completion","created":1790000000,"model":"SmolLM2","choices":[{"index":0,"text":" \\ud83d\\ude80","logprobs":null,"finish_reason":null,"stop_reason":null}],"usage":null}

data: {"id":"cmpl-1","object":"text_completion","created":1790000000,"model":"SmolLM2","choices":[{"index":0,"text":" \\"text\\"","logprobs":null,"finish_reason":"length","stop_reason":null}],"usage":null}

data: {"id":"cmpl-1","object":"text_completion","created":1790000000,"model":"SmolLM2","choices":[],"usage":{"prompt_tokens":5,"total_tokens":8,"completion_tokens":3}}

data: [DONE]

""".encode(),
        [Token(" Grüße"), Token(" 🚀"), Token(' "text"'), Usage(5, 3, 8), Finish("length")],
    ),
    "llama.cpp": Recorded(
        b"""data: {"choices":[{"text":" there","index":0,"logprobs":null,"finish_reason":null}],"created":1790000000,"model":"gpt-3.5-turbo","object":"text_completion","id":"chatcmpl-x"}

data: {"choices":[{"text":"","index":0,"logprobs":null,"finish_reason":"stop"}],"created":1790000000,"model":"gpt-3.5-turbo","object":"text_completion","usage":{"completion_tokens":2,"prompt_tokens":3,"total_tokens":5},"id":"chatcmpl-x"}

data: [DONE]

""",
        [Token(" there"), Usage(3, 2, 5), Finish("stop")],
    ),
    "one document": Recorded(
        b'{"id":"cmpl-2","object":"text_completion","choices":[{"text":" there","index":0,"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}',
        [Token(" there"), Usage(3, 1, 4), Finish("stop")],
    ),
    "an error": Recorded(
        b'data: {"choices":[{"text":" a","index":0}]}\n\ndata: {"error":{"message":"engine died","code":500}}\n\ndata: [DONE]\n\n',
        [Token(" a")],
        "engine died",
    ),
}


COMPLETIONS = TriedKind(
    name="completions",
    serve=lambda: Upstream(wire=CompletionsServerWire()),
    can=frozenset(
        (
            *("max_tokens", "stop", "params", "usage"),
            *("continuation", "status", "errors", "lines"),
        )
    ),
    reader=reader,
    streams=STREAMS,
)
