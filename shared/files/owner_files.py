"""How many bytes and files each owner keeps: a count beside the records, and its bounds.

The records (shared/files/store.py) are the truth. The count follows each file that is recorded,
deleted or expires, and is made anew from the records when it is an hour old, so that a crash
between two steps, or a role of an older version that counts nothing, is forgotten after that. Its
keys carry `{files:<digest of the owner>}`. Knows nothing of where the bytes lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shared.config.settings import Settings
from shared.errors import OwnerFilesFull
from shared.redis import keys
from shared.redis.client import Client, clock_ms, translated
from shared.redis.scripts import Scripts

COUNTED_S = 3_600.0  # then the files are counted anew
PAGE_READ = 500
ADDED_AT_ONCE = 10_000  # an upload that comes in between two of these steps sees too few
EXPIRED_MAX = 1_000  # taken off in one look; the next looks take the others
LATE_MS = 60_000  # a file that was recorded while the others were counted has an age below this


class OwnerFileTotals(NamedTuple):
    """What one owner keeps."""

    bytes: int
    files: int


class Counted(NamedTuple):
    """One file, as it is counted."""

    id: str
    bytes: int
    expires_ms: int


class OwnerFiles:
    """The counts of one installation. Every method may raise `Unavailable`."""

    def __init__(self, redis: Client, settings: Settings) -> None:
        self.redis = redis
        self.bytes_max = settings.owner_file_bytes_max
        self.files_max = settings.owner_files_max
        self._scripts = Scripts(redis)

    async def kept(self, owner: str) -> OwnerFileTotals:
        """Return what an owner keeps now."""
        digest = keys.digest_of(owner)
        found = await self._scripts.run("files_sum", _names(digest), [EXPIRED_MAX])
        if not found:
            await self._count(digest)
            found = await self._scripts.run("files_sum", _names(digest), [EXPIRED_MAX])
        return OwnerFileTotals(*map(int, found)) if found else OwnerFileTotals(0, 0)

    async def add(self, owner: str, file: Counted, *, is_bounded: bool) -> None:
        """Count a file that is about to be recorded; one that is counted already changes nothing.

        Args:
            is_bounded: refuse what passes a bound. What batches write is not to be lost.

        Raises:
            OwnerFilesFull.
        """
        digest = keys.digest_of(owner)
        bounds = [self.bytes_max, self.files_max] if is_bounded else ["", ""]
        call = ["", *bounds, *file]
        added = int(await self._scripts.run("files_add", _names(digest), call))
        if added < 0:
            await self._count(digest)
            added = int(await self._scripts.run("files_add", _names(digest), call))
        if added == 0:
            raise self.full(await self.kept(owner))

    async def remove(self, file_id: str, digest: str) -> None:
        """Count a file no more, by its id and the digest of its owner."""
        await self._scripts.run("files_remove", _names(digest), [file_id])

    def full(self, kept: OwnerFileTotals) -> OwnerFilesFull:
        return OwnerFilesFull(
            f"with this file the owner would keep more than {self.bytes_max} bytes "
            f"(TAILRACE_OWNER_FILE_BYTES_MAX) or {self.files_max} files "
            f"(TAILRACE_OWNER_FILES_MAX); kept are {kept.bytes} bytes in {kept.files} files: "
            "send a smaller file, delete some, or wait until some expire"
        )

    async def _count(self, digest: str) -> None:
        """Count all files of an owner, from their records."""
        begun_ms = await clock_ms(self.redis)
        found = await self._recorded(digest, 0)
        kept_ms = round(COUNTED_S * 1000)
        await self._add_all(digest, found, kept_ms)
        # One that was recorded meanwhile, and found no count to be added to.
        await self._add_all(digest, await self._recorded(digest, begun_ms - LATE_MS), kept_ms)

    async def _add_all(self, digest: str, files: Sequence[Counted], kept_ms: int) -> None:
        for start in range(0, max(len(files), 1), ADDED_AT_ONCE):
            words = [word for file in files[start : start + ADDED_AT_ONCE] for word in file]
            await self._scripts.run("files_add", _names(digest), [kept_ms, "", "", *words])

    async def _recorded(self, digest: str, since_ms: int) -> list[Counted]:
        """The files that have a record, of those that were made at this time or later."""
        found: list[Counted] = []
        start = 0
        while True:
            with translated():
                raws = await self.redis.zrangebyscore(
                    keys.files_by(digest), since_ms, "+inf", start=start, num=PAGE_READ
                )
                ids = [raw.decode() for raw in raws]
                pipeline = self.redis.pipeline(transaction=False)
                for file_id in ids:
                    pipeline.hmget(keys.file(file_id), ["bytes", "expires"])
                replies = await pipeline.execute() if ids else []
            found += [
                Counted(file_id, int(size), int(expires_ms))
                for file_id, (size, expires_ms) in zip(ids, replies, strict=True)
                if size and expires_ms
            ]
            start += PAGE_READ
            if len(ids) < PAGE_READ:
                return found


def _names(digest: str) -> list[str]:
    return [keys.files_expiries(digest), keys.files_sizes(digest)]
