"""A large request is stored in pieces, and everybody who reads it gets the whole."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from shared.config.settings import Settings
from shared.log.events import End
from shared.log.ids import new_generation_id
from shared.log.lifetimes import request_ms
from shared.log.records import Begun
from shared.log.request_pieces import PIECE_BYTES, piece_count
from shared.log.store import Store
from shared.queue.accept import Acceptor, NewGeneration
from shared.queue.leaving import forget
from shared.redis import keys

LARGE = b'{"messages":"' + b"x" * (2 * PIECE_BYTES) + b'"}'
SETTINGS = Settings()


def acceptor(redis: Redis) -> Acceptor:
    return Acceptor(redis, Store(redis, SETTINGS), SETTINGS)


async def accepted(redis: Redis, request: bytes = LARGE) -> str:
    new = NewGeneration(owner="o", model="m", request=request)
    return (await acceptor(redis).accept(new)).generation_id


async def begin(redis: Redis, generation_id: str) -> Begun:
    begun = await Store(redis, SETTINGS).begin(generation_id, "token", "worker")
    assert isinstance(begun, Begun)
    return begun


@pytest.mark.parametrize(
    ("size", "count"), [(0, 0), (PIECE_BYTES, 0), (PIECE_BYTES + 1, 2), (3 * PIECE_BYTES, 3)]
)
def test_a_request_has_as_few_pieces_as_hold_it(size: int, count: int) -> None:
    assert piece_count(b"x" * size) == count


async def test_a_worker_and_a_reader_get_the_whole_request(redis: Redis) -> None:
    generation_id = await accepted(redis)
    store = Store(redis, SETTINGS)
    meta = await store.meta(generation_id)
    assert meta is not None

    read = await store.with_request(meta)
    begun = await begin(redis, generation_id)

    assert read is not None
    assert read.request == begun.meta.request == begun.fields[b"request"] == LARGE
    assert await redis.hget(keys.meta(generation_id), "request") is None


async def test_a_worker_can_restore_it_as_a_field_of_meta(redis: Redis) -> None:
    """The pieces may be lost, too: then meta must not name their number."""
    begun = await begin(redis, await accepted(redis))

    assert b"pieces" not in begun.fields


async def test_a_small_request_is_a_field_of_meta(redis: Redis) -> None:
    generation_id = await accepted(redis, b"{}")

    assert await redis.hget(keys.meta(generation_id), "request") == b"{}"
    assert not await redis.exists(keys.request(generation_id))


async def test_the_pieces_outlive_the_generation_and_expire(redis: Redis) -> None:
    generation_id = await accepted(redis)
    store = Store(redis, SETTINGS)
    longest_ms = round((SETTINGS.generation_s_max + 2 * SETTINGS.retention_s) * 1000)
    assert longest_ms - 60_000 < await redis.pttl(keys.request(generation_id)) <= longest_ms

    await store.close(generation_id, End("cancelled", "cancelled"))
    await forget(store, generation_id)

    left_ms = await redis.pttl(keys.request(generation_id))
    assert abs(left_ms - await redis.pttl(keys.meta(generation_id))) < 1_000
    assert left_ms <= 2 * store.retention_ms


async def test_a_deleted_generation_leaves_no_pieces(redis: Redis) -> None:
    generation_id = await accepted(redis)

    await Store(redis, SETTINGS).delete(generation_id)

    assert not await redis.exists(keys.request(generation_id))


async def test_a_lost_piece_makes_the_request_empty_and_not_shorter(redis: Redis) -> None:
    generation_id = await accepted(redis)
    await redis.hdel(keys.request(generation_id), "1")

    assert (await begin(redis, generation_id)).meta.request == b""


async def test_the_lines_of_a_batch_have_pieces(redis: Redis) -> None:
    generation_id = new_generation_id()
    new = NewGeneration(owner="o", model="m", request=LARGE, wait_s=86_400.0)
    await acceptor(redis).accept_lines([(generation_id, new)], is_repeat=False)

    assert (await begin(redis, generation_id)).meta.request == LARGE
    assert await redis.pttl(keys.request(generation_id)) > 86_400_000


def test_pieces_are_kept_for_the_longest_wait() -> None:
    assert request_ms(SETTINGS, None) == request_ms(SETTINGS, 1.0)
    assert request_ms(SETTINGS, SETTINGS.queue_wait_s + 5) == request_ms(SETTINGS, None) + 5_000
