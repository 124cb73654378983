"""The room that one upload has: what its owner may still keep, and what is free on the disk.

Asked before a byte is read, by what the upload announces, and again and again while it comes. What
two uploads bring at once is judged when each is recorded (shared/files/owner_files.py); of the disk
they may take `LOOK_BYTES` each beyond what is left free.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable

from shared.errors import StorageFull
from shared.files.objects import ObjectStore
from shared.files.owner_files import OwnerFiles, OwnerFileTotals

LOOK_BYTES = 8_388_608  # between two looks at the disk


class UploadRoom:
    """Made by `FileStore.room`.

    Args:
        kept: what the owner kept when the upload began.
        free_min: bytes that uploads leave free on the disk.
    """

    def __init__(
        self, objects: ObjectStore, owners: OwnerFiles, kept: OwnerFileTotals, *, free_min: int
    ) -> None:
        self._objects = objects
        self._owners = owners
        self._kept = kept
        self._free_min = free_min
        self._looked_at = 0

    async def open(self, announced: int) -> None:
        """Judge an upload by what it announces.

        Args:
            announced: bytes of the file, or fewer; 0: not known.

        Raises:
            OwnerFilesFull, StorageFull, FilesUnavailable.
        """
        if self._kept.files >= self._owners.files_max:
            raise self._owners.full(self._kept)
        self._judge_owner(max(announced, 1))
        await self._judge_disk(announced)

    async def within(self, pieces: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        """Hand an upload on as long as there is room.

        Raises:
            OwnerFilesFull, StorageFull, FilesUnavailable.
        """
        size = 0
        async for piece in pieces:
            size += len(piece)
            self._judge_owner(size)
            if size - self._looked_at >= LOOK_BYTES:
                self._looked_at = size
                await self._judge_disk(0)
            yield piece

    def _judge_owner(self, size: int) -> None:
        if self._kept.bytes + size > self._owners.bytes_max:
            raise self._owners.full(self._kept)

    async def _judge_disk(self, to_come: int) -> None:
        free = await self._objects.free_bytes()
        if free is not None and free - to_come < self._free_min:
            raise StorageFull
