"""Parses the stream of Anthropic's Messages: bytes in, events out.

    message_start         the tokens of the prompt
    content_block_…       text, thinking, redacted_thinking, tool_use, and blocks of server tools
    message_delta         stop_reason and counts, which are cumulative
    message_stop          nothing follows
    ping                  nothing
    error                 ends the answer; mostly `overloaded_error`

A thinking block with its signature is kept whole for the next turn (vendor/kept_thoughts.py).
Other blocks are in `extra.delta.content_blocks`. Does no I/O and knows no
clock.
Source: platform.claude.com, "Streaming messages".
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.errors import BackendError
from shared.log.events import Token, ToolCall, Usage
from shared.log.extra import is_empty
from workers.backends.anthropic.usage import AnthropicUsage
from workers.backends.contract import BackendItem
from workers.backends.reading.chunk_template import learn
from workers.backends.reading.event_reader import EventReader, as_object, decode_event
from workers.backends.reading.failure import failure_of
from workers.backends.vendor.chat import object_in
from workers.backends.vendor.kept_thoughts import ANTHROPIC, ENCRYPTED, SIGNED, Place, detail

_LEAD = b"event: content_block_delta\ndata: "
OVERLOADED = "overloaded_error"
# Only Anthropic can continue a paused turn, because the state of its tools is there.
_WORDS = {"pause_turn": "length"}
_MESSAGE_MEMBERS = frozenset(
    ("id", "type", "role", "model", "content", "usage", "stop_reason", "stop_sequence")
)


class _Block:
    """One content block that is open."""

    __slots__ = ("calls", "content", "has_input", "number", "pieces", "place", "signature")

    def __init__(self, content: dict[str, Any], place: Place) -> None:
        self.content = content
        self.place = place
        self.number = 0  # of a tool call
        self.has_input = False
        self.pieces: list[str] = []  # of a thought, or of the JSON of an input
        self.signature = ""


class MessagesReader(EventReader):
    """Parses one answer."""

    def __init__(self, *, line_bytes_max: int, body_bytes_max: int, seed: str = "") -> None:
        super().__init__(line_bytes_max=line_bytes_max, body_bytes_max=body_bytes_max, seed=seed)
        self._usage = AnthropicUsage()
        self._blocks: dict[Any, _Block] = {}

    def _usage_event(self) -> Usage | None:
        return self._usage.event()

    def _take(self, name: bytes, event: bytes, items: list[BackendItem]) -> None:
        found = decode_event(event)
        match found.get("type") or name.decode("latin-1"):
            case "content_block_delta":
                self._take_delta(found.get("index"), as_object(found.get("delta")), items)
                self._learn(event, items)
            case "content_block_start":
                block = as_object(found.get("content_block"))
                self._open_block(found.get("index"), block, items)
            case "content_block_stop":
                self._close_block(found.get("index"), items)
            case "message_start":
                self._take_message(as_object(found.get("message")))
            case "message_delta":
                self._take_end(as_object(found.get("delta")), found)
            case "message_stop":
                self._end(items)
            case "error":
                raise failure_in(event, found)
            case _ if found.get("error"):
                raise failure_of(event)
            case _:
                pass  # a ping, or an event that is newer than this reader

    def _learn(self, event: bytes, items: list[BackendItem]) -> None:
        """Remember the form of an event that says only a text, because most events do."""
        last = items[-1] if items else None
        if isinstance(last, Token) and last.extra is None and not (self._halves or self._facts):
            self._template = learn(event, last.text, b"text", _LEAD)

    def _take_document(self, document: bytes, items: list[BackendItem]) -> None:
        """Read the whole message of a server that does not stream."""
        try:
            message = decode_event(document)
        except (ValueError, RecursionError):
            message = {}
        if message.get("type") != "message":
            raise failure_of(document)
        self._take_message(message)
        for index, block in enumerate(message.get("content") or ()):
            self._open_block(index, as_object(block), items)
            self._close_block(index, items)
        self._take_end(message, {})

    def _take_message(self, message: dict[str, Any]) -> None:
        self._add_usage(message.get("usage"))
        self._note("chunk", _others(message, _MESSAGE_MEMBERS))

    def _add_usage(self, usage: Any) -> None:
        if usage:
            self._usage.add(usage)
            self._note_usage()

    def _open_block(self, index: Any, content: dict[str, Any], items: list[BackendItem]) -> None:
        block = _Block(content, Place(self._text_chars, self._calls))
        self._blocks[index] = block
        match content.get("type"):
            case "text":
                self._say(content.get("text"), items)
                if citations := content.get("citations"):
                    self._give_extra({"citations": citations}, items)
            case "thinking":
                self._add_thought(block, content.get("thinking"), items)
                block.signature = str(content.get("signature") or "")
            case "tool_use":
                self._begin_call(block, items)

    def _begin_call(self, block: _Block, items: list[BackendItem]) -> None:
        block.number, self._calls = self._calls, self._calls + 1
        content = block.content
        call_id = content.get("id")
        if not isinstance(call_id, str) or not call_id:
            call_id = f"call_{self._seed}_{block.number}"
        name = content.get("name")
        known = ("type", "id", "name", "input")
        extra = self._cleaned(_others(content, frozenset(known))) or None
        call = ToolCall(
            block.number, self._cleaned(call_id), self._cleaned(str(name or "")), "", extra
        )
        items.append(call)
        self._opening.note_choice()

    def _take_delta(self, index: Any, delta: dict[str, Any], items: list[BackendItem]) -> None:
        kind = delta.get("type")
        if kind == "text_delta":
            self._say(delta.get("text"), items)
            return
        block = self._blocks.setdefault(index, _Block({}, Place(self._text_chars, self._calls)))
        match kind:
            case "thinking_delta":
                self._add_thought(block, delta.get("thinking"), items)
            case "signature_delta":
                block.signature += str(delta.get("signature") or "")
            case "input_json_delta":
                self._add_input(block, delta.get("partial_json"), items)
            case "citations_delta":
                self._give_extra({"citations": [delta.get("citation")]}, items)
            case _:
                self._give_extra({"content_deltas": [delta]}, items)

    def _add_thought(self, block: _Block, thought: Any, items: list[BackendItem]) -> None:
        if isinstance(thought, str) and thought:
            block.pieces.append(thought)
            self._think(thought, items)

    def _add_input(self, block: _Block, piece: Any, items: list[BackendItem]) -> None:
        if not isinstance(piece, str) or not piece:
            return
        if block.content.get("type") != "tool_use":  # of a tool that the vendor runs
            block.pieces.append(piece)
            return
        whole = self._halves.join(("arguments", block.number), piece)
        if whole:
            block.has_input = True
            items.append(ToolCall(block.number, arguments=whole))

    def _close_block(self, index: Any, items: list[BackendItem]) -> None:
        block = self._blocks.pop(index, None)
        if block is None:
            return
        content = block.content
        match content.get("type"):
            case "text" | None:
                pass
            case "thinking":
                self._keep_thought(block, items)
            case "redacted_thinking":
                data = content.get("data")
                kept = detail(ANTHROPIC, block.place, type=ENCRYPTED, data=data)
                self._give_extra(kept, items)
            case "tool_use":
                if not block.has_input:
                    arguments = msgspec.json.encode(self._cleaned(content.get("input") or {}))
                    items.append(ToolCall(block.number, arguments=arguments.decode()))
            case _:
                if block.pieces:
                    content = content | {"input": object_in("".join(block.pieces), "json")}
                self._give_extra({"content_blocks": [content]}, items)

    def _keep_thought(self, block: _Block, items: list[BackendItem]) -> None:
        if block.signature:
            text = "".join(block.pieces)
            kept = detail(ANTHROPIC, block.place, type=SIGNED, text=text, signature=block.signature)
            self._give_extra(kept, items)

    def _take_end(self, delta: dict[str, Any], event: dict[str, Any]) -> None:
        self._add_usage(event.get("usage"))
        facts = ("stop_sequence", "stop_details", "container")
        self._note("choice", {n: v for n in facts if not is_empty(v := delta.get(n))})
        word = delta.get("stop_reason")
        if isinstance(word, str) and word in _WORDS:
            self._note("choice", {"native_finish_reason": word})
            word = _WORDS[word]
        self._conclude_with(word)


def failure_in(payload: bytes, event: dict[str, Any]) -> BackendError:
    """Return the failure of an event `error`. An overload says nothing about the request."""
    failure = failure_of(payload)
    failure.is_outage = as_object(event.get("error")).get("type") == OVERLOADED
    return failure


def _others(members: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    return {n: v for n, v in members.items() if n not in known and not is_empty(v)}
