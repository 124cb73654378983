"""Connects batches to schedules (start a batch) and to webhooks (find the end of a batch)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.intake.batch_members import batch_object, find_input, read_new_batch
from jobs.schedules import Create
from jobs.webhook_ends import Finder
from shared.batches.record import Batches
from shared.config.settings import Settings
from shared.errors import NotFound
from shared.files.store import FileStore
from shared.later.schedules import Schedule
from shared.later.webhooks import WebhookEvent
from shared.log.ids import BATCH_PREFIX


def scheduled_batches(batches: Batches, files: FileStore, settings: Settings) -> Create:
    """Return the `Create` of batches. It refuses a batch whose input file is absent."""

    async def create(schedule: Schedule, due_ms: int, is_repeat: bool) -> str:
        batch_id = schedule.made_id(BATCH_PREFIX, due_ms)
        new = read_new_batch(
            schedule.request(), owner=schedule.owner, batch_id=batch_id, settings=settings
        )
        if not is_repeat or await batches.load(batch_id) is None:
            await find_input(files, new.input_file_id, schedule.owner)
            await batches.create(new)
        return batch_id

    return create


def batch_end(batches: Batches) -> Finder:
    """Return the `Finder` of batches."""

    async def find(batch_id: str, about: Mapping[str, Any]) -> WebhookEvent | None:
        batch = await batches.load(batch_id)
        if batch is None:
            raise NotFound("batch")
        if not batch.is_final:
            return None
        return WebhookEvent(f"batch.{batch.status}", batch_object(batch))

    return find
