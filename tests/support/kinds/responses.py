"""The kind `responses` in the common suite, and its scripted server.

The suite tries the kind without background mode, in which the end of a connection ends the answer.
tests/support/background_server.py has the mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from shared.config.model_request import RequestRules
from shared.config.settings import Settings
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
    signature_of,
)
from tests.support.responses_streams import (
    ALL,
    added,
    arguments_delta,
    done,
    message,
    output_text,
    response,
    summary_delta,
    text_delta,
)
from tests.support.upstream import Upstream
from workers.backends.responses.reader import ResponsesReader

Event = dict[str, Any]


class ResponsesServerWire(PlannedWire):
    """OpenAI's Responses, as the vendor's server writes them and refuses requests."""

    path = "POST /v1/responses"

    def limit(self, body: dict[str, Any]) -> int | None:
        limit = body.get("max_output_tokens")
        return None if limit is None else int(limit)

    def read(self, body: dict[str, Any]) -> ReadRequest:
        prompt, has_result, is_refused = "", False, False
        has_thought = False  # since the user's last words
        for item in body["input"]:
            kind = item.get("type", "message")
            if kind == "function_call":
                # Stricter than the vendor, whose answer only gets worse.
                is_refused = is_refused or not has_thought
            elif kind == "reasoning":
                has_thought = item["encrypted_content"] == signature_of("rs")
                is_refused = is_refused or not has_thought
            elif kind == "function_call_output":
                has_result = True
            elif item.get("role") == "user":
                has_result = has_thought = False
                content = item["content"]
                prompt = content if isinstance(content, str) else content[0]["text"]
        return ReadRequest(prompt, "", has_result, is_refused and "reasoning" in body)

    def error(self, message: str, kind: str = "server_error") -> bytes:
        error = {"message": message, "type": kind, "code": None, "param": None}
        return msgspec.json.encode({"error": error})

    def events(
        self, plan: Iterator[Part], head: dict[str, Any]
    ) -> Iterator[Event | Pause | Cut | Broken]:
        """Give the events of a response without their numbers.

        Args:
            head: members of each response object.
        """
        writer = _ItemWriter()
        yield {"type": "response.created", "response": response("in_progress", **head)}
        yield {"type": "response.in_progress", "response": response("in_progress", **head)}
        for part in plan:
            match part:
                case Pause() | Cut() | Broken():
                    yield part
                case Done(reason, texts, thoughts):
                    yield from writer.close()
                    yield _end(reason, _usage(texts, thoughts), head)
                case _:
                    yield from writer.write(part)

    def frames(self, body: dict[str, Any], plan: Iterator[Part]) -> Iterator[Step]:
        number = 0
        for step in self.events(plan, {"id": "resp_1", "background": False, "store": False}):
            match step:
                case Pause() | Cut():
                    yield step
                case Broken(kind):
                    yield broken(kind, number)
                case event:
                    yield numbered(event, number)
                    number += 1


def numbered(event: Event, number: int) -> bytes:
    """Return an event as it is written."""
    data = msgspec.json.encode({**event, "sequence_number": number})
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), data)


def broken(kind: str, number: int) -> bytes:
    match kind:
        case "garbage":
            return b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"\xff\xfe"}\n\n'  # noqa: E501
        case "huge_line":
            return HUGE
    error = {"code": "server_error", "message": "the upstream broke as told", "param": None}
    return numbered({"type": "error", **error}, number)


def _usage(texts: int, thoughts: int) -> dict[str, Any]:
    return {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": CACHED},
        "output_tokens": texts + thoughts,
        "output_tokens_details": {"reasoning_tokens": thoughts},
        "total_tokens": 7 + texts + thoughts,
    }


def _end(reason: str, usage: dict[str, Any], head: dict[str, Any]) -> Event:
    status = "incomplete" if reason == "length" else "completed"
    details = {"reason": "max_output_tokens"} if reason == "length" else None
    members = {**head, "usage": usage, "incomplete_details": details}
    return {"type": f"response.{status}", "response": response(status, **members)}


class _ItemWriter:
    """Puts the parts of an answer into items."""

    def __init__(self) -> None:
        self._index = -1
        self._kind = ""
        self._text = ""

    def write(self, part: Text | Thought | ToolUse) -> Iterator[Event]:
        match part:
            case Text(text):
                yield from self._open("message", message("in_progress"))
                self._text += text
                yield text_delta(self._index, text)
            case Thought(text):
                item = {"type": "reasoning", "id": "rs_1", "summary": []}
                yield from self._open("reasoning", item)
                yield summary_delta(text)
            case ToolUse(name, arguments):
                yield from self.close()
                self._index += 1
                item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": name}
                yield added(self._index, **item, arguments="", status="in_progress")
                for piece in arguments:
                    yield arguments_delta(self._index, "fc_1", piece)
                whole = "".join(arguments)
                yield done(self._index, **item, arguments=whole, status="completed")

    def close(self) -> Iterator[Event]:
        if self._kind == "message":
            yield done(self._index, **message("completed", output_text(self._text)))
        elif self._kind == "reasoning":
            item = {"type": "reasoning", "id": "rs_1", "summary": []}
            yield done(self._index, **item, encrypted_content=signature_of("rs"))
        self._kind = ""

    def _open(self, kind: str, item: Event) -> Iterator[Event]:
        if self._kind == kind:
            return
        yield from self.close()
        self._kind = kind
        self._index += 1
        yield added(self._index, **item)


def serve() -> Upstream:
    return Upstream(wire=ResponsesServerWire())


def pictures(body: dict[str, Any]) -> list[tuple[str, str]]:
    found = []
    for item in body["input"]:
        content = item.get("content")
        for part in content if isinstance(content, list) else []:
            if part["type"] == "input_image":
                media_type, _, data = part["image_url"].partition(";base64,")
                found.append((media_type.removeprefix("data:"), data))
    return found


def reader(settings: Settings) -> ResponsesReader:
    return ResponsesReader(
        line_bytes_max=settings.upstream_line_bytes_max,
        body_bytes_max=settings.answer_bytes_max,
        seed="s",
    )


RESPONSES = TriedKind(
    name="responses",
    serve=serve,
    members={"rules": RequestRules(set={"background": False, "store": False})},
    can=frozenset(
        (
            *("reasoning", "tools", "pictures", "max_tokens", "stop", "params", "usage"),
            *("status", "errors", "lines"),
        )
    ),
    pictures=pictures,
    reader=reader,
    streams=ALL,
)
