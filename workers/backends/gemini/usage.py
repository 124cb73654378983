"""Gemini's token counts as OpenAI counts them. Pure.

Gemini counts thoughts and candidates apart; OpenAI's `completion_tokens` are the sum of
both. Each event has the counts so far, and the last value of each member counts.
"""

from __future__ import annotations

from typing import Any

from shared.log.events import Usage
from workers.backends.reading.usage import UsageCounter

_PROMPT, _TOOL_PROMPT = "promptTokenCount", "toolUsePromptTokenCount"
_ANSWER, _THOUGHTS = "candidatesTokenCount", "thoughtsTokenCount"
_CACHED, _TOTAL = "cachedContentTokenCount", "totalTokenCount"
_COUNTED = (_PROMPT, _TOOL_PROMPT, _ANSWER, _THOUGHTS, _CACHED, _TOTAL)


class GeminiUsage:
    """The counts of one answer so far."""

    def __init__(self) -> None:
        self._raw: dict[str, Any] = {}

    def add(self, raw: Any) -> None:
        """Add one `usageMetadata`; a value of another form is skipped."""
        if isinstance(raw, dict):
            self._raw |= raw

    def event(self) -> Usage | None:
        """Return the counts; None: the server has sent none."""
        if not self._raw:
            return None
        count = {name: _count(self._raw.get(name)) for name in _COUNTED}
        details: dict[str, Any] = {}
        if cached := count[_CACHED]:
            details["prompt_tokens_details"] = {"cached_tokens": cached}
        if thoughts := count[_THOUGHTS]:
            details["completion_tokens_details"] = {"reasoning_tokens": thoughts}
        others = {name: value for name, value in self._raw.items() if name not in _COUNTED}
        counter = UsageCounter()
        counter.add(
            {
                "prompt_tokens": count[_PROMPT] + count[_TOOL_PROMPT],
                "completion_tokens": count[_ANSWER] + count[_THOUGHTS],
                **details,
                **others,
            }
        )
        return counter.event()


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0
