"""Anthropic's token counts as OpenAI counts them. Pure.

Anthropic's `input_tokens` do not count tokens that were read from the cache or written into it;
OpenAI's `prompt_tokens` count all tokens of the prompt. The counts of a stream are cumulative, and
the last value of each member counts.
"""

from __future__ import annotations

from typing import Any

from shared.log.events import Usage
from workers.backends.reading.usage import UsageCounter

_READ, _WRITTEN = "cache_read_input_tokens", "cache_creation_input_tokens"
_COUNTED = ("input_tokens", "output_tokens", _READ, _WRITTEN, "output_tokens_details")


class AnthropicUsage:
    """The counts of one answer so far."""

    def __init__(self) -> None:
        self._raw: dict[str, Any] = {}

    def add(self, raw: Any) -> None:
        """Add the value of one `usage` member; a value of another form is skipped."""
        if isinstance(raw, dict):
            self._raw |= {name: value for name, value in raw.items() if value is not None}

    def event(self) -> Usage | None:
        """Return the counts; None: the server has sent none."""
        if not self._raw:
            return None
        counts = {name: _count(self._raw.get(name)) for name in _COUNTED}
        thoughts = self._raw.get("output_tokens_details")
        others = {name: value for name, value in self._raw.items() if name not in _COUNTED}
        counter = UsageCounter()
        counter.add(
            {
                "prompt_tokens": counts["input_tokens"] + counts[_READ] + counts[_WRITTEN],
                "completion_tokens": counts["output_tokens"],
                "prompt_tokens_details": _above_zero(
                    cached_tokens=counts[_READ], cache_write_tokens=counts[_WRITTEN]
                ),
                "completion_tokens_details": _above_zero(
                    reasoning_tokens=_count(
                        thoughts.get("thinking_tokens") if isinstance(thoughts, dict) else 0
                    )
                ),
                **others,
            }
        )
        return counter.event()


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0


def _above_zero(**counts: int) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}
