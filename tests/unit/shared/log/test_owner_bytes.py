"""The bytes of an owner: the record in Redis, and which prompts are accepted."""

from __future__ import annotations

import pytest

from shared.config.settings import Settings
from shared.errors import RequestError
from shared.log import owner_bytes
from shared.log.owner_bytes import GENERATION_BYTES, GenerationBytes, OwnerRoom, request_bytes
from shared.redis import keys
from shared.redis.scripts import Scripts

SETTINGS = Settings(redis_url="redis://test", retention_s=100)
KEPT_MS = 100_000
A, B = "gen_aaaaaaaaaa", "gen_bbbbbbbbbb"


class Record:
    """The record of the owner alice."""

    def __init__(self, redis):
        self.redis = redis
        self.scripts = Scripts(redis)

    async def note(self, call) -> int:
        return int(await self.scripts.run(owner_bytes.SCRIPT, *call))

    async def unfinished(self, name, log, request=0) -> int:
        return await self.note(
            owner_bytes.unfinished(GenerationBytes("alice", name, log, request), SETTINGS)
        )

    async def ended(self, name, log, request=0) -> int:
        return await self.note(
            owner_bytes.ended(GenerationBytes("alice", name, log, request), KEPT_MS)
        )

    async def total(self) -> int:
        return await self.note(owner_bytes.total("alice"))

    async def pass_time(self, ms) -> None:
        """Reduce every time in the record, as if time had passed."""
        until = keys.owner_until("alice")
        for name, score in await self.redis.zrange(until, 0, -1, withscores=True):
            await self.redis.zadd(until, {name: score - ms})


@pytest.fixture
def record(redis):
    return Record(redis)


async def test_a_generation_counts_once_however_often_it_is_recorded(record):
    assert await record.unfinished(A, 0, 500) == 500
    assert await record.unfinished(A, 0, 500) == 500
    assert await record.unfinished(A, 300, 500) == 800
    assert await record.unfinished(B, 0, 100) == 900
    assert await record.total() == 900


async def test_a_late_record_reduces_nothing(record):
    await record.unfinished(A, 300, 500)

    assert await record.unfinished(A, 0, 500) == 800, "a create that was sent again"
    assert await record.unfinished(A, 200, 0) == 800


async def test_a_log_expires_first_and_its_request_later(record):
    await record.ended(A, 300, 500)

    await record.pass_time(KEPT_MS + 1)
    assert await record.total() == 500
    await record.pass_time(KEPT_MS)
    assert await record.total() == 0
    assert await record.redis.zcard(keys.owner_until("alice")) == 0


async def test_a_generation_without_a_recorded_end_expires(record):
    await record.unfinished(A, 300, 500)
    longest_s = SETTINGS.generation_s_max + SETTINGS.retention_s

    await record.pass_time(KEPT_MS)
    assert await record.total() == 800
    await record.pass_time(longest_s * 1000 + KEPT_MS)
    assert await record.total() == 0


async def test_an_end_without_a_size_keeps_the_bytes_and_sets_the_expiry(record):
    await record.unfinished(A, 300, 500)

    assert await record.note(owner_bytes.ended_unsized("alice", A, KEPT_MS)) == 800
    await record.pass_time(2 * KEPT_MS + 1)
    assert await record.total() == 0


async def test_an_end_without_a_size_records_nothing_new(record):
    await record.note(owner_bytes.ended_unsized("alice", A, KEPT_MS))

    assert await record.redis.hlen(keys.owner_bytes("alice")) == 0


async def test_a_deletion_removes_the_bytes_for_good(record):
    await record.unfinished(A, 300, 500)
    await record.unfinished(B, 0, 100)

    assert await record.note(owner_bytes.deleted("alice", A, KEPT_MS)) == 100
    assert await record.ended(A, 400, 500) == 100, "its worker notices only now"
    assert await record.note(owner_bytes.deleted("alice", A, KEPT_MS)) == 100
    await record.pass_time(2 * KEPT_MS + 1)
    assert await record.total() == 100
    assert await record.redis.hexists(keys.owner_bytes("alice"), A) == 0


async def test_the_record_expires_when_it_is_empty(record):
    await record.ended(A, 300, 500)

    for key in (keys.owner_bytes("alice"), keys.owner_until("alice")):
        assert 2 * KEPT_MS < await record.redis.pttl(key) < 3 * KEPT_MS
    await record.unfinished(B, 1, 1)
    longer = await record.redis.pttl(keys.owner_bytes("alice"))
    await record.note(owner_bytes.ended_unsized("alice", A, KEPT_MS))
    assert await record.redis.pttl(keys.owner_bytes("alice")) > longer - 10_000, "never shorter"


async def test_a_record_that_was_empty_before_expires_too(record):
    await record.ended(A, 300)
    await record.pass_time(2 * KEPT_MS + 1)
    assert await record.total() == 0

    await record.ended(B, 300)

    for key in (keys.owner_bytes("alice"), keys.owner_until("alice")):
        assert await record.redis.pttl(key) > 0


async def test_each_owner_has_a_record(record):
    await record.unfinished(A, 0, 500)

    assert await record.note(owner_bytes.total("bob")) == 0


def test_a_generation_has_an_overhead():
    assert request_bytes(b"abc", "é") == GENERATION_BYTES + 5


# Who is let in


def test_prompts_are_accepted_up_to_the_bound():
    room = OwnerRoom(1_000)
    assert room.has("alice", 1_000)
    assert not room.has("alice", 1_001)

    room.hear("alice", 600, now_s=5.0)

    assert room.has("alice", 400)
    assert not room.has("alice", 401)
    assert room.has("bob", 401)


def test_prompts_that_are_being_accepted_count():
    room = OwnerRoom(1_000)
    with room.coming("alice", 600):
        assert not room.has("alice", 500)
        with room.coming("alice", 300):
            assert not room.has("alice", 200)
    assert room.has("alice", 1_000)


def test_a_refusal_needs_a_fresh_sum():
    room = OwnerRoom(1_000)
    assert room.is_old("alice", 5.0)

    room.hear("alice", 1_000, now_s=5.0)

    assert not room.is_old("alice", 5.5)
    assert room.is_old("alice", 6.0)


def test_a_refusal_names_the_sum():
    room = OwnerRoom(1_000)
    room.hear("alice", 990, now_s=5.0)

    error = room.refusal("alice", 20)

    assert isinstance(error, RequestError)
    assert (error.status, error.code, error.retryable) == (429, "owner_full", True)
    assert (
        "20 bytes" in error.message and "990 of the 1000" in error.message and error.retry_after_s
    )


def test_the_oldest_owners_are_forgotten_first(monkeypatch):
    monkeypatch.setattr(owner_bytes, "OWNERS_MAX", 2)
    room = OwnerRoom(1_000)
    for name in ("alice", "bob", "carol"):
        room.hear(name, 1_000, now_s=5.0)

    assert room.has("alice", 1), "and lets one prompt of hers in, which brings the sum"
    assert not room.has("bob", 1)
