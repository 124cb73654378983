"""The figures of usage: prompts, tokens and seconds of one generation or of many. Pure.

Source of the counts: docs/protocol.md, "Usage of owners".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from shared.log.events import Counts, Usage
from shared.log.tally import is_marked

# Where servers report the part of the prompt that they had in a cache: a member of an object of
# `usage`, or a member of `usage` itself.
_CACHED_IN = ("prompt_tokens_details", "input_tokens_details")
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
TOKENS_MAX = 2**52  # of one answer; the sums stay numbers that Lua and JavaScript know exactly


class Figures(NamedTuple):
    """Sums over generations.

    Attributes:
        prompts: ended generations.
        cached: the part of `input` that servers had in a cache.
        estimated: the part of `input` and `output` in answers whose counts are estimated.
        held_ms: for how long workers held the generations.
    """

    prompts: int = 0
    input: int = 0
    output: int = 0
    cached: int = 0
    estimated: int = 0
    held_ms: int = 0

    def plus(self, other: Figures) -> Figures:
        """Return the sums of both."""
        return Figures(*(a + b for a, b in zip(self, other, strict=True)))


def figures_of(counts: Counts | Usage | None, held_ms: int) -> Figures:
    """Return the figures of one generation; without counts it has no tokens."""
    if counts is None:
        return Figures(prompts=1, held_ms=held_ms)
    prompt = min(max(counts.prompt_tokens, 0), TOKENS_MAX)
    completion = min(max(counts.completion_tokens, 0), TOKENS_MAX)
    return Figures(
        prompts=1,
        input=prompt,
        output=completion,
        cached=min(_cached(counts.extra or {}), prompt),
        estimated=prompt + completion if is_marked(counts) else 0,
        held_ms=held_ms,
    )


def pack(figures: Figures) -> str:
    """Return the six figures as shared/redis/scripts/usage_settle.lua writes them."""
    return " ".join(map(str, figures))


def unpack(raw: bytes) -> Figures:
    """Return the figures of a field that `pack` or the script has written."""
    return Figures(*map(int, raw.split()))


def _cached(extra: Mapping[str, Any]) -> int:
    places = [extra, *(extra.get(name) for name in _CACHED_IN)]
    for place in places:
        if isinstance(place, dict):
            for name in _CACHED:
                value = place.get(name)
                if type(value) is int and value > 0:
                    return value
    return 0
