"""The common part of the readers of vendors' event streams: texts, extra members, counts, limits.

Does no I/O, knows no clock and no vendor: a subclass reads the events of one wire.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from shared.errors import BackendError
from shared.log.events import Reasoning, Token, Usage
from shared.log.extra import clean
from shared.text.json_values import VALUES_MAX, has_too_many_values
from workers.backends.contract import BackendItem
from workers.backends.reading.error_body import is_error_array
from workers.backends.reading.facts import put_extra
from workers.backends.reading.failure import failure_of
from workers.backends.reading.finish_reasons import reason_of
from workers.backends.reading.half_pairs import CONTENT, REASONING
from workers.backends.reading.json_object import CHECKED_BYTES_MIN
from workers.backends.reading.stream_reader import StreamReader

USAGES_EVERY = 16  # Gemini reports counts in each event; to make an event of each is expensive


class EventReader(StreamReader):
    """Parses one answer. A subclass defines `_take`, and `_take_document` if it can read one.

    Args:
        seed: part of the ids of tool calls that the server gives no id.
    """

    def __init__(self, *, line_bytes_max: int, body_bytes_max: int, seed: str = "") -> None:
        super().__init__(line_bytes_max=line_bytes_max, body_bytes_max=body_bytes_max)
        self._seed = seed
        self._calls = 0  # tool calls that have begun
        self._text_chars = 0
        self._new_usages = -1  # reports since the last running one; -1: there was none

    def take_running_usage(self) -> Usage | None:
        """Return the counts of an unfinished answer, if the server has reported other ones.

        Returns the first report, which has the tokens of the prompt, and each `USAGES_EVERY`th of
        the later reports.
        """
        if self._reason is not None or 0 <= self._new_usages < USAGES_EVERY:
            return None
        usage = self._usage_event()
        if usage is not None:
            self._new_usages = 0
        return usage

    # For subclasses

    def _take(self, name: bytes, event: bytes, items: list[BackendItem]) -> None:
        """Turn the data of one event into items."""
        raise NotImplementedError

    def _take_document(self, document: bytes, items: list[BackendItem]) -> None:
        """Read a body that is one JSON document or a page."""
        raise failure_of(document)

    def _usage_event(self) -> Usage | None:
        return None

    def _note_usage(self) -> None:
        """Note that the server has reported counts."""
        if self._new_usages >= 0:
            self._new_usages += 1

    def _is_too_large(self, name: bytes, payload: bytes) -> bool:
        """Whether decoding this event would block the other runs of this worker for too long."""
        return len(payload) > CHECKED_BYTES_MIN and has_too_many_values(payload)

    def _say(self, text: Any, items: list[BackendItem]) -> None:
        """Add a piece of the answer."""
        if isinstance(text, str) and (whole := self._halves.join(CONTENT, text)):
            self._text_chars += len(whole)
            self._opening.note_choice()
            self._push(Token(whole), items)
        if self._halves:
            self._template = None  # the next text must meet the half that waits

    def _think(self, text: Any, items: list[BackendItem]) -> None:
        """Add a piece of the reasoning."""
        if isinstance(text, str) and (whole := self._halves.join(REASONING, text)):
            self._opening.note_choice()
            self._push(Reasoning(whole), items)

    def _push(self, item: Token | Reasoning, items: list[BackendItem]) -> None:
        items.append(item)
        if self._facts:
            put_extra(items, len(items) - 1, self._facts.take())

    def _give_extra(self, members: dict[str, Any], items: list[BackendItem]) -> None:
        """Add members of a delta that have no event."""
        self._opening.note_choice()
        put_extra(items, len(items), {**self._facts.take(), "delta": self._cleaned(members)})

    def _note(self, part: str, facts: dict[str, Any]) -> None:
        """Keep facts about the answer for the next event."""
        if facts:
            self._template = None  # the next event gets the facts
            self._facts.add(part, self._cleaned(facts))

    def _cleaned(self, value: Any) -> Any:
        cleaned, is_changed = clean(value)
        if is_changed:
            self.warnings.add("odd_value")
        return cleaned

    def _conclude_with(self, word: Any) -> None:
        """Note a finish reason in the server's word; a word that says nothing is ignored."""
        if (reason := reason_of(word)) is not None:
            self._opening.note_choice()
            self._conclude(reason)

    # See StreamReader

    @property
    def _has_tool_calls(self) -> bool:
        return self._calls > 0

    def _read_document(self, document: bytes, items: list[BackendItem]) -> None:
        self._check_size(b"", document)
        self._take_document(document, items)

    def _check_size(self, name: bytes, payload: bytes) -> None:
        if self._is_too_large(name, payload):
            message = f"the backend sent an event of more than {VALUES_MAX} values"
            raise BackendError("upstream_error", message, retryable=False)

    def _add_plain(self, text: str, items: list[BackendItem]) -> None:
        self._text_chars += len(text)
        items.append(Token(text))

    def _take_payload(self, name: bytes, payload: bytes, items: list[BackendItem]) -> None:
        if self._template is not None:
            text = self._template.text_of(payload)
            if text is not None:
                self._add_plain(text, items)
                return
        if not payload.startswith(b"{"):
            payload = payload.strip()
            if not payload or payload == b"[DONE]":  # gateways add it
                return
            if payload.startswith(b"<") or is_error_array(payload):
                raise failure_of(payload)
        self._check_size(name, payload)
        try:
            if not payload.isascii():
                payload.decode()  # a clear error, and lone halves are escapes, never bytes
            self._take(name, payload, items)
        except (ValueError, RecursionError) as exc:  # msgspec's errors are ValueErrors
            message = f"the backend sent broken data: {exc}"
            raise BackendError("upstream_error", message) from exc


_decode = msgspec.json.decode


def decode_event(payload: bytes) -> dict[str, Any]:
    """Return the object in the data of an event.

    Raises:
        ValueError: the data is no JSON object.
    """
    try:
        event = _decode(payload)
    except ValueError:
        # Python's decoder is slower, but also reads NaN, Infinity and lone halves of pairs.
        event = json.loads(payload)
    if not isinstance(event, dict):
        raise ValueError("the event is no object")
    return event


def as_object(value: Any) -> dict[str, Any]:
    """Return `value` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}
