"""The stage `cache`: the same request replays a stored answer."""

from __future__ import annotations

from shared.config.kinds.spec import count, switch
from shared.config.stages.spec import StageSpec, number

TTL_S = 3_600.0
ANSWERS_MAX = 1_000
BYTES_MAX = 65_536

CACHE = StageSpec(
    name="cache",
    members={
        "ttl_s": number(1, 30 * 86_400),
        "shared": switch,
        "answers_max": count(1, 100_000),
        "bytes_max": count(1, 1_048_576),
    },
)
