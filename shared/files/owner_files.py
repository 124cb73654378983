"""The number of bytes and files of each owner, and their bounds.

The records (shared/files/store.py) are authoritative. The count changes with each file that is
recorded, deleted or expires. After an hour it is rebuilt from the records. So an error lasts an
hour at most, for example after a crash between two steps, or while a role of an older version
counts nothing. The keys carry `{files:<digest of the owner>}`. Does not know where the bytes are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shared.config.settings import Settings
from shared.errors import OwnerFilesFull
from shared.redis import keys
from shared.redis.client import Client, clock_ms, translated
from shared.redis.scripts import Scripts

COUNT_KEPT_S = 3_600.0  # age at which a count expires and is rebuilt
PAGE_READ = 500  # records in one round trip
ADDED_AT_ONCE = 10_000  # of a rebuild; an upload between two steps sees too small a count
EXPIRED_MAX = 1_000  # expired files that one call subtracts; the next calls do the rest
LATE_MS = 60_000  # greatest age of a file that was recorded during a rebuild


class OwnerFileTotals(NamedTuple):
    """The bytes and the number of all files of one owner."""

    bytes: int
    files: int


class Counted(NamedTuple):
    """One file in the count; `expires_ms` on Redis's clock."""

    id: str
    bytes: int
    expires_ms: int


class OwnerFiles:
    """The counts of one installation.

    Every method may raise `Unavailable`: Redis did not answer in time.
    """

    def __init__(self, redis: Client, settings: Settings) -> None:
        self.redis = redis
        self.bytes_max = settings.owner_file_bytes_max
        self.files_max = settings.owner_files_max
        self._scripts = Scripts(redis)

    async def kept(self, owner: str) -> OwnerFileTotals:
        """Return the current totals of an owner; rebuild the count if it has expired."""
        digest = keys.digest_of(owner)
        found = await self._scripts.run("files_sum", _names(digest), [EXPIRED_MAX])
        if not found:
            await self._rebuild(digest)
            found = await self._scripts.run("files_sum", _names(digest), [EXPIRED_MAX])
        return OwnerFileTotals(*map(int, found)) if found else OwnerFileTotals(0, 0)

    async def add(self, owner: str, file: Counted, *, is_bounded: bool) -> None:
        """Count a file that will be recorded next. A file that is counted already changes nothing.

        Args:
            is_bounded: refuse a file beyond a bound; False for the output of batches, which must
                not be lost.

        Raises:
            OwnerFilesFull: with this file the owner would exceed a bound.
        """
        digest = keys.digest_of(owner)
        bounds = [self.bytes_max, self.files_max] if is_bounded else ["", ""]
        call = ["", *bounds, *file]
        added = int(await self._scripts.run("files_add", _names(digest), call))
        if added < 0:
            await self._rebuild(digest)
            added = int(await self._scripts.run("files_add", _names(digest), call))
        if added == 0:
            raise self.full(await self.kept(owner))

    async def remove(self, file_id: str, digest: str) -> None:
        """Remove a file from the count, by its id and the digest of its owner."""
        await self._scripts.run("files_remove", _names(digest), [file_id])

    def full(self, kept: OwnerFileTotals) -> OwnerFilesFull:
        """Return the error for a file beyond a bound."""
        return OwnerFilesFull(
            f"with this file the owner would keep more than {self.bytes_max} bytes "
            f"(TAILRACE_OWNER_FILE_BYTES_MAX) or {self.files_max} files "
            f"(TAILRACE_OWNER_FILES_MAX); kept are {kept.bytes} bytes in {kept.files} files: "
            "send a smaller file, delete some, or wait until some expire"
        )

    async def _rebuild(self, digest: str) -> None:
        """Rebuild the count of an owner from the records."""
        begun_ms = await clock_ms(self.redis)
        found = await self._recorded(digest, 0)
        kept_ms = round(COUNT_KEPT_S * 1000)
        await self._add_all(digest, found, kept_ms)
        # Again for files that were recorded meanwhile and found no count.
        await self._add_all(digest, await self._recorded(digest, begun_ms - LATE_MS), kept_ms)

    async def _add_all(self, digest: str, files: Sequence[Counted], kept_ms: int) -> None:
        for start in range(0, max(len(files), 1), ADDED_AT_ONCE):
            words = [word for file in files[start : start + ADDED_AT_ONCE] for word in file]
            await self._scripts.run("files_add", _names(digest), [kept_ms, "", "", *words])

    async def _recorded(self, digest: str, since_ms: int) -> list[Counted]:
        """Return the files with a record that were created at `since_ms` or later."""
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
