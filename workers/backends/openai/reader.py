"""Parses the OpenAI chat stream as real servers send it: bytes in, events out.

Invariant: `Finish` comes only after a `finish_reason`, once and last. The first `error` in the
stream ends it; events after it are ignored. The result does not depend on how the bytes are cut.
Does no I/O, knows no clock, and does not know which server it reads. It accepts all known dialects:

    OpenAI      usage in a chunk with no choices; refusals; tool arguments in fragments
    vLLM        `reasoning` (before: `reasoning_content`); error and then [DONE]; running usage
    llama.cpp   a field named `error:`; usage in a chunk with choices
    OpenRouter  comments; finish_reason "error" beside an error object; usage after the finish
    Mistral     content as a list of parts; whole tool calls without an index
    any         one JSON document because `stream` was ignored; errors with the status 200: objects,
                arrays, HTML pages, plain text (workers/backends/reading/error_body.py)

`[DONE]` without a `finish_reason` is a failure. Servers write `[DONE]` in a `finally` block, also
after a failed answer (vLLM and llama.cpp do), so it only means that nothing follows.
"""

from __future__ import annotations

from typing import Any

from shared.log.events import Reasoning, Token, Usage
from shared.log.extra import is_empty
from workers.backends.contract import BackendItem
from workers.backends.openai.chunk import (
    CHOICE_MEMBERS,
    CHUNK_MEMBERS,
    DELTA_MEMBERS,
    as_list,
    plain_text_of,
    read_chunk,
    required_object,
    unknown_members,
)
from workers.backends.openai.delta_texts import take_content, take_text
from workers.backends.openai.summary import TextSoFar
from workers.backends.openai.tool_fragments import read_fragment
from workers.backends.reading.chunk_template import ChunkTemplate, learn
from workers.backends.reading.error_body import is_error, is_error_array
from workers.backends.reading.facts import has_list, put_extra
from workers.backends.reading.failure import failure_of
from workers.backends.reading.finish_reasons import reason_of
from workers.backends.reading.half_pairs import CONTENT, REASONING
from workers.backends.reading.stream_reader import StreamReader
from workers.backends.reading.tools import ToolCalls
from workers.backends.reading.usage import UsageCounter

TEMPLATES_MAX = 16  # learned per answer: then chunks that all differ are just decoded


class ChatReader(StreamReader):
    """Parses one answer.

    Args:
        seed: part of the ids of tool calls that the server gives no id.
    """

    def __init__(self, *, line_bytes_max: int, body_bytes_max: int, seed: str = "") -> None:
        super().__init__(line_bytes_max=line_bytes_max, body_bytes_max=body_bytes_max)
        self._tools = ToolCalls(seed)
        self._usage = UsageCounter()
        self._has_new_usage = False
        self._text, self._reasoning = TextSoFar(), TextSoFar()
        self._add_text = self._text.add  # for the hot path
        self._has_calls = self._has_delta_extra = False
        self._templates_left = TEMPLATES_MAX

    def take_running_usage(self) -> Usage | None:
        """Return the counts of an unfinished answer, if the server has reported other ones."""
        if self._reason is not None or not self._has_new_usage:
            return None
        self._has_new_usage = False
        return self._usage.event()

    # See StreamReader

    def _add_plain(self, text: str, items: list[BackendItem]) -> None:
        self._add_text(text)
        items.append(Token(text))

    def _read_document(self, document: bytes, items: list[BackendItem]) -> None:
        self._take_payload(b"", document, items)

    def _usage_event(self) -> Usage | None:
        return self._usage.event()

    @property
    def _has_tool_calls(self) -> bool:
        return len(self._tools) > 0

    def _last_items(self) -> list[BackendItem]:
        return [*self._tools.finish()]

    def _take_payload(self, name: bytes, payload: bytes, items: list[BackendItem]) -> None:
        """Turn the data of one SSE event into items."""
        if not payload.startswith(b"{"):
            payload = payload.strip()
            if payload == b"[DONE]":
                self._end(items, "the backend said [DONE] without a finish_reason")
                return
            if not payload:
                return
        if name == b"error" or payload.startswith(b"<") or is_error_array(payload):
            raise failure_of(payload)
        if self._template is not None:
            text = self._template.text_of(payload)
            if text is not None:
                self._add_plain(text, items)
                return
        chunk = self._decode(payload)
        if is_error(chunk):
            raise failure_of(payload)
        if chunk.get("choices"):
            self._opening.note_choice()
        text = None if self._is_special else plain_text_of(chunk)
        if text is None:
            begun = len(items)
            self._take_chunk(chunk, payload, items)
            text = self._text_beside_facts(chunk, items[begun:])
        elif text:
            self._text.add_any(text)
            items.append(Token(text))
        if text and self._templates_left:
            self._templates_left -= 1
            self._template = self._learn(payload, text)

    def _decode(self, payload: bytes) -> dict[str, Any]:
        return read_chunk(payload, self.warnings)

    def _learn(self, payload: bytes, text: str) -> ChunkTemplate | None:
        return learn(payload, text)

    def _text_beside_facts(self, chunk: dict[str, Any], items: list[BackendItem]) -> str | None:
        """Return the text of a chunk that has only a text and facts that were known before."""
        if len(items) != 1 or self._is_special or chunk.get("usage"):
            return None
        (item,), (choice, *others) = items, chunk["choices"]
        if not isinstance(item, Token) or item.extra is not None or others:
            return None
        delta = {"delta": choice.get("delta")}
        is_plain = not choice.get("message") and plain_text_of({"choices": [delta]}) == item.text
        return item.text if is_plain else None

    @property
    def _is_special(self) -> bool:
        """Whether even a chunk that holds only text needs more than its text."""
        return bool(self._halves or self._facts or self._reason)

    def _take_chunk(self, chunk: dict[str, Any], payload: bytes, items: list[BackendItem]) -> None:
        self._add_usage(chunk.get("usage"))
        facts = unknown_members(chunk, CHUNK_MEMBERS, self.warnings)
        if isinstance(groq := facts.get("x_groq"), dict):
            self._add_usage(groq.pop("usage", None))
        self._note_facts("chunk", facts)
        for choice in as_list(chunk.get("choices"), "choices"):
            choice = required_object(choice, "a choice")
            index = choice.get("index")
            if not isinstance(index, int | float) or not index:
                # If a server gives several answers, only the first counts.
                self._take_choice(choice, payload, items)

    def _take_choice(
        self, choice: dict[str, Any], payload: bytes, items: list[BackendItem]
    ) -> None:
        self._add_usage(choice.get("usage"))
        reason = reason_of(choice.get("finish_reason"))
        facts = unknown_members(choice, CHOICE_MEMBERS, self.warnings)
        is_closing = reason is not None or self._reason is not None
        if choice.get("message") and self._text:  # a closing summary repeats the lists, too
            facts = {name: value for name, value in facts.items() if not has_list(value)}
        self._note_facts("choice", facts)
        delta = required_object(choice.get("delta"), "delta")
        message = required_object(choice.get("message"), "message")
        if delta:
            self._take_delta(delta, items, is_closing=is_closing, is_message=False)
        if message:
            self._take_delta(message, items, is_closing=is_closing, is_message=True)
        if choice.get("error"):
            raise failure_of(payload)
        if reason is None:
            return
        self._conclude(reason)
        self._template = None  # from here on a text may be a closing summary

    def _take_delta(
        self,
        delta: dict[str, Any],
        items: list[BackendItem],
        *,
        is_closing: bool,
        is_message: bool,
    ) -> None:
        """Turn one delta, or a whole message, into items."""
        begun = len(items)
        rest = {
            name: value
            for name, value in delta.items()
            if name not in DELTA_MEMBERS and not is_empty(value)
        }
        said: list[tuple[str, str]] = []
        # Some vLLM versions send the same reasoning under both names.
        thought = take_text(rest, "reasoning") or ""
        repeated = take_text(rest, "reasoning_content") or ""
        if thought := thought or repeated:
            said.append((REASONING, thought))
        said += take_content(rest)
        if refusal := take_text(rest, "refusal"):
            said.append((CONTENT, refusal))
        for place, text in self._new_texts(said, is_closing=is_closing, is_message=is_message):
            items.append(Token(text) if place is CONTENT else Reasoning(text))
        has_arrived = is_message and (self._text or self._reasoning) and begun == len(items)
        if refusal and len(items) > begun:
            rest["refusal"] = refusal
        extra = unknown_members(rest, frozenset(), self.warnings)
        if extra and not (has_arrived and self._has_delta_extra):
            self._has_delta_extra = True
            self._give_extra(items, begun, {"delta": extra})
        elif self._facts and len(items) > begun:
            self._give_extra(items, begun, {})
        self._take_calls(delta, items, is_message=is_message)

    def _new_texts(
        self, said: list[tuple[str, str]], *, is_closing: bool, is_message: bool
    ) -> list[tuple[str, str]]:
        """Return the pieces of text that are new, without lone halves of characters.

        Pieces of one kind are compared with a closing summary as one text.
        """
        if is_closing or is_message:
            joined: dict[str, str] = {}
            for place, text in said:
                joined[place] = joined.get(place, "") + text
            said = list(joined.items())
        found: list[tuple[str, str]] = []
        for place, raw in said:
            so_far = self._text if place is CONTENT else self._reasoning
            text = self._halves.join(place, raw)
            if self._halves:
                self._template = None  # the next text must meet the half that waits
            text = so_far.new_part(text, is_message=is_message, is_closing=is_closing)
            if text:
                so_far.add_any(text)
                found.append((place, text))
        return found

    def _take_calls(
        self, delta: dict[str, Any], items: list[BackendItem], *, is_message: bool
    ) -> None:
        calls = delta.get("tool_calls")
        legacy = delta.get("function_call")
        found = [calls] if isinstance(calls, dict) else as_list(calls, "tool_calls")
        if legacy and not found:
            found = [{"index": 0, "function": legacy}]
        for position, call in enumerate(found):
            fragment = read_fragment(
                call, begun=len(self._tools), halves=self._halves, warnings=self.warnings
            )
            if is_message and self._has_calls:
                items += self._tools.read_whole(fragment, position)
            else:
                items += self._tools.read(fragment)
        self._has_calls = len(self._tools) > 0

    def _add_usage(self, raw: Any) -> None:
        if raw:
            self._usage.add(raw)
            self._has_new_usage = True

    def _note_facts(self, part: str, facts: dict[str, Any]) -> None:
        if facts and self._facts.add(part, facts):
            self._template = None  # its chunks may have the former value

    def _give_extra(self, items: list[BackendItem], begun: int, extra: dict[str, Any]) -> None:
        put_extra(items, begun, {**self._facts.take(), **extra})
