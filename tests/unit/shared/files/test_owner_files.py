"""The count of one owner's files: exact for uploads, and rebuilt after an error."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared.config.settings import Settings
from shared.errors import OwnerFilesFull, StorageFull
from shared.files.objects import ObjectStore
from shared.files.owner_files import Counted, OwnerFileTotals
from shared.files.store import PREFIX, FileRecord, FileStore
from shared.files.sweep import sweep_files
from shared.files.walk import Walk
from shared.redis import keys
from tests.support.pieces import left_in, pieces

BYTES_MAX, FILES_MAX = 100, 5


@pytest.fixture
def files(redis: Redis, tmp_path: Path) -> FileStore:
    settings = Settings(
        files_url=str(tmp_path / "files"),
        owner_file_bytes_max=BYTES_MAX,
        owner_files_max=FILES_MAX,
        files_free_bytes_min=1,
    )
    return FileStore(redis, settings)


async def store(
    files: FileStore, size: int = 10, owner: str = "ann", *, is_bounded: bool = True
) -> FileRecord:
    data = pieces(b"x" * size)
    return await files.create(owner, "a", "batch", data, bytes_max=10**6, is_bounded=is_bounded)


async def forget_count(files: FileStore, owner: str = "ann") -> None:
    """Expire the count, as after an hour."""
    digest = keys.digest_of(owner)
    await files.redis.delete(keys.files_sizes(digest), keys.files_expiries(digest))


async def test_files_count_until_they_are_deleted(files: FileStore) -> None:
    assert await files.owners.kept("ann") == OwnerFileTotals(0, 0)
    first, _ = await store(files, 10), await store(files, 20)
    await store(files, 40, "bob")

    assert await files.owners.kept("ann") == OwnerFileTotals(30, 2)
    await files.delete(first.id, "ann")
    await files.delete(first.id, "ann")
    assert await files.owners.kept("ann") == OwnerFileTotals(20, 1)


async def test_an_expired_file_does_not_count_even_before_a_sweep(files: FileStore) -> None:
    record = await store(files, 10)
    await store(files, 20)
    expiries = keys.files_expiries(keys.digest_of("ann"))
    await files.redis.zadd(expiries, {record.id: 1})

    assert await files.owners.kept("ann") == OwnerFileTotals(20, 1)
    await sweep_files(files, Walk(files.objects, PREFIX))
    assert await files.owners.kept("ann") == OwnerFileTotals(20, 1)


async def test_the_byte_bound_refuses_an_upload(files: FileStore, tmp_path: Path) -> None:
    await store(files, 60)
    with pytest.raises(OwnerFilesFull, match="60 bytes in 1 files"):
        await store(files, 41)
    assert len(left_in(tmp_path)) == 1
    await store(files, 40)
    with pytest.raises(OwnerFilesFull):
        await store(files, 1)


async def test_the_file_bound_refuses_an_upload(files: FileStore) -> None:
    for _ in range(FILES_MAX):
        await store(files, 1)
    with pytest.raises(OwnerFilesFull):
        await store(files, 1)
    await store(files, 1, "bob")


async def test_the_output_of_batches_exceeds_the_bounds_and_counts(files: FileStore) -> None:
    await store(files, 150, is_bounded=False)

    assert await files.owners.kept("ann") == OwnerFileTotals(150, 1)
    with pytest.raises(OwnerFilesFull):
        await store(files, 1)


async def test_simultaneous_uploads_do_not_exceed_the_bound(
    files: FileStore, tmp_path: Path
) -> None:
    """Each upload saw an owner without files."""
    stored = [await files.store(pieces(b"x" * 30), bytes_max=10**6) for _ in range(8)]

    async def record(file_id: str, size: int) -> bool:
        try:
            await files.record(
                file_id, owner="ann", size=size, filename="a", purpose="batch", is_bounded=True
            )
        except OwnerFilesFull:
            return False
        return True

    async with asyncio.TaskGroup() as tasks:
        made = [tasks.create_task(record(*one)) for one in stored]
    assert [task.result() for task in made].count(True) == 3
    assert await files.owners.kept("ann") == OwnerFileTotals(90, 3)
    assert len(left_in(tmp_path)) == 3
    page, _ = await files.page("ann")
    assert len(page) == await files.redis.zcard(keys.FILES_EXPIRY) == 3


async def test_records_of_an_older_version_are_counted(files: FileStore) -> None:
    """The older version wrote records and no count."""
    for size in (10, 20):
        await store(files, size)
    await forget_count(files)

    assert await files.owners.kept("ann") == OwnerFileTotals(30, 2)
    with pytest.raises(OwnerFilesFull):
        await store(files, 71)


async def test_the_first_added_file_starts_the_count(files: FileStore) -> None:
    await store(files, 10)
    await forget_count(files)
    await store(files, 20, is_bounded=False)

    assert await files.owners.kept("ann") == OwnerFileTotals(30, 2)


async def test_a_rebuild_removes_an_error_left_by_a_crash(
    files: FileStore,
) -> None:
    """The crash came between count and record."""
    await store(files, 10)
    await files.owners.add("ann", Counted("file-lost", 50, 2**42), is_bounded=True)
    assert await files.owners.kept("ann") == OwnerFileTotals(60, 2)
    assert 0 < await files.redis.pttl(keys.files_sizes(keys.digest_of("ann"))) <= 3_600_000

    await forget_count(files)
    assert await files.owners.kept("ann") == OwnerFileTotals(10, 1)


async def test_simultaneous_rebuilds_count_once(files: FileStore) -> None:
    for _ in range(4):
        await store(files, 10)
    await forget_count(files)
    async with asyncio.TaskGroup() as tasks:
        counts = [tasks.create_task(files.owners.kept("ann")) for _ in range(5)]

    assert await files.owners.kept("ann") == OwnerFileTotals(40, 4)
    assert all(task.result().bytes <= 40 for task in counts)


async def test_many_files_are_counted_in_pages(
    files: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.files.owner_files.PAGE_READ", 2)
    for _ in range(5):
        await store(files, 10)
    await forget_count(files)

    assert await files.owners.kept("ann") == OwnerFileTotals(50, 5)


async def test_a_full_disk_refuses_uploads_but_not_outputs(
    files: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def free_bytes(self: ObjectStore) -> int:
        return 0

    monkeypatch.setattr(ObjectStore, "free_bytes", free_bytes)
    with pytest.raises(StorageFull):
        await store(files)
    await store(files, is_bounded=False)


async def test_free_bytes_come_from_the_disk(files: FileStore) -> None:
    free = await files.objects.free_bytes()

    assert free is not None and free > 0
