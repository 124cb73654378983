"""The stage `usage`: hands the prices to the count of the answer (workers/writing/pricing.py).

The counts of a whole answer are known behind all stages, where the tokens of all attempts are
added. So this stage sees no events.
"""

from __future__ import annotations

from shared.config.models import Model
from shared.config.stages.spec import StageTable
from workers.stages.contract import Services


def build(table: StageTable, model: Model, services: Services) -> None:
    """Build nothing: see `pricing_of` in workers/stages/__init__.py."""
