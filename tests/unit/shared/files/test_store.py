"""Files and records: visible when complete, per owner, in pages, gone after delete or expiry."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared.config.settings import Settings
from shared.errors import NotFound, TooLarge
from shared.files.store import FILE_KEPT_S, FileRecord, FileStore
from shared.redis import keys
from tests.support.pieces import left_in, pieces, whole

MAX = 1_000_000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def files(redis: Redis, directory: Path) -> FileStore:
    return FileStore(redis, Settings(files_url=str(directory)))


async def store(
    files: FileStore, name: str = "a.jsonl", owner: str = "ann", **more: object
) -> FileRecord:
    options = {"bytes_max": MAX, **more}
    purpose = str(options.pop("purpose", "batch"))
    return await files.create(owner, name, purpose, pieces(b"one\n", b"two\n"), **options)  # type: ignore[arg-type]


async def test_a_file_is_stored_found_and_read(files: FileStore) -> None:
    record = await store(files, "ä.jsonl")

    assert await files.get(record.id, "ann") == record
    assert (record.bytes, record.filename, record.purpose) == (8, "ä.jsonl", "batch")
    assert record.expires_at - record.created_at == FILE_KEPT_S
    assert await whole(files.read(record)) == b"one\ntwo\n"
    assert await whole(files.read(record, 4)) == b"two\n"


async def test_other_owners_do_not_see_a_file(files: FileStore) -> None:
    record = await store(files)

    assert await files.get(record.id, "bob") is None
    assert not await files.delete(record.id, "bob")
    assert await files.page("bob") == ([], False)
    assert await files.get("file-../../etc/passwd", "ann") is None
    assert await whole(files.read(record)) == b"one\ntwo\n"


async def test_a_file_too_large_or_aborted_leaves_nothing(
    files: FileStore, redis: Redis, directory: Path
) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"x"
        raise ValueError

    with pytest.raises(TooLarge):
        await files.create("ann", "a", "batch", pieces(b"x" * 10, b"y"), bytes_max=10)
    with pytest.raises(ValueError):
        await files.create("ann", "a", "batch", failing(), bytes_max=10)

    assert await redis.keys("tr:file*") == []
    assert left_in(directory) == []
    assert (await files.create("ann", "a", "batch", pieces(b"x" * 10), bytes_max=10)).bytes == 10


async def test_a_given_id_is_stored_once(files: FileStore) -> None:
    first = await store(files, "first", file_id="file-0123456789")
    again = await store(files, "again", file_id="file-0123456789")

    assert again == first
    assert first.id == "file-0123456789"


@pytest.mark.parametrize("order", ["desc", "asc"])
async def test_pages_join_without_gap_or_repeat(files: FileStore, order: str) -> None:
    stored = [
        await store(files, str(number), purpose="batch" if number % 3 else "other")
        for number in range(10)
    ]
    expected = [r.id for r in stored]

    async def walk(limit: int, purpose: str = "") -> list[str]:
        seen: list[FileRecord] = []
        has_more = True
        while has_more:
            after = seen[-1].id if seen else ""
            page, has_more = await files.page(
                "ann", after=after, limit=limit, purpose=purpose, order=order
            )
            assert page or not has_more
            seen += page
        return [record.id for record in seen]

    # Those of one millisecond stand by their ids, in the same order each time.
    everything = await walk(100)
    assert sorted(everything) == sorted(expected)
    times = [(await files.get(file_id, "ann")).created_at for file_id in everything]  # type: ignore[union-attr]
    assert times == sorted(times, reverse=order == "desc")
    for limit in (1, 3, 10):
        assert await walk(limit) == everything
    batch = [r.id for r in stored if r.purpose == "batch"]
    assert sorted(await walk(2, "batch")) == sorted(batch)


async def test_a_page_after_an_unknown_file_is_refused(files: FileStore) -> None:
    with pytest.raises(NotFound):
        await files.page("ann", after="file-none")


async def test_a_deletion_removes_object_and_record(
    files: FileStore, redis: Redis, directory: Path
) -> None:
    record = await store(files)

    assert await files.delete(record.id, "ann")
    assert not await files.delete(record.id, "ann")
    assert await redis.keys("tr:file*") == []
    assert left_in(directory) == []
    with pytest.raises(NotFound):
        await whole(files.read(record))


async def test_an_expired_file_is_gone_at_once(files: FileStore, redis: Redis) -> None:
    record = await store(files, expires_s=3_600)
    assert 3_590_000 < await redis.pttl(keys.file(record.id)) <= 3_600_000
    await redis.pexpire(keys.file(record.id), 0)

    assert await files.get(record.id, "ann") is None
    assert await files.page("ann") == ([], False)


async def test_objects_beside_files(files: FileStore) -> None:
    data = os.urandom(100)
    await files.put_object("batches/b1/out-1", data)

    assert await whole(files.read_object("batches/b1/out-1")) == data
    assert [info.name async for info in files.list_objects("batches")] == ["batches/b1/out-1"]
    assert await files.delete_prefix("batches/b1") == 1
