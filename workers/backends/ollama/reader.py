"""Parses the stream of Ollama's `/api/chat`: JSON documents, one on each line.

    {"message":{"role","content","thinking"?,"tool_calls"?},"done":false}       a piece
    {"message":{…},"done":true,"done_reason","eval_count",…}                    the end
    {"error":"…"}                                                               a failure

Tool calls come whole, and their arguments are objects. `eval_count` has the tokens of the thinking.
Durations are in ns; `load_duration` is the time in which the server loaded the model. Pure.
Source: ollama/api/types.go, `ChatResponse`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.errors import BackendError
from shared.log.events import Extra, Reasoning, Token, ToolCall
from shared.log.extra import clean
from shared.text.surrogates import join_halves
from workers.backends.contract import BackendItem, Finish
from workers.backends.reading.failure import Address, failure_of
from workers.backends.reading.finish_reasons import Reason, reason_of
from workers.backends.reading.json_object import CHECKED_BYTES_MIN, read_object
from workers.backends.reading.line_reader import LineReader
from workers.backends.reading.ndjson_lines import NdjsonLines
from workers.backends.reading.usage import UsageCounter

ADDRESS = Address("/api/chat", "Ollama's has none: http://localhost:11434")
CUT = "the backend's answer broke off without a last line that says done"
TOOL_CALLS_MAX = 1_024  # of one answer
# The server answers so when it has only loaded or unloaded the model.
_NO_ANSWER = ("load", "unload")
_DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


# Values of a type that is not expected are skipped, except for the texts and `done`.
class _Message(msgspec.Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: Any = None


class _Piece(msgspec.Struct):
    message: _Message | None = None
    done: bool | None = None
    error: Any = None
    logprobs: Any = None


_decode = msgspec.json.Decoder(_Piece).decode


class OllamaReader(LineReader):
    """Reads one answer.

    Args:
        line_bytes_max: longest line of the stream, bytes.
        seed: part of the ids of tool calls that the server gives no id.
    """

    def __init__(self, *, line_bytes_max: int, seed: str = "") -> None:
        super().__init__(NdjsonLines(line_bytes_max), line_bytes_max, CUT)
        self._seed = seed
        self._calls = 0
        self._usage = UsageCounter()

    def take(self, event: bytes, items: list[BackendItem]) -> None:
        if not event.startswith(b"{"):
            raise failure_of(event, ADDRESS)
        piece = _read(event)
        if piece.error:
            raise failure_of(event, ADDRESS)
        if (message := piece.message) is not None:
            if message.thinking:
                items.append(Reasoning(message.thinking))
            if message.content:
                items.append(Token(message.content))
            if message.tool_calls:
                self._take_calls(message.tool_calls, items)
        if piece.logprobs:
            self._take_logprobs(piece.logprobs, items)
        if piece.done:
            self._take_last(event, items)

    def closing(self, items: list[BackendItem]) -> None:
        if (usage := self._usage.event()) is not None:
            items.append(usage)

    def finish(self, reason: Reason) -> Finish:
        outcome = "tool_calls" if self._calls and reason.outcome == "stop" else reason.outcome
        assert outcome != "failed"
        return Finish(outcome, "" if reason.is_known else reason.word)

    def _take_calls(self, calls: Any, items: list[BackendItem]) -> None:
        for call in calls if isinstance(calls, list) else [calls]:
            function = call.get("function") if isinstance(call, dict) else None
            name = function.get("name") if isinstance(function, dict) else None
            if not isinstance(function, dict) or not isinstance(name, str) or not name:
                raise BackendError("upstream_error", "the backend sent a tool call without a name")
            if self._calls == TOOL_CALLS_MAX:
                message = f"the backend sent more than {TOOL_CALLS_MAX} tool calls"
                raise BackendError("upstream_error", message, retryable=False)
            arguments = function.get("arguments")
            if not isinstance(arguments, str):
                arguments = msgspec.json.encode(clean(arguments or {})[0]).decode()
            given = call.get("id")
            made = f"call_{self._seed}_{self._calls}" if self._seed else f"call_{self._calls}"
            call_id = given if isinstance(given, str) and given else made
            items.append(ToolCall(self._calls, call_id, join_halves(name), arguments))
            self._calls += 1

    def _take_logprobs(self, logprobs: Any, items: list[BackendItem]) -> None:
        """Give the log probabilities in the form of OpenAI; the entries are the same."""
        items.append(Extra({"choice": {"logprobs": {"content": clean(logprobs)[0]}}}))

    def _take_last(self, line: bytes, items: list[BackendItem]) -> None:
        last = read_object(line)
        word = last.get("done_reason")
        if word in _NO_ANSWER:
            raise BackendError("upstream_error", f"the backend only did this: {word} the model")
        # Versions before 0.1.45 give no reason.
        self.note_reason(reason_of(word) or Reason("stop", "stop"))
        durations = {name: last[name] for name in _DURATIONS if isinstance(last.get(name), int)}
        counts = {
            "prompt_tokens": last.get("prompt_eval_count", 0),
            "completion_tokens": last.get("eval_count"),
        }
        if counts["completion_tokens"] is not None:
            self._usage.add(counts | durations)
        self.end(items)


def _read(line: bytes) -> _Piece:
    """Decode one line.

    Raises:
        BackendError: it is no JSON object, of another form, or has too many values.
    """
    if len(line) <= CHECKED_BYTES_MIN:
        try:
            return _decode(line)
        except ValueError:
            pass  # it may have NaN or a lone half of a character
    try:
        return msgspec.convert(read_object(line), _Piece)
    except ValueError as exc:
        raise BackendError("upstream_error", f"the backend sent broken data: {exc}") from exc
