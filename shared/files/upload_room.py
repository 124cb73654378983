"""The room for one upload: the bounds of its owner, and the free space on the disk.

The room is checked before the first byte, by the announced size, and repeatedly while bytes arrive.
Two simultaneous uploads of an owner are checked together when each is recorded
(shared/files/owner_files.py). Each may exceed the reserved disk space by `DISK_CHECK_BYTES`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable

from shared.errors import StorageFull
from shared.files.objects import ObjectStore
from shared.files.owner_files import OwnerFiles, OwnerFileTotals

DISK_CHECK_BYTES = 8_388_608  # received bytes between two checks of the disk


class UploadRoom:
    """The checks of one upload. `FileStore.room` creates it.

    Args:
        kept: the totals of the owner when the upload began.
        free_min: bytes of the disk that uploads must leave free.
    """

    def __init__(
        self, objects: ObjectStore, owners: OwnerFiles, kept: OwnerFileTotals, *, free_min: int
    ) -> None:
        self._objects = objects
        self._owners = owners
        self._kept = kept
        self._free_min = free_min
        self._checked_bytes = 0

    async def open(self, announced: int) -> None:
        """Check an upload by its announced size.

        Args:
            announced: the least size of the file, bytes; 0: unknown.

        Raises:
            OwnerFilesFull: the owner would exceed a bound.
            StorageFull: the disk has too little free space.
            FilesUnavailable: the file store did not answer.
        """
        if self._kept.files >= self._owners.files_max:
            raise self._owners.full(self._kept)
        self._check_owner(max(announced, 1))
        await self._check_disk(announced)

    async def within(self, pieces: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        """Yield the pieces of an upload while there is room.

        Raises:
            OwnerFilesFull, StorageFull, FilesUnavailable: as `open`.
        """
        size = 0
        async for piece in pieces:
            size += len(piece)
            self._check_owner(size)
            if size - self._checked_bytes >= DISK_CHECK_BYTES:
                self._checked_bytes = size
                await self._check_disk(0)
            yield piece

    def _check_owner(self, size: int) -> None:
        if self._kept.bytes + size > self._owners.bytes_max:
            raise self._owners.full(self._kept)

    async def _check_disk(self, to_come: int) -> None:
        free = await self._objects.free_bytes()
        if free is not None and free - to_come < self._free_min:
            raise StorageFull
