"""Files over OpenAI's SDK and plain HTTP: an owner uploads, lists, reads and deletes own files."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.support.raw_client import RawClient
from tests.support.sdk import sdk

LINES = b'{"custom_id":"1"}\n{"custom_id":"2"}\n'
FILE_MAX = 209_715_200


@pytest.fixture
async def client(api: RawClient) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(f"{api.url}/v1", api.key) as client:
        yield client


@pytest.fixture
async def other(api: RawClient) -> AsyncIterator[openai.AsyncOpenAI]:
    """The same owner at another node."""
    async with sdk(f"{api.other_url}/v1", api.key) as client:
        yield client


async def test_a_file_is_kept_and_can_be_read_on_any_node(
    client: openai.AsyncOpenAI, other: openai.AsyncOpenAI
) -> None:
    data = os.urandom(300_000)
    made = await client.files.create(file=("ä b.jsonl", data), purpose="batch")

    assert (made.object, made.bytes, made.purpose) == ("file", len(data), "batch")
    assert (made.filename, made.status) == ("ä b.jsonl", "processed")
    assert made.expires_at == made.created_at + 30 * 86_400
    assert await other.files.retrieve(made.id) == made
    assert (await other.files.content(made.id)).content == data
    deleted = await other.files.delete(made.id)
    assert (deleted.id, deleted.object, deleted.deleted) == (made.id, "file", True)
    for gone in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError) as caught:
            await gone(made.id)
        assert (caught.value.code, caught.value.type) == ("not_found", "invalid_request_error")


async def test_a_file_expires_at_the_time_that_its_upload_set(client: openai.AsyncOpenAI) -> None:
    wanted: Any = {"anchor": "created_at", "seconds": 3_600}
    made = await client.files.create(file=LINES, purpose="user_data", expires_after=wanted)
    assert made.expires_at == made.created_at + 3_600

    for wrong in ({"seconds": 3_599}, {"seconds": 2_592_001}, {"anchor": "now"}):
        with pytest.raises(openai.BadRequestError):
            await client.files.create(
                file=LINES, purpose="batch", expires_after={**wanted, **wrong}
            )


async def test_the_sdk_walks_through_all_pages(client: openai.AsyncOpenAI) -> None:
    made = [
        (await client.files.create(file=(f"{number}", LINES), purpose=purpose)).id
        for number, purpose in enumerate(["evals", "vision"] * 3)  # nobody else's here
    ]
    listed = [file.id async for file in client.files.list(limit=2)]
    seen = [file_id for file_id in listed if file_id in made]
    assert sorted(seen) == sorted(made) and len(listed) == len(set(listed))

    upward = [file.id async for file in client.files.list(limit=4, order="asc")]
    assert upward == listed[::-1]
    visions = [file.id async for file in client.files.list(limit=1, purpose="vision")]
    assert sorted(visions) == sorted(made[1::2])
    page = await client.files.list(limit=2, purpose="evals")
    assert page.has_more and [file.purpose for file in page.data] == ["evals", "evals"]


async def test_a_listing_with_wrong_parameters_is_refused(client: openai.AsyncOpenAI) -> None:
    refused: list[Any] = [{"limit": 0}, {"limit": 10_001}, {"limit": "x"}, {"order": "up"}]
    for query in [*refused, {"purpose": "none"}]:
        with pytest.raises(openai.BadRequestError):
            await client.files.list(extra_query=query)
    with pytest.raises(openai.NotFoundError):
        await client.files.list(after="file-none")


async def test_a_download_continues_from_a_byte(api: RawClient, client: openai.AsyncOpenAI) -> None:
    made = await client.files.create(file=('"a";\\b\r\n.txt', LINES), purpose="batch")
    path = f"/v1/files/{made.id}/content"
    whole = await api.get(path)
    assert whole.status == 200 and whole.body == LINES
    assert whole.headers["content-length"] == str(len(LINES))
    assert whole.headers["content-disposition"].startswith("attachment; filename=")

    for asked, start, stop in (
        ("bytes=5-", 5, len(LINES)), ("bytes=0-3", 0, 4), ("bytes=30-999", 30, len(LINES)),
    ):  # fmt: skip
        part = await api.get(path, headers={"range": asked})
        assert (part.status, part.body) == (206, LINES[start:stop]), asked
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(LINES)}"
    for ignored in ("bytes=999-", "bytes=-5", "bytes=1-2,4-5", "bytes=5-2", "lines=1-2", "x"):
        part = await api.get(path, headers={"range": ignored})
        assert (part.status, part.body) == (200, LINES), ignored
    head = await api.call("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(LINES))
