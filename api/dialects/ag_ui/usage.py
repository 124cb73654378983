"""Token counts in the members of AG-UI. Pure."""

from __future__ import annotations

from typing import Any

from shared.log.events import Counts, Usage

# Their names in AG-UI -> the object and the member in which model servers report them.
_PARTS = {
    "reasoningTokens": ("completion_tokens_details", "reasoning_tokens"),
    "cachedInputTokens": ("prompt_tokens_details", "cached_tokens"),
}
_COUNT_MAX = 2**53 - 1  # a larger number changes on its way through JSON in a browser


def usage_of(counts: Usage | Counts | None, model: str) -> dict[str, Any]:
    """Return the member `usage` of RUN_FINISHED and RUN_ERROR; {} without counts."""
    if counts is None:
        return {}
    row: dict[str, Any] = {
        "model": model,
        "inputTokens": counts.prompt_tokens,
        "outputTokens": counts.completion_tokens,
        "totalTokens": counts.total_tokens,
    }
    for name, (place, member) in _PARTS.items():
        details = (counts.extra or {}).get(place)
        count = details.get(member) if isinstance(details, dict) else None
        if isinstance(count, int) and not isinstance(count, bool):
            row[name] = count
    kept = {
        name: value
        for name, value in row.items()
        if not isinstance(value, int) or 0 <= value <= _COUNT_MAX
    }
    return {"usage": [kept]}
