"""The kind `anthropic` in the common suite, and its scripted server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from shared.config.settings import Settings
from tests.support.anthropic_streams import ALL
from tests.support.kinds.kind import TriedKind
from tests.support.kinds.planned_wire import (
    CACHED,
    HUGE,
    Broken,
    Cut,
    Done,
    Part,
    Pause,
    PlannedWire,
    ReadRequest,
    Step,
    Text,
    Thought,
    ToolUse,
    frame,
    signature_of,
)
from tests.support.upstream import Upstream
from workers.backends.anthropic.reader import MessagesReader

_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_NAMES = {"stop": "stop_sequences"}


def blocks_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class MessagesServerWire(PlannedWire):
    """Anthropic's Messages, as the vendor's server writes them and refuses requests."""

    path = "/messages"

    def limit(self, body: dict[str, Any]) -> int | None:
        return int(body["max_tokens"])

    def read(self, body: dict[str, Any]) -> ReadRequest:
        prompt, has_result, is_refused = "", False, False
        thinks = body.get("thinking", {}).get("type") == "enabled"
        for message in body["messages"]:
            blocks = blocks_of(message)
            kinds = [block["type"] for block in blocks]
            if message["role"] == "user":
                texts = [block["text"] for block in blocks if block["type"] == "text"]
                has_result = "tool_result" in kinds
                prompt = texts[-1] if texts else prompt
                continue
            is_refused = is_refused or (thinks and "tool_use" in kinds and kinds[0] != "thinking")
            for block in blocks:
                if block["type"] == "thinking":
                    is_wrong = block["signature"] != signature_of(block["thinking"])
                    is_refused = is_refused or is_wrong
        last = body["messages"][-1]
        prefix = blocks_of(last)[-1]["text"] if last["role"] == "assistant" else ""
        return ReadRequest(prompt, prefix, has_result, is_refused)

    def error(self, message: str, kind: str = "server_error") -> bytes:
        names = {"server_error": "api_error"}
        error = {"type": names.get(kind, kind), "message": message}
        return msgspec.json.encode({"type": "error", "error": error, "request_id": "req_1"})

    def frames(self, body: dict[str, Any], plan: Iterator[Part]) -> Iterator[Step]:
        counts = {"input_tokens": 5, "cache_read_input_tokens": CACHED, "output_tokens": 1}
        message = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"],
            "content": [], "stop_reason": None, "stop_sequence": None, "usage": counts,
        }  # fmt: skip
        yield frame({"type": "message_start", "message": message}, "message_start")
        yield frame({"type": "ping"}, "ping")
        writer = _BlockWriter()
        for part in plan:
            match part:
                case Pause() | Cut():
                    yield part
                case Broken(kind):
                    yield self._broken(kind, writer)
                case Done(reason, texts, thoughts):
                    yield from writer.close()
                    word = _REASONS.get(reason, reason)
                    delta = {"stop_reason": word, "stop_sequence": None}
                    details = {"thinking_tokens": thoughts}
                    usage = {"output_tokens": texts + thoughts, "output_tokens_details": details}
                    end = {"type": "message_delta", "delta": delta, "usage": usage}
                    yield frame(end, "message_delta")
                    yield frame({"type": "message_stop"}, "message_stop")
                case _:
                    yield from writer.write(part)

    def _broken(self, kind: str, writer: _BlockWriter) -> bytes:
        match kind:
            case "garbage":
                return b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\xff\xfe"}}\n\n'  # noqa: E501
            case "huge_line":
                return HUGE
        error = {"type": "api_error", "message": "the upstream broke as told"}
        return frame({"type": "error", "error": error}, "error")


class _BlockWriter:
    """Puts the parts of an answer into content blocks."""

    def __init__(self) -> None:
        self._index = -1
        self._kind = ""
        self._thought = ""

    def write(self, part: Text | Thought | ToolUse) -> Iterator[bytes]:
        match part:
            case Text(text):
                yield from self._open({"type": "text", "text": ""})
                yield self._delta({"type": "text_delta", "text": text})
            case Thought(text):
                yield from self._open({"type": "thinking", "thinking": "", "signature": ""})
                self._thought += text
                yield self._delta({"type": "thinking_delta", "thinking": text})
            case ToolUse(name, arguments):
                yield from self.close()
                use = {"type": "tool_use", "id": f"toolu_{self._index + 1}", "name": name}
                yield from self._open({**use, "input": {}})
                for piece in arguments:
                    yield self._delta({"type": "input_json_delta", "partial_json": piece})

    def close(self) -> Iterator[bytes]:
        if self._kind == "thinking":
            signature = signature_of(self._thought)
            yield self._delta({"type": "signature_delta", "signature": signature})
            self._thought = ""
        if self._kind:
            self._kind = ""
            stop = {"type": "content_block_stop", "index": self._index}
            yield frame(stop, "content_block_stop")

    def _open(self, block: dict[str, Any]) -> Iterator[bytes]:
        if self._kind == block["type"] != "tool_use":
            return
        yield from self.close()
        self._kind = block["type"]
        self._index += 1
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        yield frame(start, "content_block_start")

    def _delta(self, delta: dict[str, Any]) -> bytes:
        event = {"type": "content_block_delta", "index": self._index, "delta": delta}
        return frame(event, "content_block_delta")


def serve() -> Upstream:
    return Upstream(wire=MessagesServerWire())


def pictures(body: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (block["source"]["media_type"], block["source"]["data"])
        for message in body["messages"]
        for block in blocks_of(message)
        if block["type"] == "image"
    ]


def reader(settings: Settings) -> MessagesReader:
    return MessagesReader(
        line_bytes_max=settings.upstream_line_bytes_max,
        body_bytes_max=settings.answer_bytes_max,
        seed="s",
    )


ANTHROPIC = TriedKind(
    name="anthropic",
    serve=serve,
    can=frozenset(
        (
            *("reasoning", "tools", "pictures", "max_tokens", "stop", "params", "usage"),
            *("continuation", "status", "errors", "lines"),
        )
    ),
    in_body=lambda body, name: body.get(_NAMES.get(name, name)),
    pictures=pictures,
    reader=reader,
    streams=ALL,
)
