"""The stage `limits`: the most that one answer may have."""

from __future__ import annotations

from shared.config.kinds.spec import count
from shared.config.stages.spec import StageSpec, number

LIMITS = StageSpec(
    name="limits",
    members={
        "max_tokens": count(1, 10_000_000),
        "max_characters": count(1, 100_000_000),
        "max_seconds": number(0.1, 604_800),
    },
    one_of=("max_tokens", "max_characters", "max_seconds"),
)
