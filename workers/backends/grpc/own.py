"""The protocol `tailrace`: proto/tailrace/backend/v1/backend.proto. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
from google.protobuf.message import DecodeError

from shared.config.models import Model
from shared.errors import BackendError
from shared.log.events import Reasoning, Token
from shared.log.request import Request
from workers.backends.contract import BackendItem
from workers.backends.grpc.ending import end_answer
from workers.backends.grpc.generated import backend_pb2 as wire
from workers.backends.reading.parts import refused
from workers.backends.reading.tools import Fragment, ToolCalls
from workers.backends.reading.usage import UsageCounter
from workers.backends.token_limits import token_limit

RESERVED = ("model", "messages", "stream", "stream_options", "n")
INT64 = range(-(2**63), 2**63)


class TailraceProtocol:
    """See `GrpcProtocol`."""

    method = "/tailrace.backend.v1.Backend/Generate"
    is_two_way = False

    def __init__(self, model: Model) -> None:
        self._model = model

    def encode(self, request: Request, prefix: str, seed: str) -> bytes:
        """Return the request. A partial answer is its last message."""
        messages = list(request.messages)
        if prefix:
            messages.append({"role": "assistant", "content": prefix})
        given = {name: value for name, value in request.params.items() if name not in RESERVED}
        params = self._model.rules.apply(given)
        asked = wire.GenerateRequest(
            model=self._model.upstream_name,
            messages=[_message(message) for message in messages],
            params_json=msgspec.json.encode(params).decode(),
            continue_last_message=bool(prefix),
            stop=_stops(params.get("stop")),
        )
        for name, value in (("max_tokens", token_limit(params)), ("seed", params.get("seed"))):
            if value is not None:
                setattr(asked, name, _whole(value, name))
        for name in ("temperature", "top_p"):
            if (value := params.get(name)) is not None:
                setattr(asked, name, _number(value, name))
        message: bytes = asked.SerializeToString()
        return message

    def reader(self, seed: str) -> OwnReader:
        return OwnReader(seed)


class OwnReader:
    """See `ProtocolReader`."""

    def __init__(self, seed: str) -> None:
        self.is_done = False
        self._tools = ToolCalls(seed)
        self._usage = UsageCounter()

    def feed(self, message: bytes) -> list[BackendItem]:
        try:
            read = wire.GenerateResponse.FromString(message)
        except DecodeError as exc:
            raise unreadable("tailrace.backend.v1.GenerateResponse") from exc
        match read.WhichOneof("event"):
            case "text":
                return [Token(read.text)] if read.text else []
            case "reasoning":
                return [Reasoning(read.reasoning)] if read.reasoning else []
            case "tool_call":
                call = read.tool_call
                fragment = Fragment(call.index, call.id, call.name, call.arguments)
                return [*self._tools.read(fragment)]
            case "finish":
                self.is_done = True
                if read.finish.HasField("usage"):
                    self._usage.add(_counts(read.finish.usage))
                return end_answer(read.finish.reason, self._tools, self._usage)
        return []  # an event of a newer server


def unreadable(name: str) -> BackendError:
    """Return the failure for a message that cannot be read."""
    return BackendError("upstream_error", f"the backend sent a message that is no {name}")


def _message(message: dict[str, Any]) -> wire.Message:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    text = content if isinstance(content, str) else "\n".join(t for t in texts if type(t) is str)
    raw = msgspec.json.encode(message).decode()
    return wire.Message(role=str(message.get("role", "user")), text=text, json=raw)


def _counts(usage: wire.Usage) -> dict[str, Any]:
    counts: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
    }
    if usage.HasField("cached_tokens"):
        counts["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.HasField("reasoning_tokens"):
        counts["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return counts


def _stops(value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise refused("stop must be a string or a list of strings", "stop")
    return stops


def _whole(value: Any, name: str) -> int:
    if type(value) is not int or value not in INT64:
        raise refused(f"{name} must be a whole number", name)
    return value


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refused(f"{name} must be a number", name)
    return float(value)
