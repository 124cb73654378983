"""One owner's files, and a disk that fills: bounded, said clearly, and nobody else's trouble."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.config.settings import Settings
from shared.files.objects import ObjectStore
from tests.support.local_node import LocalNode, serve_here
from tests.support.pieces import pieces
from tests.support.raw_client import Answer, RawClient
from tests.support.redis_server import RedisServer
from tests.support.uploads import MULTIPART, form, lying, stream_form
from tests.support.wait import until

FILES = "/v1/files"
KB = 1_000
BYTES_MAX, FILES_MAX = 1_000 * KB, 8
FREE_MIN = 50_000_000
KEYS = {"ann": "a-key-that-is-anns", "bob": "a-key-that-is-bobs"}


@pytest.fixture
async def local_node(
    redis_server: RedisServer, real_redis: Any, tmp_path: Path
) -> AsyncIterator[LocalNode]:
    settings = Settings(
        redis_url=redis_server.url,
        files_url=str(tmp_path / "files"),
        api_keys=",".join(f"{key}:{owner}" for owner, key in KEYS.items()),
        owner_file_bytes_max=BYTES_MAX,
        owner_files_max=FILES_MAX,
        files_free_bytes_min=FREE_MIN,
    )
    async with serve_here(settings) as local_node:
        yield local_node


@pytest.fixture
async def ann(local_node: LocalNode) -> AsyncIterator[RawClient]:
    async with RawClient(local_node.url, key=KEYS["ann"]) as raw_client:
        yield raw_client


@pytest.fixture
async def bob(local_node: LocalNode) -> AsyncIterator[RawClient]:
    async with RawClient(local_node.url, key=KEYS["bob"]) as raw_client:
        yield raw_client


async def put(api: RawClient, size: int, *, is_announced: bool = True) -> Answer:
    raw = form(b"x" * size) if is_announced else stream_form(size)
    return await api.call("POST", FILES, raw=raw, headers=MULTIPART)


def refused(answer: Answer, status: int, code: str) -> bool:
    error = answer.json()["error"]
    assert (answer.status, error["code"]) == (status, code), answer.body
    return True


@pytest.mark.parametrize("is_announced", [True, False])
async def test_the_byte_limit_of_an_owner_does_not_affect_other_owners(
    ann: RawClient, bob: RawClient, tmp_path: Path, is_announced: bool
) -> None:
    first = await put(ann, 600 * KB)
    assert refused(await put(ann, 600 * KB, is_announced=is_announced), 413, "owner_files_full")
    assert len(lying(tmp_path / "files")) == 1
    assert (await put(ann, 300 * KB)).status == 200
    assert (await put(bob, 600 * KB)).status == 200

    assert (await ann.call("DELETE", f"{FILES}/{first.json()['id']}")).status == 200
    assert (await put(ann, 600 * KB, is_announced=is_announced)).status == 200


async def test_an_owner_keeps_a_limited_number_of_files(ann: RawClient, bob: RawClient) -> None:
    for _ in range(FILES_MAX):
        assert (await put(ann, 10)).status == 200
    answer = await put(ann, 10)

    assert refused(answer, 413, "owner_files_full")
    assert f"{FILES_MAX} files" in answer.json()["error"]["message"]
    assert (await put(bob, 10)).status == 200


async def test_uploads_at_once_do_not_pass_the_bound(ann: RawClient, tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(put(ann, 300 * KB)) for _ in range(10)]
    statuses = sorted(task.result().status for task in asked)

    assert statuses == [200] * 3 + [413] * 7
    listed = (await ann.get(FILES)).json()["data"]
    assert sum(file["bytes"] for file in listed) <= BYTES_MAX
    assert len(lying(tmp_path / "files")) == 3


async def test_the_output_of_a_batch_is_kept_and_counts(
    local_node: LocalNode, ann: RawClient
) -> None:
    output = pieces(b"x" * 2 * BYTES_MAX)
    await local_node.node.files.create("ann", "out", "batch_output", output, bytes_max=2**40)

    assert len((await ann.get(FILES)).json()["data"]) == 1
    assert refused(await put(ann, 10), 413, "owner_files_full")


async def test_a_nearly_full_disk_accepts_no_upload(
    local_node: LocalNode, ann: RawClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = (await put(ann, 10)).json()["id"]
    free = FREE_MIN + 500 * KB

    async def free_bytes(self: ObjectStore) -> int:
        return free

    monkeypatch.setattr(ObjectStore, "free_bytes", free_bytes)
    answer = await put(ann, 700 * KB)
    assert refused(answer, 503, "storage_full")
    assert answer.headers["Retry-After"]
    assert (await put(ann, 10)).status == 200

    free = FREE_MIN - 1
    assert refused(await put(ann, 10), 503, "storage_full")
    assert (await ann.get(f"{FILES}/{kept}/content")).body == b"x" * 10
    await local_node.node.files.create("ann", "o", "batch_output", pieces(b"x"), bytes_max=2**40)
    await local_node.node.metrics.update_free_bytes(local_node.node.files.objects)
    text = local_node.node.metrics.render().decode()
    (shown,) = re.findall(r"^tailrace_files_free_bytes (\S+)$", text, re.M)
    assert float(shown) == free
    assert len(lying(tmp_path / "files")) == 3


async def test_an_upload_ends_when_the_disk_fills(
    local_node: LocalNode, ann: RawClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.files.upload_room.DISK_CHECK_BYTES", 100 * KB)
    looks: list[int] = []

    async def free_bytes(self: ObjectStore) -> int:
        looks.append(1)
        return FREE_MIN + 1 if len(looks) < 3 else 0

    monkeypatch.setattr(ObjectStore, "free_bytes", free_bytes)

    assert refused(await put(ann, 900 * KB, is_announced=False), 503, "storage_full")
    await until(lambda: lying(tmp_path / "files") == [], 5, "nothing of it is left")


async def test_an_upload_whose_client_hangs_up_is_not_counted(
    local_node: LocalNode, ann: RawClient, tmp_path: Path
) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield form(b"x" * 900 * KB)[: 700 * KB]
        await until(lambda: lying(tmp_path / "files") != [], 5, "it is being written")
        raise ConnectionError

    for _ in range(3):
        with contextlib.suppress(Exception):
            await ann.call("POST", FILES, raw=half(), headers=MULTIPART)
        await until(lambda: lying(tmp_path / "files") == [], 10, "what was half written is gone")
    assert (await put(ann, 900 * KB)).status == 200
