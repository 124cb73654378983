"""What of files is nobody's any more: found, and deleted.

Expired files, objects that a crash left without a record, records whose object has gone, and what
writers that died left half written. Each step may be repeated and may race with any other. Only
names that files have are touched: whatever else lies in the same place is not ours.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from shared.files.objects import ObjectInfo
from shared.files.store import FILE_ID, PREFIX, FileStore
from shared.redis import keys
from shared.redis.client import clock_ms, translated

ORPHAN_S = 3_600.0  # a record follows its object at once; younger ones may be on their way
EXPIRED_MAX = 1_000  # in one sweep
LOOKED_AT_MAX = 100  # records whose object is looked for in one sweep, chosen at random
ASKED_AT_ONCE = 500


class Swept(NamedTuple):
    """How many of each were found, and are gone."""

    expired: int
    orphans: int
    missing: int
    remains: int


async def sweep_files(files: FileStore) -> Swept:
    """Make one pass over all files; it lists the whole store, so some minutes apart will do.

    Raises:
        Unavailable: the next pass does the rest.
    """
    expired = await _drop_expired(files)
    orphans, seen = await _drop_orphans(files)
    # A store with nothing in it while there are records is one that is not mounted.
    missing = await _drop_missing(files) if seen else 0
    remains = await files.objects.clear_remains(ORPHAN_S)
    return Swept(expired, orphans, missing, remains)


async def _drop_expired(files: FileStore) -> int:
    """The record has gone by itself; the object and the index entries are left."""
    now_ms = await clock_ms(files.redis)
    with translated():
        entries = await files.redis.zrangebyscore(
            keys.FILES_EXPIRY, "-inf", now_ms, start=0, num=EXPIRED_MAX
        )
    for entry in entries:
        file_id, _ = keys.split_file_entry(entry.decode())
        await files.objects.delete(PREFIX + file_id)
        await files.drop(entry.decode())
    return len(entries)


async def _drop_orphans(files: FileStore) -> tuple[int, int]:
    """Returns: how many were deleted, and how many objects there are."""
    dropped = seen = 0
    old: list[ObjectInfo] = []
    before_s = time.time() - ORPHAN_S
    async for info in files.objects.list(PREFIX):
        seen += 1
        if info.modified_s < before_s and FILE_ID.fullmatch(info.name.removeprefix(PREFIX)):
            old.append(info)
        if len(old) == ASKED_AT_ONCE:
            dropped += await _drop_unrecorded(files, old)
            old = []
    return dropped + await _drop_unrecorded(files, old), seen


async def _drop_unrecorded(files: FileStore, infos: list[ObjectInfo]) -> int:
    with translated():
        pipeline = files.redis.pipeline(transaction=False)
        for info in infos:
            pipeline.exists(keys.file(info.name.removeprefix(PREFIX)))
        found = await pipeline.execute() if infos else []
    orphans = [info.name for info, is_known in zip(infos, found, strict=True) if not is_known]
    for name in orphans:
        await files.objects.delete(name)
    return len(orphans)


async def _drop_missing(files: FileStore) -> int:
    """Records that promise what is not there: an object always comes before its record."""
    with translated():
        entries = await files.redis.zrandmember(keys.FILES_EXPIRY, LOOKED_AT_MAX) or []
    dropped = 0
    for entry in entries:
        file_id, _ = keys.split_file_entry(entry.decode())
        if await files.objects.size(PREFIX + file_id) is None:
            await files.drop(entry.decode())
            dropped += 1
    return dropped
