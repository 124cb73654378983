r"""OpenAI's Responses: the log as numbered events, and as one response object.

    event: response.output_text.delta LF
    data: {"type":"response.output_text.delta","sequence_number":7,"item_id":"msg_…",
           "output_index":0,"content_index":0,"delta":" Hello","logprobs":[]} LF LF

`sequence_number` counts the frames from 0, `response.created` and `response.queued` included, which
leave before any entry exists; so it is the same on every node. Invariants: every item that was
added is done before the last event, and the indexes of `output` are never used twice. A `reset`
ends what stands as incomplete; the answer goes on in new items, and only these are in the final
`output`. What is cut short gets no `…text.done`: OpenAI's helpers parse that as a whole document.
Source: docs/protocol.md, "Responses".
"""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from api.dialects.openai_errors import GIVEN_UP
from api.dialects.responses.response_object import (
    CALL,
    MESSAGE,
    REASONING,
    Item,
    response_head,
    usage_object,
)
from shared.log.event_bytes import LOST, plain_text
from shared.log.events import (
    AnyEvent,
    Counts,
    End,
    Reasoning,
    Reset,
    Start,
    Token,
    ToolCall,
    Usage,
    decode,
    decode_known,
)
from shared.log.fold import Dialect, Fold
from shared.log.ids import EventId
from shared.log.records import Meta

_DELTAS = {
    MESSAGE: "response.output_text.delta",
    REASONING: "response.reasoning_text.delta",
    CALL: "response.function_call_arguments.delta",
}
# Why an answer that is whole is one that the backend cut short.
_CUT_SHORT = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponsesFold(Fold):
    """One response as server-sent events."""

    def __init__(self, meta: Meta) -> None:
        self._head = response_head(meta)
        self._id_part = meta.generation_id.removeprefix("gen_")
        self._status = "queued"
        self._items: list[Item] = []  # since the last reset
        self._next_index = 0
        self._writing: Item | None = None  # the open message or thought
        self._calls: dict[int, Item] = {}  # open until the end: their pieces may be interleaved
        self._usage: Usage | Counts | None = None
        self.end: End | None = None

    def response(self) -> dict[str, Any]:
        """Return the object as it stands after what was added."""
        end = self.end
        failure = end.error or GIVEN_UP if end is not None and end.status == "failed" else None
        reason = _CUT_SHORT.get(end.finish_reason) if end is not None else None
        return {
            **self._head,
            "status": self._status,
            "error": {"code": failure.code, "message": failure.message} if failure else None,
            "incomplete_details": {"reason": reason} if self._status == "incomplete" else None,
            "output": [item.members() for item in self._items],
            "usage": usage_object(self._usage) if self._usage is not None else None,
        }

    def opening(self) -> bytes:
        return self._frame("response.created", {"response": self.response()}) + self._frame(
            "response.queued", {"response": self.response()}
        )

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        text = plain_text(raw)
        if text is not None:
            return self._write(MESSAGE, text)
        event = decode_known(raw)
        if event is None:
            return b""
        return self._add(event)

    def _add(self, event: AnyEvent) -> bytes:
        match event:
            case Start() if self._status == "queued":
                self._status = "in_progress"
                return self._frame("response.in_progress", {"response": self.response()})
            case Token():
                return self._write(MESSAGE, _body(event.text))
            case Reasoning():
                return self._write(REASONING, _body(event.text))
            case ToolCall():
                return self._call(event)
            case Reset():
                frames = self._break_off()
                self._items, self._usage = [], None
                return frames
            case Usage():
                self._usage = event
            case End():
                return self._end(event)
        return b""

    # Items

    def _write(self, kind: str, text: bytes) -> bytes:
        frames, item = b"", self._writing
        if item is None or item.kind != kind:
            frames = self._finish_writing()
            item = self._writing = self._new_item(kind)
            frames += self._added(item)
        return frames + self._delta(item, text)

    def _call(self, event: ToolCall) -> bytes:
        frames, item = self._finish_writing(), self._calls.get(event.index)
        if item is None:
            item = self._new_item(CALL, event.call_id, event.name)
            self._calls[event.index] = item
            frames += self._added(item)
        return frames + self._delta(item, _body(event.arguments)) if event.arguments else frames

    def _new_item(self, kind: str, call_id: str = "", name: str = "") -> Item:
        item = Item(kind, self._next_index, self._id_part, call_id, name)
        self._next_index += 1
        self._items.append(item)
        return item

    def _added(self, item: Item) -> bytes:
        added = {"output_index": item.index, "item": item.members(is_new=True)}
        frames = self._frame("response.output_item.added", added)
        if item.kind != CALL:
            part = {**_place(item), "part": item.part}
            frames += self._frame("response.content_part.added", part)
        return frames

    def _delta(self, item: Item, text: bytes) -> bytes:
        item.pieces.append(text)
        said = {**_place(item), "delta": msgspec.Raw(b'"%b"' % text)}
        if item.kind == MESSAGE:
            said["logprobs"] = []
        return self._frame(_DELTAS[item.kind], said)

    def _finish_writing(self) -> bytes:
        item, self._writing = self._writing, None
        return b"" if item is None else self._done(item, "completed")

    def _done(self, item: Item, status: str) -> bytes:
        """All of an item has come; `status` may still say that the backend cut it short."""
        name = _DELTAS[item.kind].removesuffix("delta") + "done"
        if item.kind == CALL:
            said = {**_place(item), "name": item.name, "arguments": item.text}
            frames = self._frame(name, said)
        else:
            said = {**_place(item), "text": item.text}
            if item.kind == MESSAGE:
                said["logprobs"] = []
            part = {**_place(item), "part": item.part}
            frames = self._frame(name, said) + self._frame("response.content_part.done", part)
        return frames + self._item_done(item, status)

    def _item_done(self, item: Item, status: str) -> bytes:
        item.status = status
        done = {"output_index": item.index, "item": item.members()}
        return self._frame("response.output_item.done", done)

    def _take_open(self) -> list[Item]:
        """Return the items that are not done; from now on there are none."""
        found = [*self._calls.values()]
        if self._writing is not None:
            found.append(self._writing)
        self._writing, self._calls = None, {}
        return sorted(found, key=lambda item: item.index)

    def _break_off(self) -> bytes:
        return b"".join(self._item_done(item, "incomplete") for item in self._take_open())

    # The end

    def _end(self, end: End) -> bytes:
        self.end, self._usage = end, end.usage or self._usage
        if end.status != "completed":
            frames, self._status = self._break_off(), end.status
            name = "failed" if end.status == "failed" else "incomplete"  # there is no `cancelled`
        else:
            is_cut = end.finish_reason in _CUT_SHORT
            self._status = name = "incomplete" if is_cut else "completed"
            frames = b"".join(self._done(item, name) for item in self._take_open())
        return frames + self._frame(f"response.{name}", {"response": self.response()})

    def aside(self, raw: bytes) -> bytes | None:
        """A rewritten log breaks off: who reads on by number is told whether it may."""
        if raw != LOST:
            return None
        end = decode(raw)
        assert isinstance(end, End)
        return copy.deepcopy(self)._end(end)

    def _frame(self, name: str, members: dict[str, Any]) -> bytes:
        said = {"type": name, "sequence_number": self.given, **members}
        self.given += 1
        return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(said))


RESPONSES = Dialect("responses", ResponsesFold, is_numbered=True)


def _place(item: Item) -> dict[str, Any]:
    place: dict[str, Any] = {"item_id": item.id, "output_index": item.index}
    return place if item.kind == CALL else {**place, "content_index": 0}


def _body(text: str) -> bytes:
    """Return a text as the inside of a JSON string."""
    return msgspec.json.encode(text)[1:-1]
