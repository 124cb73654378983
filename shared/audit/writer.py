"""Writes the audit records of ended generations, before their usage counts as settled.

The settlement of usage (shared/usage/settlement.py) sees every generation that has ended, whichever
process dies, and also before a deletion. So the audit is written there, from meta and the log, and
not by the worker that made the answer. A generation stays unsettled until its record is stored. A
record is written once: a later look finds it and leaves it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

from shared.audit.objects import name_of, rule_of
from shared.audit.record import record_of
from shared.config.models import ModelTable, load_models
from shared.config.settings import Settings
from shared.errors import FilesUnavailable
from shared.files.objects import ObjectStore
from shared.log.log_reader import read_log
from shared.log.records import Entry
from shared.log.store import Store

AT_ONCE = 8  # records in memory
log = logging.getLogger(__name__)


class Audit:
    """The audit of all models.

    Args:
        models: of the models file.
    """

    def __init__(self, store: Store, settings: Settings, models: ModelTable) -> None:
        self._store = store
        self._settings = settings
        self._rules = {name: rule for name, model in models.items() if (rule := rule_of(model))}
        self._any = rule_of(models.pattern) if models.pattern is not None else ""
        self._objects: ObjectStore | None = None
        self._places = asyncio.Semaphore(AT_ONCE)

    async def write(self, ended: Mapping[str, str]) -> set[str]:
        """Write the records of ended generations, and return those that could not be written.

        Args:
            ended: the model of each generation, by id. Other models have no record.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        rules = {name: self._rules.get(model, self._any) for name, model in ended.items()}
        wanted = [(name, rule) for name, rule in rules.items() if rule]
        if not wanted:
            return set()
        problems: dict[str, str] = {}
        try:
            async with asyncio.TaskGroup() as group:
                for name, rule in wanted:
                    group.create_task(self._write(name, rule, problems))
        except ExceptionGroup as found:
            raise found.exceptions[0] from None
        if problems:
            data = {"generations": len(problems), "reason": next(iter(problems.values()))}
            log.error("audit not written", extra=data)
        return set(problems)

    async def _write(self, generation_id: str, rule: str, problems: dict[str, str]) -> None:
        """Write one record, or note why this was not possible."""
        async with self._places:
            meta = await self._store.meta(generation_id)
            if meta is None or (meta := await self._store.with_request(meta)) is None:
                return  # deleted meanwhile, by a step that has written the record
            try:
                objects = self._objects = self._objects or ObjectStore(self._settings)
                name = name_of(meta, rule)
                if await objects.size(name) is not None:
                    return
                entries: list[Entry] = []
                await read_log(self._store, generation_id, lambda *entry: entries.append(entry))
                await objects.put(name, record_of(meta, entries))
            except FilesUnavailable as exc:
                problems[generation_id] = str(exc)


def open_audit(store: Store, settings: Settings) -> Audit | None:
    """Return the audit; None: no model of the models file has one.

    Raises:
        ConfigurationError: the models file cannot be read.
    """
    models = load_models(settings.models, settings.models_skip)
    tables: Iterable[str] = map(rule_of, models.tables.values())
    return Audit(store, settings, models) if any(tables) else None
