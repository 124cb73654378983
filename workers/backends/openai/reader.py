"""Parses the OpenAI chat stream as real servers send it: bytes in, events out.

Invariant: `Finish` comes only after a `finish_reason`, once and last. The first `error` in the
stream ends it; events after it are ignored. The result does not depend on how the bytes are cut.
Does no I/O, knows no clock, and does not know which server it reads. It accepts all known dialects:

    OpenAI      usage in a chunk with no choices; refusals; tool arguments in fragments
    vLLM        `reasoning` (before: `reasoning_content`); error and then [DONE]; running usage
    llama.cpp   a field named `error:`; usage in a chunk with choices
    OpenRouter  comments; finish_reason "error" beside an error object; usage after the finish
    Mistral     content as a list of parts; whole tool calls without an index
    any         one JSON document because `stream` was ignored

`[DONE]` without a `finish_reason` is a failure. Servers write `[DONE]` in a `finally` block, also
after a failed answer (vLLM and llama.cpp do), so it only means that nothing follows.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import msgspec

from shared.errors import BackendError
from shared.log.events import FinishReason, Reasoning, Token, Usage
from shared.text.json_values import VALUES_MAX, has_too_many_values
from workers.backends.contract import BackendItem, Finish
from workers.backends.openai.chunk_template import ChunkTemplate, learn
from workers.backends.openai.failure import failure_of
from workers.backends.openai.sse_lines import SseLines
from workers.backends.openai.tools import FunctionDelta, ToolCallDelta, ToolCalls

FINISHES: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos_token": "stop",
    "max_tokens": "length",
    "model_length": "length",
}
# Finish reasons of an answer that the server gave up: the text is incomplete.
FAILED_FINISHES = ("error", "abort", "cancelled", "insufficient_system_resource")
TOKENS_MAX = 2**52  # JavaScript can still represent the sum of two such counts exactly
NO_FINISH = (None, "", "null")  # some servers send the member in every chunk


# Members that are optional or differ between servers are Any: an odd value must not end an answer.
class _Delta(msgspec.Struct):
    content: Any = None
    reasoning: Any = None
    reasoning_content: Any = None
    refusal: Any = None
    tool_calls: list[ToolCallDelta] | None = None
    function_call: FunctionDelta | None = None


class _Choice(msgspec.Struct):
    index: int | None = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None
    error: Any = None


_ABSENT = msgspec.Raw()


# The parts of a chunk that `_Chunk` decodes; msgspec skips all others, for example `logprobs`.
class _RawChoice(msgspec.Struct):
    delta: msgspec.Raw = _ABSENT
    message: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT


class _RawChunk(msgspec.Struct):
    choices: list[_RawChoice] | None = None
    usage: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT
    object: msgspec.Raw = _ABSENT
    message: msgspec.Raw = _ABSENT


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    object: Any = None
    message: Any = None


TEMPLATES_MAX = 16  # learned per answer: then chunks that all differ are just decoded

CHECKED_BYTES_MIN = 4_096  # a smaller chunk cannot have too many values

_decode = msgspec.json.Decoder(_Chunk).decode
_decode_raw = msgspec.json.Decoder(_RawChunk).decode
_scan = msgspec.json.Decoder(msgspec.Raw).decode


class ChatReader:
    """Parses one answer.

    Args:
        line_bytes_max: longest line of the stream, bytes.
        body_bytes_max: longest answer that comes as one JSON document, bytes.

    Attributes:
        is_done: nothing more is parsed: `Finish` was returned, or `failure` is set.
        failure: raise it after the events returned so far have been passed on.
        has_finish_reason: the answer is complete; only usage or `[DONE]` may follow.
    """

    def __init__(self, *, line_bytes_max: int, body_bytes_max: int) -> None:
        self.is_done = False
        self.failure: BackendError | None = None
        self._lines = SseLines(line_bytes_max)
        self._line_bytes_max = line_bytes_max
        self._body_bytes_max = body_bytes_max
        self._has_begun = False
        self._body: bytearray | None = None  # set if the answer is one JSON document
        self._tools = ToolCalls()
        self._finish: Finish | None = None
        self._usage: Any = None
        self._template: ChunkTemplate | None = None
        self._templates_left = TEMPLATES_MAX

    @property
    def has_finish_reason(self) -> bool:
        return self._finish is not None

    def feed(self, data: bytes) -> list[BackendItem]:
        """Return the events that `data` completes, in order."""
        items: list[BackendItem] = []
        if self.is_done:
            return items
        if self._template is not None and self._lines.is_between_events(len(data)):
            text = self._template.text_of_event(data)
            if text is not None:  # the usual case
                items.append(Token(text))
                return items
        try:
            self._feed(data, items)
        except BackendError as failure:
            self._fail(failure)
        return items

    def feed_eof(self) -> list[BackendItem]:
        """Handle the end of the body: return the last events with `Finish`, or set `failure`."""
        items: list[BackendItem] = []
        if self.is_done:
            return items
        try:
            if self._body is not None:
                self._take(b"", bytes(self._body), items)
            else:
                self._read_unclosed(items)
            if not self.is_done:
                self._end(items, "the backend's answer broke off without a finish_reason")
        except BackendError as failure:
            self._fail(failure)
        return items

    def _fail(self, failure: BackendError) -> None:
        self.failure = failure
        self.is_done = True

    def _feed(self, data: bytes, items: list[BackendItem]) -> None:
        if not self._has_begun:
            data = data.lstrip()  # some servers send white space before the answer starts
            if not data:
                return
            self._has_begun = True
            # A line of an event stream never begins with a brace. Content types are less reliable.
            self._body = bytearray() if data.startswith(b"{") else None
        if self._body is not None:
            self._body += data
            if len(self._body) > self._body_bytes_max:
                raise BackendError(
                    "answer_too_large",
                    f"the answer is longer than {self._body_bytes_max} bytes",
                    retryable=False,
                )
            return
        for name, payload in self._lines.feed(data):
            self._take(name, payload, items)
            if self.is_done:
                return
        if self._lines.is_too_long:
            raise BackendError(
                "upstream_error",
                f"the backend sent a line of more than {self._line_bytes_max} bytes",
                retryable=False,  # the server would send the same line again
            )

    def _read_unclosed(self, items: list[BackendItem]) -> None:
        """Parse the last event, which no blank line closed.

        After the finish reason an incomplete event is ignored.
        """
        for name, payload in self._lines.feed_eof():
            if self._finish is None or _is_json(payload):
                self._take(name, payload, items)

    def _take(self, name: bytes, payload: bytes, items: list[BackendItem]) -> None:
        """Turn the data of one SSE event into items."""
        if not payload.startswith(b"{"):
            payload = payload.strip()
            if payload == b"[DONE]":
                self._end(items, "the backend said [DONE] without a finish_reason")
                return
            if not payload:
                return
        if name == b"error":
            raise failure_of(payload)
        if self._template is not None:
            text = self._template.text_of(payload)
            if text is not None:
                items.append(Token(text))
                return
        chunk = _read_chunk(payload)
        if chunk.error or chunk.object == "error":
            raise failure_of(payload)
        if chunk.usage:
            self._usage = chunk.usage  # running counts: the last one is final
        elif self._templates_left and (text := _only_text(chunk)):
            self._templates_left -= 1
            self._template = learn(payload, text)
        for choice in chunk.choices or ():
            if not choice.index:  # if a server gives several answers, only the first counts
                self._take_choice(choice, payload, items)

    def _take_choice(self, choice: _Choice, payload: bytes, items: list[BackendItem]) -> None:
        delta = choice.delta or choice.message
        if delta is not None:
            self._take_delta(delta, items)
        if choice.error:
            raise failure_of(payload)
        reason = choice.finish_reason
        if reason in NO_FINISH:
            return
        assert reason is not None
        if reason in FAILED_FINISHES:
            raise BackendError("upstream_error", f"the backend gave up: finish_reason {reason!r}")
        log_reason = FINISHES.get(reason)
        self._finish = Finish(log_reason) if log_reason else Finish("stop", reason[:100])

    def _take_delta(self, delta: _Delta, items: list[BackendItem]) -> None:
        # Some vLLM versions send the same reasoning under both names.
        reasoning = delta.reasoning or delta.reasoning_content
        if reasoning and isinstance(reasoning, str):
            items.append(Reasoning(reasoning))
        content = delta.content
        if content:
            if isinstance(content, str):
                items.append(Token(content))
            elif isinstance(content, list):
                _take_parts(content, items)
        if delta.refusal and isinstance(delta.refusal, str):
            items.append(Token(delta.refusal))
        if delta.tool_calls:
            items.extend(self._tools.read(call) for call in delta.tool_calls)
        if delta.function_call:
            items.append(self._tools.read(ToolCallDelta(index=0, function=delta.function_call)))

    def _end(self, items: list[BackendItem], message: str) -> None:
        """Add usage and `Finish`. Without a finish reason, raise BackendError with `message`."""
        if self._finish is None:
            raise BackendError("upstream_error", message)
        usage = _read_usage(self._usage)
        if usage is not None:
            items.append(usage)
        items.append(self._finish)
        self.is_done = True


def _read_chunk(payload: bytes) -> _Chunk:
    try:
        if not payload.isascii():
            payload.decode()  # msgspec does not check the members that it skips
        if len(payload) > CHECKED_BYTES_MIN and has_too_many_values(payload):
            _check_values(_decode_raw(payload))
        return _decode(payload)
    except (ValueError, RecursionError) as exc:  # msgspec's errors are ValueErrors
        raise BackendError("upstream_error", f"the backend sent broken data: {exc}") from exc


def _check_values(chunk: _RawChunk) -> None:
    """Refuse a chunk whose decoding would block the other runs of this worker for too long.

    Raises:
        BackendError: the decoded parts have more than `VALUES_MAX` values.
    """
    parts = [chunk.usage, chunk.error, chunk.object, chunk.message]
    for choice in chunk.choices or ():
        parts += [choice.delta, choice.message, choice.error]
    if has_too_many_values(b",".join(map(bytes, parts))):
        message = f"the backend sent a chunk of more than {VALUES_MAX} values"
        raise BackendError("upstream_error", message, retryable=False)


def _only_text(chunk: _Chunk) -> str | None:
    """Return the text of a chunk that holds only text; None for any other chunk."""
    if chunk.choices is None or len(chunk.choices) != 1:
        return None
    (choice,) = chunk.choices
    delta = choice.delta
    if choice.index or delta is None or choice.message is not None:
        return None
    if choice.error or choice.finish_reason not in NO_FINISH:
        return None
    others = (
        delta.reasoning, delta.reasoning_content, delta.refusal, delta.tool_calls,
        delta.function_call,
    )  # fmt: skip
    return delta.content if isinstance(delta.content, str) and not any(others) else None


def _is_json(payload: bytes) -> bool:
    try:
        _scan(payload)
    except (ValueError, RecursionError):
        return False
    return True


def _take_parts(parts: list[Any], items: list[BackendItem]) -> None:
    """Read content that is a list of parts: text, and with Mistral also reasoning."""
    for part in parts:
        if not isinstance(part, dict):
            continue
        if (text := part.get("text")) and isinstance(text, str):
            items.append(Token(text))
        thinking = part.get("thinking")
        if isinstance(thinking, list):
            _take_thinking(thinking, items)


def _take_thinking(parts: list[Any], items: list[BackendItem]) -> None:
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    items.extend(Reasoning(text) for text in texts if text and isinstance(text, str))


def _read_usage(raw: Any) -> Usage | None:
    """Return the token counts; None if the member has another shape."""
    if not isinstance(raw, dict):
        return None
    prompt, completion = raw.get("prompt_tokens"), raw.get("completion_tokens", 0)
    if not _is_count(prompt) or not _is_count(completion):
        return None
    total = raw.get("total_tokens")
    return Usage(prompt, completion, total if _is_count(total) else prompt + completion)


def _is_count(value: Any) -> TypeGuard[int]:
    """Whether `value` can be a number of tokens that every client can represent."""
    return type(value) is int and 0 <= value <= TOKENS_MAX
