r"""OpenAI's Responses: the log as numbered events, and as one response object.

    event: response.output_text.delta LF
    data: {"type":"response.output_text.delta","sequence_number":7,"item_id":"msg_…",
           "output_index":0,"content_index":0,"delta":" Hello","logprobs":[]} LF LF

`sequence_number` counts the frames from 0. `response.created` and `response.queued` are counted
too, although they leave before any entry exists; so the numbers are the same on every node.
Invariants: every item that was added is done before the last event, and no index of `output` is
used twice. A `reset` ends the open items as incomplete; the answer goes on in new items, and only
the new items are in the final `output`. A text that was cut short gets no `…text.done`, because
OpenAI's helpers parse the text of that event as a complete document.
Source: docs/protocol.md, "Responses".
"""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from api.dialects.failure import GENERATION_FAILED, shown
from api.dialects.openai_errors import failure_object
from api.dialects.responses.refusal import refusal_of
from api.dialects.responses.response_object import (
    CALL,
    CUSTOM_CALL,
    CUSTOM_TOOLS,
    MESSAGE,
    NAMESPACED,
    REASONING,
    REFUSAL,
    SUMMARY_TEXT,
    OutputItem,
    response_head,
    usage_object,
)
from shared.log.event_bytes import DELETED, LOST, plain_text
from shared.log.events import (
    AnyEvent,
    Counts,
    End,
    Extra,
    Failure,
    Reasoning,
    Reset,
    Start,
    Token,
    ToolCall,
    Usage,
    decode,
    decode_known,
)
from shared.log.extra import ExtraSoFar, merge, take_kept
from shared.log.fold import ByteFold, Dialect
from shared.log.ids import GENERATION_PREFIX, EventId
from shared.log.records import Meta
from shared.log.request import dialect_of

_DELTAS = {
    MESSAGE: "response.output_text.delta",
    REFUSAL: "response.refusal.delta",
    REASONING: "response.reasoning_text.delta",
    SUMMARY_TEXT: "response.reasoning_summary_text.delta",
    CALL: "response.function_call_arguments.delta",
    CUSTOM_CALL: "response.custom_tool_call_input.delta",
}
# By finish reason: why OpenAI calls a completed answer incomplete.
_INCOMPLETE_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}
_UNFINISHED = {"queued": "queued", "running": "in_progress"}


def ended_status(status: str, finish_reason: str) -> str:
    """Return the status of a response whose generation ended so."""
    is_incomplete = status == "completed" and finish_reason in _INCOMPLETE_REASONS
    return "incomplete" if is_incomplete else status


def status_of(meta: Meta) -> str:
    """Return the status of a response, as far as the meta of its generation knows it."""
    end = decode_known(meta.end) if meta.end else None
    finish_reason = end.finish_reason if isinstance(end, End) else ""
    return _UNFINISHED.get(meta.status) or ended_status(meta.status, finish_reason)


class ResponsesFold(ByteFold):
    """One response as server-sent events."""

    def __init__(self, meta: Meta) -> None:
        self._head = response_head(meta)
        self._custom = frozenset(dialect_of(meta).get(CUSTOM_TOOLS, ()))
        self._namespaced = dialect_of(meta).get(NAMESPACED, {})
        is_summarized = self._head["reasoning"]["summary"] is not None
        self._reasoning_kind = SUMMARY_TEXT if is_summarized else REASONING
        self._id_part = meta.generation_id.removeprefix(GENERATION_PREFIX)
        self._status = "queued"
        self._items: list[OutputItem] = []  # since the last reset
        self._next_index = 0
        self._open_text: OutputItem | None = None  # the open item that is no call
        # The tool calls, by index. They stay open until the end: their pieces may be interleaved.
        self._calls: dict[int, OutputItem] = {}
        self._usage: Usage | Counts | None = None
        self._extra = ExtraSoFar()
        self.end: End | None = None

    def response(self) -> dict[str, Any]:
        """Return the response object after the entries that were added."""
        failure = reason = None
        if self.end is not None:
            reason = _INCOMPLETE_REASONS.get(self.end.finish_reason)
            if self.end.status == "failed":
                failure = shown(self.end.error or GENERATION_FAILED)
        return {
            **self._head,
            "status": self._status,
            "error": {"code": failure.code, "message": failure.message} if failure else None,
            "incomplete_details": {"reason": reason} if self._status == "incomplete" else None,
            "output": [item.members() for item in self._items],
            "usage": usage_object(self._usage) if self._usage is not None else None,
            **({"extra": extra} if (extra := self._extra.value) else {}),
        }

    def opening(self) -> bytes:
        return self._frame("response.created", {"response": self.response()}) + self._frame(
            "response.queued", {"response": self.response()}
        )

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        text = plain_text(raw)
        if text is not None:
            return self._text_frames(MESSAGE, text) if text else b""
        event, refusal = decode_known(raw), refusal_of(raw)
        frames = b""
        if refusal:
            if isinstance(event, Token):  # the text of the event is the refusal, or ends with it
                before = event.text.removesuffix(refusal)
                frames = self._add(msgspec.structs.replace(event, text=before))
                event = None
            frames += self._text_frames(REFUSAL, _json_string_inside(refusal))
        return frames if event is None else frames + self._add(event)

    def _add(self, event: AnyEvent) -> bytes:
        kept: list[Any] = []
        if isinstance(event, Token | Reasoning | Extra | End) and event.extra:
            kept, rest = take_kept(event.extra)
            self._extra.add(rest)
        frames = self._add_content(event)
        # With a text come the pieces of a thought that goes on (OpenRouter).
        return frames + self._keep(kept, is_end=isinstance(event, Extra)) if kept else frames

    def _add_content(self, event: AnyEvent) -> bytes:
        match event:
            case Start() if self._status == "queued":
                self._status = "in_progress"
                return self._frame("response.in_progress", {"response": self.response()})
            case Token() if event.text:
                return self._text_frames(MESSAGE, _json_string_inside(event.text))
            case Reasoning():
                return self._text_frames(self._reasoning_kind, _json_string_inside(event.text))
            case ToolCall():
                return self._call_frames(event)
            case Reset():
                frames = self._break_off()
                self._items, self._usage = [], None
                self._extra = ExtraSoFar()
                return frames
            case Usage():
                self._usage = event
            case End():
                return self._end(event)
        return b""

    # The frames of items

    def _text_frames(self, kind: str, text: bytes) -> bytes:
        frames, item = b"", self._open_text
        if item is None or item.kind != kind:
            frames = self._close_text()
            item = self._open_text = self._new_item(kind)
            frames += self._added_frames(item)
        return frames + self._delta_frame(item, text)

    def _keep(self, details: list[Any], *, is_end: bool) -> bytes:
        """Put details into the open reasoning, which they may end, or into an item of their own."""
        item = self._open_text
        if item is not None and item.kind == self._reasoning_kind:
            item.kept += details
            return self._close_text() if is_end else b""
        frames = self._close_text()
        item = self._open_text = self._new_item(self._reasoning_kind)
        item.kept += details
        return frames + self._added_frames(item) + self._close_text()

    def _call_frames(self, event: ToolCall) -> bytes:
        frames, item = self._close_text(), self._calls.get(event.index)
        if item is None:
            kind = CUSTOM_CALL if event.name in self._custom else CALL
            group, name = self._namespaced.get(event.name, ("", event.name))
            item = self._new_item(kind, event.call_id, name)
            item.namespace = group
            self._calls[event.index] = item
            frames += self._added_frames(item)
        if event.extra:
            item.extra = merge(item.extra, event.extra, joins_strings=False)
        if not event.arguments:
            return frames
        piece = _json_string_inside(event.arguments)
        if item.kind == CUSTOM_CALL:  # its input is known when its arguments are complete
            item.pieces.append(piece)
            return frames
        return frames + self._delta_frame(item, piece)

    def _new_item(self, kind: str, call_id: str = "", name: str = "") -> OutputItem:
        item = OutputItem(kind, self._next_index, self._id_part, call_id, name)
        self._next_index += 1
        self._items.append(item)
        return item

    def _added_frames(self, item: OutputItem) -> bytes:
        added = {"output_index": item.index, "item": item.members(is_new=True)}
        frames = self._frame("response.output_item.added", added)
        if not (item.is_call or item.is_bare):
            frames += self._part_frame(item, "added")
        return frames

    def _delta_frame(self, item: OutputItem, text: bytes) -> bytes:
        item.pieces.append(text)
        members = {**_item_place(item), "delta": msgspec.Raw(b'"%b"' % text)}
        if item.kind == MESSAGE:
            members["logprobs"] = []
        return self._frame(_DELTAS[item.kind], members)

    def _close_text(self) -> bytes:
        item, self._open_text = self._open_text, None
        return b"" if item is None else self._done_frames(item, "completed")

    def _done_frames(self, item: OutputItem, status: str) -> bytes:
        """Return the frames that end an item whose content has arrived completely.

        Args:
            status: `completed`, or `incomplete` where the backend stopped at a limit.
        """
        name = _DELTAS[item.kind].removesuffix("delta") + "done"
        if item.kind == CALL:
            members = {**_item_place(item), "name": item.name, "arguments": item.text}
            frames = self._frame(name, members)
        elif item.kind == CUSTOM_CALL:
            frames = self._custom_input_frames(item, name, status)
        elif item.is_bare:
            frames = b""
        else:
            content = "refusal" if item.kind == REFUSAL else "text"
            members = {**_item_place(item), content: item.text}
            if item.kind == MESSAGE:
                members["logprobs"] = []
            frames = self._frame(name, members) + self._part_frame(item, "done")
        return frames + self._item_done_frame(item, status)

    def _custom_input_frames(self, item: OutputItem, name: str, status: str) -> bytes:
        item.status = status
        text, place = item.input, _item_place(item)
        delta = self._frame(_DELTAS[CUSTOM_CALL], {**place, "delta": text}) if text else b""
        return delta + self._frame(name, {**place, "input": text})

    def _part_frame(self, item: OutputItem, what: str) -> bytes:
        part = "reasoning_summary_part" if item.kind == SUMMARY_TEXT else "content_part"
        return self._frame(f"response.{part}.{what}", {**_item_place(item), "part": item.part})

    def _item_done_frame(self, item: OutputItem, status: str) -> bytes:
        item.status = status
        done = {"output_index": item.index, "item": item.members()}
        return self._frame("response.output_item.done", done)

    def _take_open(self) -> list[OutputItem]:
        """Return the items that are not done, by index, and forget them."""
        found = [*self._calls.values()]
        if self._open_text is not None:
            found.append(self._open_text)
        self._open_text, self._calls = None, {}
        return sorted(found, key=lambda item: item.index)

    def _break_off(self) -> bytes:
        return b"".join(self._item_done_frame(item, "incomplete") for item in self._take_open())

    # The end

    def _end(self, end: End) -> bytes:
        self.end, self._usage = end, end.usage or self._usage
        if end.status != "completed":
            frames, self._status = self._break_off(), end.status
            # OpenAI has no event `cancelled`.
            name = "failed" if end.status == "failed" else "incomplete"
            if end.status == "failed":
                frames += self._error_frame(end.error or GENERATION_FAILED)
        else:
            self._status = name = ended_status(end.status, end.finish_reason)
            frames = b"".join(self._done_frames(item, name) for item in self._take_open())
        return frames + self._frame(f"response.{name}", {"response": self.response()})

    def _error_frame(self, failure: Failure) -> bytes:
        """Return the event `error`, which OpenAI sends before `response.failed`.

        Many clients do not read `response.failed`. The SDKs raise if an event has the member
        `error`; clients that read the event itself find its members also beside `error`.
        """
        error = failure_object(failure)
        beside = {name: error[name] for name in ("code", "message", "param")}
        return self._frame("error", {**beside, "error": error})

    def aside(self, raw: bytes) -> bytes | None:
        """Return the last event of a lost or deleted generation; None: the log lost its tail.

        After such a loss the connection is broken off. The client then asks for the next number,
        and the answer says whether it may go on.
        """
        if raw not in (LOST, DELETED):
            return None
        end = decode(raw)
        assert isinstance(end, End)
        return copy.deepcopy(self)._end(end)

    def _frame(self, name: str, members: dict[str, Any]) -> bytes:
        data = {"type": name, "sequence_number": self.given, **members}
        self.given += 1
        return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))


RESPONSES = Dialect("responses", ResponsesFold, is_numbered=True, is_compressible=True)


def _item_place(item: OutputItem) -> dict[str, Any]:
    """Return the members that say to which item and part an event belongs."""
    place: dict[str, Any] = {"item_id": item.id, "output_index": item.index}
    if item.is_call:
        return place
    return {**place, "summary_index" if item.kind == SUMMARY_TEXT else "content_index": 0}


def _json_string_inside(text: str) -> bytes:
    """Return a text as the inside of a JSON string."""
    return msgspec.json.encode(text)[1:-1]
