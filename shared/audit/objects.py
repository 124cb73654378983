"""The names of audit records in the file store, which say how long and for whom they are kept.

    audit/<digest of the owner>/<rule>/<day of the request>/<id>.json
    <rule>: `365`: kept for 365 days. `365-kept`: kept even if the owner is erased

Pure, except for `forget` and `sweep`. These may raise `FilesUnavailable`.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

from shared.config.models import Model
from shared.config.stages.audit import DAYS
from shared.files.objects import ObjectStore
from shared.files.walk import Walk
from shared.log.records import Meta
from shared.redis.keys import digest_of

PREFIX = "audit"
DELETED_AT_ONCE = 100
_NAME = re.compile(r"audit/[0-9a-f]{40}/([0-9]{1,5})(-kept)?/([0-9-]{10})/[^/]+\.json", re.ASCII)


def rule_of(model: Model) -> str:
    """Return the rule of a model; empty: it has no stage `audit`."""
    for table in model.stages:
        if table.stage == "audit":
            kept = "-kept" if table.options.get("keep", False) else ""
            return f"{table.options.get('days', DAYS)}{kept}"
    return ""


def name_of(meta: Meta, rule: str) -> str:
    """Return the name of the record of a generation."""
    day = datetime.fromtimestamp(meta.created_at_ms / 1000, UTC).date()
    return f"{PREFIX}/{digest_of(meta.owner)}/{rule}/{day.isoformat()}/{meta.generation_id}.json"


def is_expired(name: str, today: date) -> bool:
    """Whether a record is older than its rule says. Other names are never expired."""
    match = _NAME.fullmatch(name)
    if match is None:
        return False
    try:
        return date.fromisoformat(match[3]) + timedelta(int(match[1])) < today
    except (ValueError, OverflowError):
        return False


async def forget(objects: ObjectStore, owner: str) -> int:
    """Delete the records of an owner, except those that are kept; return their number."""
    names = [info.name async for info in objects.list(f"{PREFIX}/{digest_of(owner)}")]
    matches = [(name, _NAME.fullmatch(name)) for name in names]
    erased = [name for name, match in matches if match is not None and not match[2]]
    for name in erased:
        await objects.delete(name)
    return len(erased)


async def sweep(objects: ObjectStore, walk: Walk, today: date) -> int:
    """Delete expired records of the next part of the walk, and return their number.

    They are deleted during the listing, so a pass that is broken off has deleted some.

    Args:
        walk: below `PREFIX`.
    """
    deleted, expired = 0, list[str]()
    async for info in walk.part():
        if is_expired(info.name, today):
            expired.append(info.name)
        if len(expired) == DELETED_AT_ONCE:
            await objects.delete_many(expired)
            deleted += len(expired)
            expired = []
    await objects.delete_many(expired)
    return deleted + len(expired)
