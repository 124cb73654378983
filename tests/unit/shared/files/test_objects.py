"""Objects in a directory: complete or absent, streamed, and no remains after an abort."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.config.settings import Settings
from shared.errors import ConfigurationError, FilesUnavailable, Unavailable
from shared.files.objects import LOCAL_PART_BYTES, REMOTE_PART_BYTES, ObjectStore
from tests.support.pieces import left_in, mode_of, pieces, whole
from tests.support.s3_server import S3Server, s3_server
from tests.support.wait import until


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "files"


@pytest.fixture
def objects(directory: Path) -> ObjectStore:
    return ObjectStore(Settings(data_dir=str(directory.parent)))


@pytest.fixture
async def bucket(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Server]:
    async with s3_server() as server:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture(params=["directory", "bucket"])
def anywhere(request: pytest.FixtureRequest) -> ObjectStore:
    """The same test on both kinds of place; the bucket is one that a prefix shares with others."""
    if request.param == "directory":
        found: ObjectStore = request.getfixturevalue("objects")
        return found
    server: S3Server = request.getfixturevalue("bucket")
    server.objects["elsewhere/x"] = b"not ours"
    return ObjectStore(Settings(files_url="s3://bucket/our/own"))


async def test_an_object_can_be_read_from_any_offset(anywhere: ObjectStore) -> None:
    data = os.urandom(3 * LOCAL_PART_BYTES + 5)
    await anywhere.put("a/streamed", pieces(data[:100], data[100:2_000_000], data[2_000_000:]))
    await anywhere.put("a/whole", b"short")

    assert await whole(anywhere.read("a/streamed")) == data
    assert await whole(anywhere.read("a/streamed", len(data) - 7)) == data[-7:]
    assert await whole(anywhere.read("a/streamed", len(data))) == b""
    assert await whole(anywhere.read("a/whole", 9)) == b""
    assert await anywhere.size("a/streamed") == len(data)
    assert {info.name: info.bytes async for info in anywhere.list("a")} == {
        "a/streamed": len(data),
        "a/whole": 5,
    }


async def test_an_object_may_be_empty_and_may_be_replaced(anywhere: ObjectStore) -> None:
    await anywhere.put("x", pieces(b"first"))
    await anywhere.put("x", pieces())

    assert await whole(anywhere.read("x")) == b""
    assert await anywhere.size("x") == 0


async def test_an_absent_object_is_reported(anywhere: ObjectStore) -> None:
    with pytest.raises(FileNotFoundError):
        await whole(anywhere.read("none"))
    with pytest.raises(FileNotFoundError):
        await whole(anywhere.read("none", 5))

    assert await anywhere.size("none") is None
    await anywhere.delete("none")
    assert [info async for info in anywhere.list("none")] == []


async def test_a_prefix_is_whole_segments(anywhere: ObjectStore) -> None:
    for name in ("b/1/part-1", "b/1/part-2", "b/10/part-1"):
        await anywhere.put(name, b"x")

    assert await anywhere.delete_prefix("b/1") == 2
    assert [info.name async for info in anywhere.list("b")] == ["b/10/part-1"]


async def test_a_source_that_fails_leaves_nothing(objects: ObjectStore, directory: Path) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield os.urandom(2 * LOCAL_PART_BYTES)
        raise ValueError("the source")

    with pytest.raises(ValueError, match="the source"):
        await objects.put("broken", failing())

    assert left_in(directory) == []


def is_pulling() -> bool:
    return any("__anext__" in repr(task.get_coro()) for task in asyncio.all_tasks())


async def test_a_writer_that_is_cancelled_leaves_nothing(
    objects: ObjectStore, directory: Path
) -> None:
    is_half_way, ended = asyncio.Event(), []

    async def endless() -> AsyncIterator[bytes]:
        try:
            for _ in range(4):
                yield os.urandom(LOCAL_PART_BYTES)
            is_half_way.set()
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    before = asyncio.all_tasks()
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(objects.put("broken", endless()))
        await is_half_way.wait()
        assert [info async for info in objects.list()] == []
        await until(is_pulling, 5, "the store waits for more")
        writing.cancel()

    assert ended == [True]
    for _ in range(20):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before, "something goes on pulling"
    await until(lambda: left_in(directory) == [], 5, "what was half written goes")


async def test_a_failing_store_ends_the_source(objects: ObjectStore, directory: Path) -> None:
    await objects.put("file", b"x")

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield os.urandom(LOCAL_PART_BYTES)

    with pytest.raises(Unavailable, match="the file store refuses"):
        await objects.put("file/below", endless())

    assert left_in(directory) == ["file"]


# In a bucket


async def test_a_large_object_is_written_in_parts_that_s3_accepts(bucket: S3Server) -> None:
    objects = ObjectStore(Settings(files_url="s3://bucket/p"))
    data = os.urandom(REMOTE_PART_BYTES + 1_000)
    await objects.put(
        "a", pieces(*(data[at : at + 100_000] for at in range(0, len(data), 100_000)))
    )

    assert bucket.finished == [[REMOTE_PART_BYTES, 1_000]]
    assert bucket.objects["p/a"] == data
    assert await whole(objects.read("a", REMOTE_PART_BYTES)) == data[-1_000:]


async def test_a_failed_upload_is_aborted(bucket: S3Server) -> None:
    objects = ObjectStore(Settings(files_url="s3://bucket/p"))

    async def failing() -> AsyncIterator[bytes]:
        yield b"x" * (REMOTE_PART_BYTES + 1)
        raise ValueError("the source")

    with pytest.raises(ValueError, match="the source"):
        await objects.put("a", failing())

    assert (bucket.objects, bucket.uploads, bucket.aborted) == ({}, {}, 1)


async def test_a_bucket_that_refuses_is_unavailable(bucket: S3Server) -> None:
    objects = ObjectStore(Settings(files_url="s3://bucket/p"))
    bucket.is_away = True

    for asked in (
        objects.put("a", b"x"), objects.put("a", pieces(b"x")), objects.size("a"),
        objects.delete("a"), whole(objects.read("a")), anext(objects.list()),
    ):  # fmt: skip
        with pytest.raises(Unavailable, match="the file store refuses"):
            await asked


# In a directory


async def test_the_directory_is_created_on_use_and_private(
    objects: ObjectStore, directory: Path
) -> None:
    assert mode_of(directory) is None
    await objects.put("a/b", b"x")

    assert mode_of(directory) == 0o700


async def test_remains_of_a_dead_writer_are_deleted(objects: ObjectStore, directory: Path) -> None:
    await objects.put("files/kept", b"x")
    for name, age_s in (("files/old#1", 7_200), ("files/new#1", 0), ("files/old#x", 7_200)):
        path = directory / name
        path.write_bytes(b"half")
        os.utime(path, (path.stat().st_mtime - age_s,) * 2)

    assert await objects.clear_remains(3_600) == 1
    assert left_in(directory) == ["kept", "new#1", "old#x"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("relative/path", "must be a directory's absolute path"),
        ("ftp://host/x", "must be a directory's absolute path"),
        ("memory:///", "must be a directory's absolute path"),
        ("file://elsewhere/x", "file:///absolute/path"),
        ("az://container", "Account must be specified"),
        ("s3://", "Unable to recognise URL"),
        ("/dev/null/files", "no directory that can be written to"),
    ],
)
def test_an_unusable_url_has_an_error_of_one_line(url: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ObjectStore(Settings(files_url=url))

    assert "TAILRACE_FILES_URL" in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_place_that_no_setting_names_is_needed_only_when_it_is_used() -> None:
    objects = ObjectStore(Settings(data_dir="/dev/null"))

    with pytest.raises(FilesUnavailable, match="set TAILRACE_FILES_URL"):
        await objects.put("files/a", b"x")
    with pytest.raises(FilesUnavailable, match="set TAILRACE_FILES_URL"):
        await objects.size("files/a")


@pytest.mark.parametrize("url", ["s3://bucket/prefix", "gs://bucket"])
def test_opening_a_bucket_does_no_io(url: str) -> None:
    assert ObjectStore(Settings(files_url=url)).directory is None


def test_a_file_url_is_a_directory(tmp_path: Path) -> None:
    assert ObjectStore(Settings(files_url=f"file://{tmp_path}/a%20b")).directory == tmp_path / "a b"
    assert ObjectStore(Settings(files_url=str(tmp_path))).directory == tmp_path
