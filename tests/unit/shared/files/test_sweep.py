"""The sweep deletes the remains of files, and nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared.config.settings import Settings
from shared.files import sweep
from shared.files.store import PREFIX, FileRecord, FileStore
from shared.files.sweep import ORPHAN_S, Swept, sweep_files
from shared.files.walk import Walk
from shared.redis import keys
from tests.support.pieces import left_in, pieces

NOTHING = Swept(0, 0, 0, 0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def files(redis: Redis, directory: Path) -> FileStore:
    return FileStore(redis, Settings(files_url=str(directory)))


async def store(files: FileStore, owner: str = "ann") -> FileRecord:
    return await files.create(owner, "a", "batch", pieces(b"abc"), bytes_max=100)


def make_old(path: Path) -> None:
    then = path.stat().st_mtime - ORPHAN_S - 1
    os.utime(path, (then, then))


async def expire(redis: Redis, record: FileRecord) -> None:
    """Expire a file: Redis deletes the record by itself."""
    await redis.delete(keys.file(record.id))
    await redis.zadd(keys.FILES_EXPIRY, {keys.file_entry(record.id, record.owner): 1})


async def test_files_in_order_stay(files: FileStore, redis: Redis, directory: Path) -> None:
    kept = [await store(files), await store(files, "bob")]
    await files.put_object("batches/b/part-1", b"x")
    make_old(directory / kept[0].object_name)

    assert await sweep_files(files, Walk(files.objects, PREFIX)) == NOTHING
    assert len(left_in(directory)) == 3
    assert (await files.page("ann"))[0] == kept[:1]


async def test_expired_files_are_removed_with_their_index_entries(
    files: FileStore, redis: Redis, directory: Path
) -> None:
    gone, kept = await store(files), await store(files)
    await expire(redis, gone)

    assert await sweep_files(files, Walk(files.objects, PREFIX)) == NOTHING._replace(expired=1)
    assert left_in(directory) == [kept.id]
    assert await redis.zrange(keys.files_by(keys.digest_of("ann")), 0, -1) == [kept.id.encode()]
    assert await redis.zcard(keys.FILES_EXPIRY) == 1
    assert await sweep_files(files, Walk(files.objects, PREFIX)) == NOTHING


async def test_a_slow_store_deletes_some_expired_files_in_each_sweep(
    files: FileStore, redis: Redis, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "EXPIRED_S", 0.0)
    for _ in range(2):
        await expire(redis, await store(files))

    for left in (1, 0):
        assert (await sweep_files(files, Walk(files.objects, PREFIX))).expired == 1
        assert len(left_in(directory)) == left


async def test_expired_and_deleted_at_once_is_no_error(
    files: FileStore, redis: Redis, directory: Path
) -> None:
    gone = await store(files)
    await expire(redis, gone)
    (directory / gone.object_name).unlink()

    assert (await sweep_files(files, Walk(files.objects, PREFIX))).expired == 1
    assert await redis.keys("tr:file*") == []


async def test_an_object_without_a_record_is_deleted_after_an_hour(
    files: FileStore, directory: Path
) -> None:
    await files.store(pieces(b"new"), bytes_max=10)
    old, _ = await files.store(pieces(b"old"), bytes_max=10)
    make_old(directory / "files" / old)
    await files.put_object("files/readme.txt", b"not ours")
    make_old(directory / "files" / "readme.txt")

    assert await sweep_files(files, Walk(files.objects, PREFIX)) == NOTHING._replace(orphans=1)
    assert len(left_in(directory)) == 2 and old not in left_in(directory)


async def test_a_record_without_an_object_is_deleted(
    files: FileStore, redis: Redis, directory: Path
) -> None:
    gone, kept = await store(files), await store(files)
    (directory / gone.object_name).unlink()

    assert await sweep_files(files, Walk(files.objects, PREFIX)) == NOTHING._replace(missing=1)
    assert (await files.page("ann"))[0] == [kept]
    assert await redis.zcard(keys.FILES_EXPIRY) == 1


async def test_with_an_unmounted_store_no_record_is_deleted(
    files: FileStore, redis: Redis, directory: Path
) -> None:
    kept = await store(files)
    shutil.rmtree(directory)

    assert await sweep_files(files, Walk(files.objects, PREFIX)) == NOTHING
    assert await files.get(kept.id, "ann") == kept


async def test_unfinished_writes_are_deleted(files: FileStore, directory: Path) -> None:
    await store(files)
    half = directory / "files" / "file-0123456789#1"
    half.write_bytes(b"half")
    make_old(half)

    assert await sweep_files(files, Walk(files.objects, PREFIX)) == NOTHING._replace(remains=1)
    assert not any("#" in name for name in left_in(directory))


async def test_many_expired_files_need_several_sweeps(
    files: FileStore, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "EXPIRED_PER_SWEEP", 20)
    await redis.zadd(
        keys.FILES_EXPIRY,
        {keys.file_entry(f"file-{number:08}", "ann"): 1 for number in range(20 + 3)},
    )
    assert (await sweep_files(files, Walk(files.objects, PREFIX))).expired == 20
    assert (await sweep_files(files, Walk(files.objects, PREFIX))).expired == 3
