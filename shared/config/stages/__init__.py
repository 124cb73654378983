"""The stages: one line for each.

A new stage is a module here with its `StageSpec`, a line in this table, and the folder
`workers/stages/<name>/`, in which stage.py has a function `build` (workers/stages/kinds.py). Stages
of other packages are entry points, or classes as `package.module:Class`. API nodes and the jobs
role read only the name of such a stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.config.plugin_classes import STAGE_GROUP, plugin_class, plugin_names
from shared.config.stages.audit import AUDIT
from shared.config.stages.cache import CACHE
from shared.config.stages.documents import DOCUMENTS
from shared.config.stages.filter import FILTER
from shared.config.stages.limits import LIMITS
from shared.config.stages.spec import StageSpec, StageTable
from shared.config.stages.transcribe import TRANSCRIBE
from shared.config.stages.usage import USAGE
from shared.errors import ConfigurationError

STAGES_MAX = 16  # of one model

STAGES: Mapping[str, StageSpec] = {
    spec.name: spec for spec in (TRANSCRIBE, DOCUMENTS, FILTER, AUDIT, CACHE, LIMITS, USAGE)
}
PLUGIN = StageSpec(name="plugin", has_any_member=True, is_repeatable=True)


def class_of(stage: str) -> str:
    """Return the class that `stage` names, `package.module:Class`; empty: built in, or unknown."""
    return plugin_class(STAGE_GROUP, stage)


def parse_stages(value: Any, where: str, folder: Path) -> tuple[StageTable, ...]:
    """Check the member `stages` of a model.

    Args:
        where: the place of the member, for messages.
        folder: of the models file.

    Raises:
        ConfigurationError: no list of tables, an unknown stage or member, or a wrong value.
    """
    if not isinstance(value, list):
        raise ConfigurationError(f"{where}: must be a list of tables, each with a member stage")
    if len(value) > STAGES_MAX:
        raise ConfigurationError(f"{where}: at most {STAGES_MAX} stages")
    tables: list[StageTable] = []
    for at, table in enumerate(value):
        tables.append(_parse_stage(table, f"{where}[{at}]", folder))
        spec = STAGES.get(tables[-1].stage, PLUGIN)
        if not spec.is_repeatable and any(t.stage == spec.name for t in tables[:-1]):
            raise ConfigurationError(f"{where}[{at}]: a model has {spec.name} once")
    return tuple(tables)


def _parse_stage(table: Any, where: str, folder: Path) -> StageTable:
    if not isinstance(table, dict) or not isinstance(name := table.get("stage"), str):
        raise ConfigurationError(f'{where}: must be a table with a member stage = "NAME"')
    spec = STAGES.get(name) or (PLUGIN if class_of(name) else None)
    if spec is None:
        names = ", ".join(sorted({*STAGES, *plugin_names(STAGE_GROUP)}))
        raise ConfigurationError(
            f"{where}.stage: must be one of {names}, or a class as package.module:Class"
        )
    rest = {key: value for key, value in table.items() if key != "stage"}
    options = spec.check_members(rest, where)
    return StageTable(stage=name, options=options, where=where, folder=folder)
