"""Finds the code of a stage: `build` in `workers/stages/<name>/stage.py`."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

from shared.config.models import Model
from shared.config.stages import STAGES
from shared.config.stages.spec import StageTable
from workers.stages.contract import Services, Stage


class Build(Protocol):
    """Builds one stage of one model. Returns None where the worker has nothing to do for it.

    Raises:
        ConfigurationError: a member cannot be used.
    """

    def __call__(self, table: StageTable, model: Model, services: Services) -> Stage | None: ...


def build_stage(table: StageTable, model: Model, services: Services) -> Stage | None:
    """Build the stage of a table. The code is imported when a model has the stage."""
    name = table.stage if table.stage in STAGES else "plugin"
    build = cast(Build, import_module(f"workers.stages.{name}.stage").build)
    return build(table, model, services)
