"""The figures of usage: prompts, tokens and seconds of one generation or of many. Pure.

Source of the counts: docs/protocol.md, "Usage of owners".
"""

from __future__ import annotations

from typing import NamedTuple

from shared.log.events import TOKENS_MAX, Counts, Usage
from shared.log.tally import cached_tokens, is_marked


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
        cached=min(cached_tokens(counts.extra or {}), prompt),
        estimated=prompt + completion if is_marked(counts) else 0,
        held_ms=held_ms,
    )


def pack(figures: Figures) -> str:
    """Return the six figures as shared/redis/scripts/usage_settle.lua writes them."""
    return " ".join(map(str, figures))


def unpack(raw: bytes) -> Figures:
    """Return the figures of a field that `pack` or the script has written."""
    return Figures(*map(int, raw.split()))
