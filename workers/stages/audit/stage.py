"""The stage `audit`: its records are made of the log, when a generation has ended.

See shared/audit/writer.py. So the stage sees no events, and costs a worker nothing.
"""

from __future__ import annotations

from shared.config.models import Model
from shared.config.stages.spec import StageTable
from shared.errors import ConfigurationError
from workers.stages.contract import Services


def build(table: StageTable, model: Model, services: Services) -> None:
    """Check that ended generations are settled: see workers/stages/kinds.py."""
    if not services.settings.usage_days:
        raise ConfigurationError(
            f"{table.where}: audit needs TAILRACE_USAGE_DAYS above 0: records are written when the "
            "usage of a generation is counted"
        )
