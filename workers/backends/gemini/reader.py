"""Parses the stream of Gemini's `streamGenerateContent`: bytes in, events out.

Each event is a whole `GenerateContentResponse` with the parts that are new. There is no last event:
the answer is complete with a `finishReason`, and the body ends. Without `alt=sse` the body is one
JSON array of the same objects, which is read as well.

    text                                  the answer, or a thought if `thought` is true
    functionCall                          a whole call; the reason STOP then means `tool_calls`
    inlineData                            pictures: `extra.delta.images`
    other parts                           `extra.delta.content_parts`
    promptFeedback.blockReason            the prompt is blocked: `content_filter`, without text
    thoughtSignature of a call            `extra_content.google` of the call, as at Google's own
                                          chat completions; other signatures are kept thoughts

Does no I/O and knows no clock. Source: ai.google.dev, "Generating content", "Thought signatures".
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.errors import BackendError
from shared.log.events import ToolCall, Usage
from shared.log.extra import is_empty
from workers.backends.contract import BackendItem
from workers.backends.gemini.usage import GeminiUsage
from workers.backends.reading.error_body import is_error
from workers.backends.reading.event_reader import EventReader, as_object, decode_event
from workers.backends.reading.failure import failure_of
from workers.backends.vendor.kept_thoughts import ENCRYPTED, GEMINI, Place, detail

EXTRA_CONTENT = "extra_content"  # where Google's chat completions have the signature of a call
SIGNATURE = "thought_signature"
_RESPONSE_MEMBERS = frozenset(
    ("candidates", "usageMetadata", "modelVersion", "responseId", "promptFeedback", "createTime")
)
_CANDIDATE_MEMBERS = frozenset(("content", "finishReason", "index", "tokenCount"))
_PLAIN_PART = frozenset(("text", "thought", "thoughtSignature"))
_NO_REASONS = (None, "", "BLOCKED_REASON_UNSPECIFIED")


class GenerateContentReader(EventReader):
    """Parses one answer."""

    def __init__(self, *, line_bytes_max: int, body_bytes_max: int, seed: str = "") -> None:
        super().__init__(line_bytes_max=line_bytes_max, body_bytes_max=body_bytes_max, seed=seed)
        self._usage = GeminiUsage()
        self._call_ids: set[str] = set()

    def _usage_event(self) -> Usage | None:
        return self._usage.event()

    def _take(self, name: bytes, event: bytes, items: list[BackendItem]) -> None:
        response = decode_event(event)
        if response.get("error") or ("candidates" not in response and is_error(response)):
            raise failure_of(event)
        self._take_response(response, items)

    def _take_document(self, document: bytes, items: list[BackendItem]) -> None:
        try:
            found = msgspec.json.decode(document)
        except (ValueError, RecursionError):
            found = None
        responses = found if isinstance(found, list) else [found]
        for response in responses:
            if not isinstance(response, dict) or is_error(response):
                raise failure_of(document)
            self._take_response(response, items)

    def _take_response(self, response: dict[str, Any], items: list[BackendItem]) -> None:
        if usage := response.get("usageMetadata"):
            self._usage.add(usage)
            self._note_usage()
        self._note("chunk", _others(response, _RESPONSE_MEMBERS))
        candidates = response.get("candidates")
        for candidate in candidates if isinstance(candidates, list) else ():
            if isinstance(candidate, dict) and not candidate.get("index"):
                # If a server gives several answers, only the first counts.
                self._take_candidate(candidate, items)
        feedback = response.get("promptFeedback")
        if feedback and (reason := as_object(feedback).get("blockReason")) not in _NO_REASONS:
            self._note("chunk", {"promptFeedback": feedback})
            self._note("choice", {"native_finish_reason": reason})
            self._conclude_with("content_filter")

    def _take_candidate(self, candidate: dict[str, Any], items: list[BackendItem]) -> None:
        self._note("choice", _others(candidate, _CANDIDATE_MEMBERS))
        parts = as_object(candidate.get("content")).get("parts")
        for part in parts if isinstance(parts, list) else ():
            self._take_part(as_object(part), items)
        try:
            self._conclude_with(candidate.get("finishReason"))
        except BackendError as failure:
            message = candidate.get("finishMessage")
            if not isinstance(message, str) or not message:
                raise
            raise BackendError(failure.code, f"{failure.message}: {message}") from failure

    def _take_part(self, part: dict[str, Any], items: list[BackendItem]) -> None:
        signature = part.get("thoughtSignature")
        call, blob = part.get("functionCall"), part.get("inlineData")
        if isinstance(call, dict):
            self._take_call(call, signature, items)
            return
        if isinstance(blob, dict):
            self._take_blob(part, blob, signature, items)
            return
        if signature:
            # The place is that of the part, whose text comes behind the signature.
            place = Place(self._text_chars, self._calls)
            self._give_extra(detail(GEMINI, place, type=ENCRYPTED, data=signature), items)
        if part.keys() <= _PLAIN_PART:
            if part.get("thought") is True:
                self._think(part.get("text"), items)
            else:
                self._say(part.get("text"), items)
        else:
            rest = {n: v for n, v in part.items() if n != "thoughtSignature"}
            self._give_extra({"content_parts": [rest]}, items)

    def _take_call(self, call: dict[str, Any], signature: Any, items: list[BackendItem]) -> None:
        number, self._calls = self._calls, self._calls + 1
        call_id = call.get("id")
        if not isinstance(call_id, str) or not call_id or call_id in self._call_ids:
            call_id = f"call_{self._seed}_{number}" if self._seed else f"call_{number}"
        self._call_ids.add(call_id)
        extra = self._cleaned(_others(call, frozenset(("id", "name", "args"))))
        if signature:
            extra[EXTRA_CONTENT] = {"google": {SIGNATURE: signature}}
        arguments = msgspec.json.encode(self._cleaned(as_object(call.get("args")))).decode()
        name = self._cleaned(str(call.get("name") or ""))
        items.append(ToolCall(number, self._cleaned(call_id), name, arguments, extra or None))
        self._opening.note_choice()

    def _take_blob(
        self,
        part: dict[str, Any],
        blob: dict[str, Any],
        signature: Any,
        items: list[BackendItem],
    ) -> None:
        media_type = str(blob.get("mimeType") or "")
        if not media_type.startswith("image/"):
            self._give_extra({"content_parts": [part]}, items)
            return
        url = f"data:{media_type};base64,{blob.get('data') or ''}"
        image: dict[str, Any] = {"type": "image_url", "image_url": {"url": url}}
        if signature:
            image[EXTRA_CONTENT] = {"google": {SIGNATURE: signature}}
        if part.get("thought") is True:
            image["thought"] = True  # a draft, not the answer
        self._give_extra({"images": [image]}, items)


def _others(members: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    if members.keys() <= known:  # the usual case
        return {}
    return {n: v for n, v in members.items() if n not in known and not is_empty(v)}
