"""Parses the stream of OpenAI's Responses: bytes in, events out.

    response.created, .queued, .in_progress           the id of the response, and its mode
    response.output_text.delta, .refusal.delta        the answer
    response.reasoning_summary_text.delta, …          the reasoning
    response.function_call_arguments.delta            a tool call, whose item came before
    response.output_item.done                         encrypted reasoning, pictures, other items
    response.completed, .incomplete, .failed          the end, with the counts; no `[DONE]`
    error                                             ends the answer

Each event has a `sequence_number`. After a broken connection the worker reads the rest over another
connection; events that were read before are ignored. Does no I/O and knows no clock.
Source: developers.openai.com, "Streaming events", "Background mode".
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.errors import BackendError
from shared.log.events import Token, ToolCall, Upstream, Usage
from shared.log.extra import is_empty
from workers.backends.contract import BackendItem
from workers.backends.reading.event_reader import EventReader, as_object, decode_event
from workers.backends.reading.failure import failure_of
from workers.backends.reading.sse_lines import SseLines
from workers.backends.reading.usage import UsageCounter
from workers.backends.vendor.kept_thoughts import ENCRYPTED, RESPONSES, Place, detail

PARTS_APART = "\n\n"  # between two messages, or two parts of a summary, of one answer
_DETAILS = {
    "input_tokens_details": "prompt_tokens_details",
    "output_tokens_details": "completion_tokens_details",
}
_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
# Events that hold the whole response: only a few members are decoded.
_BEGUN = ("response.created", "response.queued", "response.in_progress")
_WHOLE = (b"created", b"queued", b"in_progress", b"completed", b"incomplete", b"failed")


class _Response(msgspec.Struct):
    """The members of a response that are read; its items have come before."""

    id: str | None = None
    status: str | None = None
    background: bool | None = None
    service_tier: str | None = None
    usage: Any = None
    error: Any = None
    incomplete_details: Any = None


class _Whole(msgspec.Struct):
    response: _Response
    type: str = ""
    sequence_number: int = -1


class _Document(_Response):
    """A response that is no stream."""

    object: str = ""
    output: list[Any] = []


_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_document = msgspec.json.Decoder(_Document).decode


class _Call:
    """One tool call that is open."""

    __slots__ = ("has_input", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.has_input = False


class ResponsesReader(EventReader):
    """Parses one answer.

    Args:
        may_resume: the caller can give the rest over another connection: then the end of a body
            before the end of the response is no failure, but `is_cut`.

    Attributes:
        response_id: of the response at the server; empty: not known yet.
        is_background: the server goes on with the response after a disconnect.
        is_over: the server has ended the response, well or not.
        is_cut: the body has ended before the response.
        sequence: the number of the last event that was read; -1: none.
    """

    def __init__(
        self, *, line_bytes_max: int, body_bytes_max: int, seed: str = "", may_resume: bool = False
    ) -> None:
        super().__init__(line_bytes_max=line_bytes_max, body_bytes_max=body_bytes_max, seed=seed)
        self.response_id = ""
        self.is_background = self.is_over = self.is_cut = self._is_named = False
        self.sequence = -1
        self._may_resume = may_resume
        self._usage = UsageCounter()
        self._open: dict[Any, _Call] = {}  # by output index
        self._places: dict[Any, Place] = {}  # of reasoning items
        self._has_refused = self._has_reasoned = False

    @property
    def can_resume(self) -> bool:
        """Whether another connection can give the missing events."""
        return bool(
            self._may_resume and self.is_background and self.response_id and self.sequence >= 0
        ) and not (self.is_over or self.is_done)

    @property
    def has_content(self) -> bool:
        """Whether a part of the answer has come."""
        return self._opening.has_choice

    def resume(self) -> None:
        """Forget the line that a broken connection has cut: another connection sends it again."""
        self.is_cut = False
        self._lines = SseLines(self._line_bytes_max)

    def feed_eof(self) -> list[BackendItem]:
        """Handle the end of the body. If another connection can give the rest, set `is_cut`."""
        self.is_cut = self.can_resume
        return [] if self.is_cut else super().feed_eof()

    def _usage_event(self) -> Usage | None:
        return self._usage.event()

    def _is_too_large(self, name: bytes, payload: bytes) -> bool:
        is_whole = name.removeprefix(b"response.") in _WHOLE
        return not is_whole and super()._is_too_large(name, payload)

    def _take(self, name: bytes, event: bytes, items: list[BackendItem]) -> None:
        kind = name.decode("latin-1")
        if name.removeprefix(b"response.") in _WHOLE:
            whole = _read_whole(event)
            if self._is_new(whole.sequence_number):
                self._take_whole(whole.type or kind, whole.response, items)
            return
        found = decode_event(event)
        kind = found.get("type") or kind
        if kind == "error" or (found.get("error") and not kind.startswith("response.")):
            self.is_over = True
            raise failure_of(event)
        if not self._is_new(found.get("sequence_number")):
            return
        if kind == "response.output_text.delta":  # the usual case
            if logprobs := found.get("logprobs"):
                self._note("choice", {"logprobs": {"content": logprobs}})
            self._say(found.get("delta"), items)
        elif kind.removeprefix("response.").encode() in _WHOLE:  # without a name
            self._take_whole(kind, _read_whole(event).response, items)
        else:
            self._take_other(kind, found, items)

    def _is_new(self, sequence: Any) -> bool:
        """Note the number of an event; return whether the event has not come before."""
        if type(sequence) is not int or sequence < 0:
            return True
        if sequence <= self.sequence:
            return False
        self.sequence = sequence
        return True

    def _take_other(self, kind: str, event: dict[str, Any], items: list[BackendItem]) -> None:
        index, delta = event.get("output_index"), event.get("delta")
        match kind:
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                self._has_reasoned = True
                self._think(delta, items)
            case "response.reasoning_summary_part.added":
                if self._has_reasoned:
                    self._think(PARTS_APART, items)
            case "response.refusal.delta":
                self._refuse(delta, items)
            case "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta":
                self._add_input(index, delta, items)
            case "response.output_item.added":
                self._begin_item(index, as_object(event.get("item")), items)
            case "response.output_item.done":
                self._end_item(index, as_object(event.get("item")), items)
            case "response.output_text.annotation.added":
                self._give_extra({"annotations": [event.get("annotation")]}, items)
            case _:
                pass  # a part of an item that comes whole, or an event newer than this reader

    def _refuse(self, text: Any, items: list[BackendItem]) -> None:
        if isinstance(text, str) and text:
            self._has_refused = True
            refusal = self._cleaned(text)
            self._opening.note_choice()
            items.append(Token(refusal, {"delta": {"refusal": refusal}}))

    # Items

    def _begin_item(self, index: Any, item: dict[str, Any], items: list[BackendItem]) -> None:
        kind = item.get("type")
        if kind == "message" and self._text_chars:
            self._say(PARTS_APART, items)
        elif kind == "reasoning":
            self._places[index] = Place(self._text_chars, self._calls)
            if self._has_reasoned:
                self._think(PARTS_APART, items)
                self._has_reasoned = False
        elif kind in _CALLS:
            self._begin_call(index, item, items)

    def _begin_call(self, index: Any, item: dict[str, Any], items: list[BackendItem]) -> _Call:
        call = self._open[index] = _Call(self._calls)
        self._calls += 1
        call_id = item.get("call_id")
        if not isinstance(call_id, str) or not call_id:
            call_id = f"call_{self._seed}_{call.number}"
        known = ("id", "type", "status", "call_id", "name", "arguments", "input")
        extra = {n: v for n, v in item.items() if n not in known and not is_empty(v)}
        if item.get("type") == "custom_tool_call":
            extra["type"] = "custom"
        name = self._cleaned(str(item.get("name") or ""))
        items.append(
            ToolCall(call.number, self._cleaned(call_id), name, "", self._cleaned(extra) or None)
        )
        self._opening.note_choice()
        return call

    def _add_input(self, index: Any, piece: Any, items: list[BackendItem]) -> None:
        call = self._open.get(index)
        if call is None or not isinstance(piece, str):
            return
        if whole := self._halves.join(("arguments", call.number), piece):
            call.has_input = True
            items.append(ToolCall(call.number, arguments=whole))

    def _end_item(self, index: Any, item: dict[str, Any], items: list[BackendItem]) -> None:
        kind = item.get("type")
        if kind in _CALLS:
            call = self._open.pop(index, None) or self._begin_call(index, item, items)
            self._open.pop(index, None)
            if not call.has_input and (whole := item.get(_CALLS[kind])):
                items.append(ToolCall(call.number, arguments=self._cleaned(str(whole))))
        elif kind == "reasoning":
            self._keep_reasoning(index, item, items)
        elif kind == "image_generation_call" and isinstance(item.get("result"), str):
            form = item.get("output_format") or "png"
            url = f"data:image/{form};base64,{item['result']}"
            self._give_extra({"images": [{"type": "image_url", "image_url": {"url": url}}]}, items)
        elif kind != "message" and item:
            self._give_extra({"output_items": [item]}, items)

    def _keep_reasoning(self, index: Any, item: dict[str, Any], items: list[BackendItem]) -> None:
        place = self._places.pop(index, Place(self._text_chars, self._calls))
        data = item.get("encrypted_content")
        if isinstance(data, str) and data:
            kept = detail(RESPONSES, place, type=ENCRYPTED, id=item.get("id"), data=data)
            self._give_extra(kept, items)

    # The response

    def _take_whole(self, kind: str, response: _Response, items: list[BackendItem]) -> None:
        self.response_id = response.id or self.response_id
        if response.background is not None:
            self.is_background = response.background
        if kind in _BEGUN:
            if self.is_background and self.response_id and not self._is_named:
                self._is_named = True
                items.append(Upstream(self.response_id))
            return
        self.is_over = response.status not in ("queued", "in_progress")
        self._add_usage(response.usage)
        if response.service_tier:
            self._note("chunk", {"service_tier": response.service_tier})
        self._close(response)
        self._end(items)

    def _close(self, response: _Response) -> None:
        """Note why the response has ended.

        Raises:
            BackendError: the response has failed, or was cancelled at the server.
        """
        if response.status == "failed":
            raise failure_of(msgspec.json.encode({"error": self._cleaned(response.error) or {}}))
        if response.status == "cancelled":
            raise BackendError("upstream_error", "the backend has cancelled the response")
        if response.status in ("queued", "in_progress"):
            raise BackendError("upstream_error", "the backend's answer is not complete yet")
        if response.status == "incomplete":
            self._conclude_with(as_object(response.incomplete_details).get("reason") or "length")
        elif self._has_refused:
            self._conclude_with("refusal")
        else:
            self._conclude_with("tool_calls" if self._calls else "stop")

    def _add_usage(self, raw: Any) -> None:
        if isinstance(raw, dict):
            self._usage.add({_DETAILS.get(name, name): value for name, value in raw.items()})

    def _take_document(self, document: bytes, items: list[BackendItem]) -> None:
        """Read the whole response of a server that does not stream."""
        try:
            response = _decode_document(document)
        except (ValueError, RecursionError):
            response = _Document()
        if response.object != "response":
            raise failure_of(document)
        for index, value in enumerate(response.output):
            item = as_object(value)
            self._begin_item(index, item, items)
            for part in item.get("summary") or item.get("content") or ():
                self._take_part(as_object(part), items)
            self._end_item(index, item, items)
        self._take_whole("", response, items)

    def _take_part(self, part: dict[str, Any], items: list[BackendItem]) -> None:
        match part.get("type"):
            case "output_text":
                self._say(part.get("text"), items)
                if annotations := part.get("annotations"):
                    self._give_extra({"annotations": annotations}, items)
            case "refusal":
                self._refuse(part.get("refusal"), items)
            case "summary_text" | "reasoning_text":
                self._think(part.get("text"), items)


def _read_whole(event: bytes) -> _Whole:
    try:
        return _decode_whole(event)
    except msgspec.ValidationError as exc:
        raise ValueError(str(exc)) from exc
    except ValueError:  # lone halves of pairs, NaN
        return msgspec.convert(decode_event(event), _Whole)
