"""A third party's stage in a model: calls it, checks its answers, and reports its mistakes."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from shared.config.models import Model
from shared.config.stages import class_of
from shared.config.stages.spec import StageTable
from shared.errors import BackendError, ConfigurationError
from shared.log.events import AnyEvent, Reset, Upstream
from shared.text.redaction import redact
from workers.backends.contract import Finish
from workers.stages.contract import Answer, AnswerStage, Items, Services
from workers.stages.plugin.api import Stage
from workers.stages.plugin.events import events_of, failure

WHERE_CHARACTERS_MAX = 300
KEPT = Reset | Upstream  # the log needs these, whatever a stage makes of them

log = logging.getLogger(__name__)


class PluginStage:
    """One third party's stage of one model."""

    def __init__(self, table: StageTable, made_of: type[Stage]) -> None:
        self._options = table.options
        self._name = table.stage
        self._class = made_of

    def open(self, answer: Answer) -> AnswerPlugin:
        """Return the stage of one attempt. The object is made at its first use, in its thread."""

        def make() -> Stage:
            made = self._class(self._options)
            made.generation_id = answer.meta.generation_id
            made.owner, made.model = answer.meta.owner, answer.model.name
            return made

        return AnswerPlugin(make, self._name)


class AnswerPlugin(AnswerStage):
    """A third party's stage in one attempt."""

    is_apart = True

    def __init__(self, make: Callable[[], Stage], name: str) -> None:
        self._make = make
        self._name = name
        self._made: Stage | None = None

    def _call(self, work: Callable[[Stage], Any]) -> Any:
        try:
            if self._made is None:
                self._made = self._make()
            return work(self._made)
        except BackendError:
            raise
        except Exception as exc:  # whatever a third party's code raises
            raise self._failure(exc) from exc

    def _failure(self, exc: Exception) -> BackendError:
        """Return the failure for an exception, whose text may hold parts of an answer."""
        frames = traceback.extract_tb(exc.__traceback__)
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        data = {
            "stage": self._name,
            "reason": redact(f"{type(exc).__name__}"),
            "where": where[-WHERE_CHARACTERS_MAX:],
        }
        log.error("stage failed", extra=data)
        return failure(f"raised {type(exc).__name__}")

    def fold(self, event: AnyEvent) -> None:
        """See `AnswerStage.fold`."""
        self._call(lambda stage: stage.seen(event))

    def feed(self, items: Items) -> Items:
        """See `AnswerStage.feed`."""
        left: Items = []
        for item in items:
            assert not isinstance(item, Finish)
            answer = self._call(partial(_answer_to, item))
            left += [item] if isinstance(item, KEPT) else answer
            if left and isinstance(left[-1], Finish):
                break
        return left

    def flush(self) -> Items:
        """See `AnswerStage.flush`."""
        found: Items = self._call(lambda stage: events_of(stage.finish()))
        return found


def _answer_to(event: AnyEvent, stage: Stage) -> Items:
    return events_of(stage.event(event))


def build(table: StageTable, model: Model, services: Services) -> PluginStage:
    """Build a third party's stage of a model: see workers/stages/kinds.py."""
    where, name = f"{table.where}.stage", class_of(table.stage)
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as exc:
        raise ConfigurationError(
            f"{where}: cannot import {name}: {type(exc).__name__}: {exc}: "
            "install its package for the workers, or name its folder in PYTHONPATH"
        ) from exc
    if not isinstance(found, type) or not issubclass(found, Stage):
        raise ConfigurationError(f"{where}: {name} does not derive from workers.stages.plugin")
    return PluginStage(table, found)
