"""The stage `audit`: a record of each answer in the file store."""

from __future__ import annotations

from shared.config.kinds.spec import count, switch
from shared.config.stages.spec import StageSpec

DAYS = 365
DAYS_MAX = 36_500

AUDIT = StageSpec(
    name="audit",
    members={"days": count(1, DAYS_MAX), "keep": switch},
)
