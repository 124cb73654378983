"""The lanes of a cluster with a shard away are read and claimed where the others are."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.errors import Unavailable
from shared.log.ids import new_generation_id
from shared.queue.lanes import Queue
from shared.queue.partitions import Partitions
from shared.redis import keys
from shared.redis.shards import serves
from tests.support.known_shards import MASTERS, known_shards

PARTITIONS = Partitions(8, is_even=True)


class FakePipeline:
    """Records commands; every lane has one entry that nobody may have."""

    losses = 0

    def __init__(self):
        self.streams = []

    async def run(self, commands):
        self.streams += [
            command[1] if command[0] != "XREADGROUP" else command[-2] for command in commands
        ]
        answers = {"XLEN": 1, "XREADGROUP": None, "XAUTOCLAIM": [b"0-0", []]}
        return [answers[command[0]] for command in commands]


def lanes_on(redis, lane):
    tags = [tag for tag in PARTITIONS.tags if serves(redis, keys.running(tag))]
    return {keys.lane(lane, tag) for tag in tags}


async def test_partitions_whose_shard_is_away_are_neither_read_nor_claimed():
    redis, pipeline = known_shards(MASTERS[0]), FakePipeline()
    queue = Queue(redis, "worker-1", pipeline, partitions=PARTITIONS)

    for count in (1, 100):
        await queue.read("interactive", count)
        await queue.claim("interactive", 1_000, count)

    assert set(pipeline.streams) == lanes_on(redis, "interactive")
    assert 0 < len(set(pipeline.streams)) < len(PARTITIONS.tags)


async def test_all_partitions_are_read_when_no_shard_answers():
    redis, pipeline = known_shards(*MASTERS), FakePipeline()
    queue = Queue(redis, "worker-1", pipeline, partitions=PARTITIONS)

    await queue.read("interactive", 100)

    assert len(set(pipeline.streams)) == len(PARTITIONS.tags)


class HalfPipeline(FakePipeline):
    """Answers the calls for the partitions on other shards than `MASTERS[0]`."""

    def __init__(self, redis):
        super().__init__()
        self.redis = redis

    async def run(self, commands):
        self.streams += [command[1] for command in commands]
        return [
            1 if serves(self.redis, command[1]) else RedisConnectionError("away")
            for command in commands
        ]


async def test_running_generations_are_noted_on_the_shards_that_answer():
    redis = known_shards(MASTERS[0])
    pipeline = HalfPipeline(redis)
    queue = Queue(redis, "worker-1", pipeline, partitions=PARTITIONS)
    ids = [new_generation_id() for _ in range(200)]
    away = [each for each in ids if not serves(redis, keys.running(PARTITIONS.of(each)))]

    await queue.note_running(ids, 5)

    assert set(pipeline.streams) == {keys.running(tag) for tag in PARTITIONS.tags}
    with pytest.raises(Unavailable):
        await queue.note_running(away, 5)
