"""Reading meta does not read requests, also not for generations of an older version."""

from __future__ import annotations

import pytest

from shared.log.request import PROMPT_CHARACTERS_MAX, Request, dialect_of, encode_request
from shared.redis import keys
from tests.support.generation import ID, create, store_on

REQUEST = encode_request(
    Request(messages=[{"role": "user", "content": "x" * 5_000}], dialect={"include_usage": True})
)


@pytest.fixture
def store(redis):
    return store_on(redis)


async def test_with_request_reads_the_request(store):
    await create(store, request=REQUEST, prompt="hello")

    meta = await store.meta(ID)

    assert (meta.prompt, meta.request) == ("hello", b"")
    assert (await store.with_request(meta)).request == REQUEST


async def test_with_requests_gives_each_meta_its_own_request(store):
    ids = [f"gen_{n:010}" for n in range(20)]
    for n, one in enumerate(ids):
        await create(store, one, request=encode_request(Request([{"n": n}])), prompt="")
    await store.redis.delete(keys.meta(ids[3]))

    found = await store.with_requests(await store.metas(ids))

    assert found[3] is None
    for n, meta in enumerate(found):
        assert n == 3 or (meta.generation_id, meta.request) == (
            ids[n], encode_request(Request([{"n": n}])),
        )  # fmt: skip


async def test_a_generation_that_is_gone_has_no_request(store):
    await create(store, request=REQUEST, prompt="")
    meta = await store.meta(ID)
    await store.redis.delete(keys.meta(ID))

    assert await store.with_request(meta) is None


async def test_a_generation_of_an_older_version_is_shown(store):
    """The older version wrote neither `prompt` nor `dialect`."""
    await create(store, request=REQUEST)

    meta = await store.meta(ID)

    assert meta.prompt == "x" * PROMPT_CHARACTERS_MAX
    assert dialect_of(meta) == {"include_usage": True}
    assert meta.request == b""


@pytest.mark.parametrize("request_", [b"", b"{", b'{"messages":1}', b"\xff"])
async def test_an_older_request_that_cannot_be_read_shows_nothing(store, request_):
    await create(store, request=request_)

    assert (await store.meta(ID)).prompt == ""


async def test_a_sealed_generation_is_not_read(store, monkeypatch):
    await store.seal(ID)

    async def requests(ids):
        raise AssertionError("nothing is there")

    monkeypatch.setattr(store, "_requests", requests)
    assert (await store.meta(ID)).status == "sealed"
