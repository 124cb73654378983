"""The kind `gemini` in the common suite, and its scripted server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from shared.config.settings import Settings
from tests.support.gemini_streams import ALL
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
from workers.backends.gemini.reader import GenerateContentReader

_REASONS = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP"}
_NAMES = {"stop": "stopSequences", "top_p": "topP"}


class GenerateContentServerWire(PlannedWire):
    """Gemini's `streamGenerateContent`, as the vendor's server writes it and refuses requests."""

    path = ":streamGenerateContent?alt=sse"

    def limit(self, body: dict[str, Any]) -> int | None:
        limit = body.get("generationConfig", {}).get("maxOutputTokens")
        return None if limit is None else int(limit)

    def read(self, body: dict[str, Any]) -> ReadRequest:
        prompt, has_result, is_refused = "", False, False
        for content in body["contents"]:
            parts = content["parts"]
            if content["role"] == "user":
                texts = [part["text"] for part in parts if "text" in part]
                has_result = any("functionResponse" in part for part in parts)
                prompt = texts[-1] if texts else prompt
                continue
            calls = [part for part in parts if "functionCall" in part]
            names = [signature_of(part["functionCall"]["name"]) for part in calls]
            if calls and calls[0].get("thoughtSignature") != names[0]:
                is_refused = True
        last = body["contents"][-1]
        prefix = last["parts"][-1].get("text", "") if last["role"] == "model" else ""
        return ReadRequest(prompt, prefix, has_result, is_refused)

    def error(self, message: str, kind: str = "server_error") -> bytes:
        error = {"code": 500, "message": message, "status": "INTERNAL"}
        return msgspec.json.encode([{"error": error}])

    def frames(self, body: dict[str, Any], plan: Iterator[Part]) -> Iterator[Step]:
        for part in plan:
            match part:
                case Pause() | Cut():
                    yield part
                case Broken(kind):
                    yield self._broken(kind)
                case Text(text):
                    yield _response([{"text": text}])
                case Thought(text):
                    yield _response([{"text": text, "thought": True}])
                case ToolUse(name, arguments):
                    args = msgspec.json.decode("".join(arguments))
                    call = {"name": name, "args": args}
                    signature = signature_of(name)
                    yield _response([{"functionCall": call, "thoughtSignature": signature}])
                case Done(reason, texts, thoughts):
                    usage = {
                        "promptTokenCount": 7,
                        "cachedContentTokenCount": CACHED,
                        "candidatesTokenCount": texts,
                        "thoughtsTokenCount": thoughts,
                        "totalTokenCount": 7 + texts + thoughts,
                    }
                    yield _response([{"text": ""}], _REASONS.get(reason, reason), usage)

    def _broken(self, kind: str) -> bytes:
        match kind:
            case "garbage":
                return b'data: {"candidates":[{"content":{"parts":[{"text":"\xff\xfe"}]}}]}\n\n'
            case "huge_line":
                return HUGE
        message = "the upstream broke as told"
        return frame({"error": {"code": 500, "message": message, "status": "INTERNAL"}})


def _response(
    parts: list[dict[str, Any]], reason: str = "", usage: dict[str, int] | None = None
) -> bytes:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if reason:
        candidate["finishReason"] = reason
    response = {"candidates": [candidate], "modelVersion": "gemini-3.8-flash", "responseId": "r"}
    return frame({**response, "usageMetadata": usage} if usage else response)


def serve() -> Upstream:
    return Upstream(wire=GenerateContentServerWire())


def in_body(body: dict[str, Any], name: str) -> Any:
    config = body.get("generationConfig", {})
    return config.get(_NAMES.get(name, name), body.get(name))


def pictures(body: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (part["inlineData"]["mimeType"], part["inlineData"]["data"])
        for content in body["contents"]
        for part in content["parts"]
        if "inlineData" in part
    ]


def reader(settings: Settings) -> GenerateContentReader:
    return GenerateContentReader(
        line_bytes_max=settings.upstream_line_bytes_max,
        body_bytes_max=settings.answer_bytes_max,
        seed="s",
    )


GEMINI = TriedKind(
    name="gemini",
    serve=serve,
    can=frozenset(
        (
            *("reasoning", "tools", "pictures", "max_tokens", "stop", "params", "usage"),
            *("continuation", "status", "errors", "lines"),
        )
    ),
    in_body=in_body,
    pictures=pictures,
    reader=reader,
    streams=ALL,
)
