"""Files: bytes in the object store, and one record for each in Redis, with its owner.

Invariant: a file exists if its record exists. The object is written before the record. `delete`
deletes the record first. The erasure of an owner (shared/erasure/owner.py) deletes the object
first, so that a failure leaves the record for the next try. After a crash between two steps an
object, a record or an index entry remains alone, and shared/files/sweep.py deletes it. Redis
expires the record itself.
Uploads of one owner are bounded (shared/files/owner_files.py); the output of batches is counted but
never refused.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing, suppress
from typing import NamedTuple

from shared.config.settings import Settings
from shared.errors import FilesUnavailable, NotFound, OwnerFilesFull, TooLarge, Unavailable
from shared.files.objects import ObjectInfo, ObjectStore
from shared.files.owner_files import Counted, OwnerFiles
from shared.files.upload_room import UploadRoom
from shared.log.ids import ALPHABET
from shared.redis import keys
from shared.redis.client import Client, clock_ms, translated

FILE_KEPT_S = 30 * 86_400.0  # until a file without a given expiry expires
PREFIX = "files/"
FILE_ID = re.compile(r"file-[A-Za-z0-9_-]{8,64}", re.ASCII)
PAGE_READ = 500  # records in one round trip


class FileRecord(NamedTuple):
    """The record of a file; times are Unix seconds."""

    id: str
    owner: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    expires_at: int

    @property
    def object_name(self) -> str:
        return PREFIX + self.id


class FileStore:
    """The files of one installation.

    Every method may raise `Unavailable`: Redis or the file store did not answer in time.

    Raises:
        ConfigurationError: TAILRACE_FILES_URL cannot be used.
    """

    def __init__(
        self, redis: Client, settings: Settings, objects: ObjectStore | None = None
    ) -> None:
        self.redis = redis
        self.objects = objects or ObjectStore(settings)
        self.owners = OwnerFiles(redis, settings)
        self._free_min = settings.files_free_bytes_min

    async def room(self, owner: str, announced: int = 0) -> UploadRoom:
        """Check an upload before its first byte, and return the checks for its further bytes.

        Args:
            announced: the least size of the file, bytes; 0: unknown.

        Raises:
            OwnerFilesFull: the owner would exceed a bound.
            StorageFull: the disk has too little free space.
        """
        kept = await self.owners.kept(owner)
        room = UploadRoom(self.objects, self.owners, kept, free_min=self._free_min)
        await room.open(announced)
        return room

    async def create(
        self,
        owner: str,
        filename: str,
        purpose: str,
        chunks: AsyncIterable[bytes],
        *,
        bytes_max: int,
        expires_s: float | None = None,
        file_id: str = "",
        is_bounded: bool = False,
    ) -> FileRecord:
        """Store a file from a stream. The file becomes visible when it is complete.

        Args:
            bytes_max: the largest allowed size.
            expires_s: from now; None: `FILE_KEPT_S`.
            file_id: of a file that may exist: then its record is returned, and `chunks` is not
                read. Two simultaneous calls must store the same bytes.
            is_bounded: apply the bounds of the owner, because a client uploads the file.

        Raises:
            TooLarge: the file is larger than `bytes_max`.
            OwnerFilesFull, StorageFull: as `room`.
            An error of `chunks` is raised, too. In all these cases nothing is left.
        """
        if file_id and (found := await self._load(file_id)) is not None:
            return found
        if is_bounded:
            chunks = (await self.room(owner)).within(chunks)
        file_id, size = await self.store(chunks, bytes_max=bytes_max, file_id=file_id)
        return await self.record(
            file_id,
            owner=owner,
            size=size,
            filename=filename,
            purpose=purpose,
            expires_s=expires_s,
            is_bounded=is_bounded,
        )

    async def store(
        self, chunks: AsyncIterable[bytes], *, bytes_max: int, file_id: str = ""
    ) -> tuple[str, int]:
        """Do the first half of `create`, if the caller learns the rest only after the last byte.

        Without a following `record` the object is an orphan, and is swept.

        Returns:
            the id, and the number of bytes.
        """
        file_id = file_id or new_file_id()
        assert FILE_ID.fullmatch(file_id), file_id
        size = _Size(bytes_max)
        async with aclosing(size.counted(chunks)) as pieces:
            await self.objects.put(PREFIX + file_id, pieces)
        return file_id, size.bytes

    async def record(
        self,
        file_id: str,
        *,
        owner: str,
        size: int,
        filename: str,
        purpose: str,
        expires_s: float | None = None,
        is_bounded: bool = False,
    ) -> FileRecord:
        """Write the record of a stored object: the second half of `create`.

        The indexes come first, because an entry without a record is skipped and swept. Then one
        script counts the file and checks the bound, so that simultaneous uploads do not exceed it.

        Raises:
            OwnerFilesFull: the owner would exceed a bound; the object is deleted.
        """
        now_ms = await clock_ms(self.redis)
        expires_ms = now_ms + round((FILE_KEPT_S if expires_s is None else expires_s) * 1000)
        fields = {
            "owner": owner, "bytes": str(size), "filename": filename, "purpose": purpose,
            "created": str(now_ms), "expires": str(expires_ms),
        }  # fmt: skip
        entry = keys.file_entry(file_id, owner)
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.zadd(keys.FILES_EXPIRY, {entry: expires_ms})
            pipeline.zadd(keys.files_by(keys.digest_of(owner)), {file_id: now_ms})
            await pipeline.execute()
        try:
            counted = Counted(file_id, size, expires_ms)
            await self.owners.add(owner, counted, is_bounded=is_bounded)
        except OwnerFilesFull:
            await self._delete(PREFIX + file_id, entry)
            raise
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.hset(keys.file(file_id), mapping=fields)
            pipeline.pexpireat(keys.file(file_id), expires_ms)
            await pipeline.execute()
        return FileRecord(
            id=file_id, owner=owner, bytes=size, created_at=now_ms // 1000,
            filename=filename, purpose=purpose, expires_at=expires_ms // 1000,
        )  # fmt: skip

    async def get(self, file_id: str, owner: str) -> FileRecord | None:
        """Return the record of an owner's file; None: absent, or of another owner."""
        if FILE_ID.fullmatch(file_id) is None:
            return None
        record = await self._load(file_id)
        return record if record is not None and record.owner == owner else None

    async def page(
        self,
        owner: str,
        *,
        after: str = "",
        limit: int = 100,
        purpose: str = "",
        order: str = "desc",
    ) -> tuple[list[FileRecord], bool]:
        """Return up to `limit` files of an owner by age, and whether there are more.

        Args:
            after: the id of the last file of the page before.
            purpose: only files with this purpose; empty: all files.
            order: `desc` (newest first) or `asc`.

        Raises:
            NotFound: `after` is not a file of this owner.
        """
        is_newest_first = order == "desc"
        place = await self._place_after(owner, after, is_newest_first) if after else 0
        found: list[FileRecord] = []
        while len(found) <= limit:
            wanted = min(PAGE_READ, limit + 1) if not purpose else PAGE_READ
            with translated():
                ids = await self.redis.zrange(
                    keys.files_by(keys.digest_of(owner)),
                    place,
                    place + wanted - 1,
                    desc=is_newest_first,
                )
            records = await self._load_many([file_id.decode() for file_id in ids])
            found += [r for r in records if r.owner == owner and purpose in ("", r.purpose)]
            place += len(ids)
            if len(ids) < wanted:
                break
        return found[:limit], len(found) > limit

    async def _place_after(self, owner: str, after: str, is_newest_first: bool) -> int:
        index = keys.files_by(keys.digest_of(owner))
        with translated():
            if is_newest_first:
                rank = await self.redis.zrevrank(index, after.encode("utf-8", "replace"))
            else:
                rank = await self.redis.zrank(index, after.encode("utf-8", "replace"))
        if rank is None:
            raise NotFound("file: after")
        return int(rank) + 1

    async def delete(self, file_id: str, owner: str) -> bool:
        """Delete a file of an owner; False: absent, or of another owner."""
        record = await self.get(file_id, owner)
        if record is None:
            return False
        await self._delete(record.object_name, keys.file_entry(record.id, owner))
        return True

    async def _delete(self, name: str, entry: str) -> None:
        await self.drop(entry)
        with suppress(FilesUnavailable):  # an object without a record is swept
            await self.objects.delete(name)

    async def drop(self, entry: str) -> None:
        """Delete the record but not the object, by its entry in `FILES_EXPIRY`."""
        file_id, digest = keys.split_file_entry(entry)
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.delete(keys.file(file_id))
            pipeline.zrem(keys.files_by(digest), file_id)
            pipeline.zrem(keys.FILES_EXPIRY, entry)
            await pipeline.execute()
        with suppress(Unavailable):  # the count is rebuilt within an hour
            await self.owners.remove(file_id, digest)

    async def read(self, record: FileRecord, start: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a file from `start` on.

        Raises:
            NotFound: the object is absent; raised before the first piece.
        """
        try:
            async with aclosing(self.objects.read(record.object_name, start)) as pieces:
                async for piece in pieces:
                    yield piece
        except FileNotFoundError:
            raise NotFound("file") from None

    # Objects without a record: the parts of a batch's output

    async def put_object(self, name: str, data: bytes | AsyncIterable[bytes]) -> None:
        """Write an object, and replace one of the same name."""
        await self.objects.put(name, data)

    def read_object(self, name: str, start: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of an object; FileNotFoundError: absent."""
        return self.objects.read(name, start)

    def list_objects(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield the objects below a path (whole segments), in any order."""
        return self.objects.list(prefix)

    async def delete_prefix(self, prefix: str) -> int:
        """Delete every object below a path, and return their number."""
        return await self.objects.delete_prefix(prefix)

    async def _load(self, file_id: str) -> FileRecord | None:
        return next(iter(await self._load_many([file_id])), None)

    async def _load_many(self, ids: list[str]) -> list[FileRecord]:
        """Return the records that exist, in the order of `ids`."""
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for file_id in ids:
                pipeline.hgetall(keys.file(file_id))
            replies = await pipeline.execute() if ids else []
        parsed = [_parse(*pair) for pair in zip(ids, replies, strict=True)]
        return [record for record in parsed if record is not None]


class _Size:
    """Counts the bytes of a stream, and raises TooLarge beyond a limit."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes = 0
        self.bytes_max = bytes_max

    async def counted(self, chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            self.bytes += len(chunk)
            if self.bytes > self.bytes_max:
                raise TooLarge(f"the file is larger than {self.bytes_max} bytes")
            yield chunk


def new_file_id() -> str:
    """Return a new id: 130 random bits."""
    return "file-" + "".join(secrets.choice(ALPHABET) for _ in range(26))


def _parse(file_id: str, fields: dict[bytes, bytes]) -> FileRecord | None:
    """Decode a record; None: absent or incomplete (it expired during the write)."""
    try:
        return FileRecord(
            id=file_id,
            owner=fields[b"owner"].decode(),
            bytes=int(fields[b"bytes"]),
            created_at=int(fields[b"created"]) // 1000,
            filename=fields[b"filename"].decode(),
            purpose=fields[b"purpose"].decode(),
            expires_at=int(fields[b"expires"]) // 1000,
        )
    except KeyError:
        return None
