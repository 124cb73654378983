"""What is done with an index whose shard is away: a note, and later the entry."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.log.records import RESTORE_WITHIN_S
from shared.queue.listing import Listed, Listing
from shared.queue.partitions import partitions_of
from shared.redis import keys
from shared.redis.shards import shard_of
from tests.support.known_shards import known_shards

SETTINGS = Settings(redis_url="redis+cluster://a:1,b:1,c:1")
TAG = partitions_of(SETTINGS).tags[0]
NOW_MS = 1_000_000
LATE_MS = NOW_MS + round(RESTORE_WITHIN_S * 1000) + 1
LISTED = Listed("gen_00000000", "alice", "", NOW_MS)
INDEX = keys.owner("alice")


class FakePipeline:
    """Answers from `metas` and `noted`; refuses writes to the keys in `refused`."""

    def __init__(self):
        self.commands = []
        self.noted = []
        self.metas = {}
        self.refused = set()

    async def run(self, commands):
        self.commands += commands
        return [self.reply(*command) for command in commands]

    def reply(self, name, key, *rest):
        if key in self.refused:
            return RedisConnectionError("away")
        if name == "ZRANGEBYSCORE":
            return []
        if name == "ZRANGE":
            return [word for pair in self.noted for word in pair]
        return self.metas.get(key, [None] * 3) if name == "HMGET" else 1

    def named(self, name):
        return [command[1:] for command in self.commands if command[0] == name]


def listing(redis):
    pipeline = FakePipeline()
    store = SimpleNamespace(scripts=SimpleNamespace(pipeline=pipeline), redis=redis)
    return Listing(redis, store, SETTINGS), pipeline


def note_of(listed):
    return keys.unlisted(partitions_of(SETTINGS).of(listed.generation_id))


def shard_of_index():
    return shard_of(known_shards(), INDEX)


async def test_an_index_on_a_shard_that_answers_is_written_and_nothing_is_noted():
    indexes, pipeline = listing(known_shards())

    await indexes.add(LISTED)

    assert pipeline.named("ZADD") == [(INDEX, NOW_MS, LISTED.generation_id)]


async def test_an_index_on_a_shard_that_is_away_is_noted_without_a_call_to_it():
    indexes, pipeline = listing(known_shards(shard_of_index()))

    await indexes.add(LISTED)

    assert pipeline.commands == [("ZADD", note_of(LISTED), NOW_MS, LISTED.generation_id)]


async def test_an_index_that_is_refused_in_the_middle_is_noted():
    indexes, pipeline = listing(known_shards())
    pipeline.refused = {INDEX}

    await indexes.add(LISTED)

    assert pipeline.named("ZADD")[-1] == (note_of(LISTED), NOW_MS, LISTED.generation_id)


async def test_without_index_and_note_the_prompt_is_not_answered():
    indexes, pipeline = listing(known_shards(shard_of_index()))
    pipeline.refused = {note_of(LISTED)}

    with pytest.raises(Unavailable):
        await indexes.add(LISTED)


async def test_on_a_single_server_a_refusal_is_raised_and_notes_are_never_read():
    indexes, pipeline = listing(Redis())
    pipeline.refused = {INDEX}

    with pytest.raises(Unavailable):
        await indexes.add(LISTED)
    pipeline.commands.clear()
    assert await indexes.catch_up(TAG, LATE_MS) == 0 and not pipeline.commands


async def test_a_noted_generation_is_listed_when_the_shard_is_back():
    indexes, pipeline = listing(known_shards())
    pipeline.noted = [(b"gen_00000000", b"1000000")]
    pipeline.metas[keys.meta("gen_00000000")] = [b"alice", b"", b"1000000"]

    assert await indexes.catch_up(TAG, NOW_MS) == 1

    assert (INDEX, NOW_MS, "gen_00000000") in pipeline.named("ZADD")
    assert pipeline.named("ZREM") == [(keys.unlisted(TAG), "gen_00000000")]


@pytest.mark.parametrize("refused", ["away", "index", "meta"])
async def test_a_note_stays_until_its_index_is_written(refused: str):
    indexes, pipeline = listing(known_shards(*[shard_of_index()] * (refused == "away")))
    pipeline.noted = [(b"gen_00000000", b"1000000")]
    pipeline.metas[keys.meta("gen_00000000")] = [b"alice", b"", b"1000000"]
    if refused != "away":
        pipeline.refused = {INDEX if refused == "index" else keys.meta("gen_00000000")}

    assert await indexes.catch_up(TAG, LATE_MS) == 0
    assert pipeline.named("ZREM") == []


async def test_a_note_of_a_generation_that_does_not_exist_is_dropped_when_nobody_can_restore_it():
    indexes, pipeline = listing(known_shards())
    pipeline.noted = [(b"gen_00000000", b"1000000")]

    assert await indexes.catch_up(TAG, NOW_MS + 1) == 0
    assert pipeline.named("ZREM") == []
    assert await indexes.catch_up(TAG, LATE_MS) == 1
    assert len(pipeline.named("ZREM")) == 1
