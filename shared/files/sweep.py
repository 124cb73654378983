"""Deletes the remains of files.

These are expired files, objects without a record (after a crash), records without an object, and
unfinished writes of dead processes. Each step may be repeated and may race with any other step.
Invariant: only objects with the name of a file are deleted, because other programs may use the same
directory or bucket.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from shared.files.objects import ObjectInfo
from shared.files.store import FILE_ID, PREFIX, FileStore
from shared.files.walk import Walk
from shared.redis import keys
from shared.redis.client import clock_ms, translated

ORPHAN_S = 3_600.0  # age from which an object without a record is deleted; normally both exist
EXPIRED_PER_SWEEP = 1_000
EXPIRED_S = 10.0  # of one sweep; with `shared.files.walk.PART_S` less than a check may take
RECORDS_PER_SWEEP = 100  # random records whose objects one sweep checks
ASKED_AT_ONCE = 500  # records in one round trip


class Swept(NamedTuple):
    """The numbers of deleted remains: expired files, objects, records and unfinished writes."""

    expired: int
    orphans: int
    missing: int
    remains: int


async def sweep_files(files: FileStore, walk: Walk) -> Swept:
    """Make one pass over expired files, and over the next part of all files.

    Args:
        walk: below `PREFIX`.

    Raises:
        Unavailable: Redis or the file store did not answer; the next pass does the rest.
    """
    expired = await _drop_expired(files)
    orphans = await _drop_orphans(files, walk)
    # An empty store with records is probably not mounted: then delete no records.
    is_mounted = await anext(aiter(files.objects.list(PREFIX)), None) is not None
    missing = await _drop_missing(files) if is_mounted else 0
    remains = await files.objects.clear_remains(ORPHAN_S)
    return Swept(expired, orphans, missing, remains)


async def _drop_expired(files: FileStore) -> int:
    """Delete the objects and index entries of expired files for `EXPIRED_S`, but at least of one.

    Redis has expired the records.

    Returns:
        the number of files.
    """
    until_s = time.monotonic() + EXPIRED_S
    now_ms = await clock_ms(files.redis)
    with translated():
        entries = await files.redis.zrangebyscore(
            keys.FILES_EXPIRY, "-inf", now_ms, start=0, num=EXPIRED_PER_SWEEP
        )
    dropped = 0
    for entry in entries:
        file_id, _ = keys.split_file_entry(entry.decode())
        await files.objects.delete(PREFIX + file_id)
        await files.drop(entry.decode())
        dropped += 1
        if time.monotonic() >= until_s:
            break
    return dropped


async def _drop_orphans(files: FileStore, walk: Walk) -> int:
    """Delete old objects without a record, and return their number."""
    dropped = 0
    old: list[ObjectInfo] = []
    before_s = time.time() - ORPHAN_S
    async for info in walk.part():
        if info.modified_s < before_s and FILE_ID.fullmatch(info.name.removeprefix(PREFIX)):
            old.append(info)
        if len(old) == ASKED_AT_ONCE:
            dropped += await _drop_unrecorded(files, old)
            old = []
    return dropped + await _drop_unrecorded(files, old)


async def _drop_unrecorded(files: FileStore, infos: list[ObjectInfo]) -> int:
    with translated():
        pipeline = files.redis.pipeline(transaction=False)
        for info in infos:
            pipeline.exists(keys.file(info.name.removeprefix(PREFIX)))
        found = await pipeline.execute() if infos else []
    orphans = [info.name for info, is_known in zip(infos, found, strict=True) if not is_known]
    await files.objects.delete_many(orphans)
    return len(orphans)


async def _drop_missing(files: FileStore) -> int:
    """Delete records without an object. An object is always written before its record."""
    with translated():
        entries = await files.redis.zrandmember(keys.FILES_EXPIRY, RECORDS_PER_SWEEP) or []
    dropped = 0
    for entry in entries:
        file_id, _ = keys.split_file_entry(entry.decode())
        if await files.objects.size(PREFIX + file_id) is None:
            await files.drop(entry.decode())
            dropped += 1
    return dropped
