"""An ended generation leaves the queue: its entry is acknowledged when every step is done."""

from __future__ import annotations

from contextlib import contextmanager, suppress

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.audio.record import audio_charge
from shared.config.limits import OwnerLimits
from shared.errors import Unavailable
from shared.later.webhooks import Webhook, encode_webhook, register
from shared.log import owner_bytes
from shared.log.events import Counts, End, encode
from shared.log.owner_bytes import SCRIPT, GenerationBytes
from shared.log.request_pieces import PIECE_BYTES, Pieces
from shared.queue.allowance import ADMIT, SETTLE, admission, settlement
from shared.queue.endings import CANCELLED
from shared.queue.entries import encode_entry
from shared.queue.lanes import Queue
from shared.queue.leaving import forget, leave_call
from shared.redis import keys
from tests.support.generation import FIELDS, ID, Holder, create, store_on

OWNER = FIELDS["owner"]
HOOK = Webhook("https://example.com/hook", "whsec_" + "QQ" * 16)
LONG_MS = 10_000_000  # until a key expires if the end of its generation is never recorded
LARGE = b'{"messages":[]}' + b" " * PIECE_BYTES
TOKENS = 5_000  # estimated
RECORDS = [
    (SCRIPT, owner_bytes.ended(GenerationBytes(OWNER, ID, 50, 70), 60_000)),
    (SETTLE, settlement(OWNER, ID, 7)),
]
EACH_STEP = ("idem", "webhook", "audio", "pieces", "queue_wait", "deadline")


@pytest.fixture
def store(redis):
    return store_on(redis, retention_s=60.0)


@contextmanager
def cut_after(redis, exchanges, *, is_run=False):
    """The process dies at the exchange after these: the server runs it or not, no reply comes."""
    execute_command, pipeline, left = redis.execute_command, redis.pipeline, exchanges

    async def exchange(run):
        nonlocal left
        left -= 1
        if left >= 0 or (left == -1 and is_run):
            reply = await run()
        if left < 0:
            raise RedisConnectionError("cut")
        return reply

    def cut_pipeline(**options):
        made = pipeline(**options)
        execute = made.execute
        made.execute = lambda **how: exchange(lambda: execute(**how))
        return made

    redis.execute_command = lambda *args, **how: exchange(lambda: execute_command(*args, **how))
    redis.pipeline = cut_pipeline
    try:
        yield
    finally:
        del redis.execute_command, redis.pipeline


@pytest.fixture
async def queue(redis):
    """A worker's queue; its server knows the scripts, and has no other data."""
    queue = Queue(redis, "one")
    for name, call in (*RECORDS, leave_call(ID, keys.QUEUE)):
        await queue.scripts.run(name, *call)
    await redis.flushdb()
    await queue.ensure_groups()
    return queue


async def accept(store, *steps):
    """A generation with what these fields of meta stand for, and a record of its owner."""
    redis, limits = store.redis, OwnerLimits(active_max=9, tokens_per_day=99_999)
    values = {"idem": "tr:idem:k", "webhook": encode_webhook(HOOK), "audio": "audio/pcm"}
    values |= {"pieces": "2", "queue_wait": "600000", "deadline": "600000"}
    fields = {name: values[name] for name in steps}
    if "pieces" in steps:
        await Pieces(ID, LARGE, LONG_MS).deposit(store.scripts.pipeline)
        fields["request"] = b""
    await redis.set("tr:idem:k", ID, px=LONG_MS)
    await redis.xadd(keys.audio(ID), {"e": "a", "last": "", "size": "1"}, id="1-0")
    if "audio" in steps:
        await store.scripts.run(SCRIPT, *audio_charge(OWNER, ID, 60_000, store.settings))
    if "webhook" in steps:
        await register(redis, ID, "generation", HOOK, {"model": "demo"}, owner=OWNER)
    kept = GenerationBytes(OWNER, ID, 0, 70)
    await store.scripts.run(SCRIPT, *owner_bytes.unfinished(kept, store.settings))
    await store.scripts.run(ADMIT, *admission(OWNER, ID, TOKENS, limits, store.settings))
    await create(store, limits="1", **fields)
    await redis.zadd(keys.running(), {ID: 1})
    await redis.zadd(keys.due(), {ID: 1})


async def answer(store):
    """Begin the generation and end it, with 7 tokens; return the fields of meta at the begin."""
    holder = await Holder.begin(store)
    end = encode(End("completed", "stop", Counts(3, 4, 7)))
    await store.append_many([holder.batch(end, status="completed")])
    return holder.begun.fields


async def deliver(queue):
    await queue.redis.xadd(keys.lane("interactive"), {"e": encode_entry(ID, "interactive", "demo")})
    (delivery,) = await queue.read("interactive", 1)
    return delivery


async def is_queued(redis):
    return bool(await redis.xlen(keys.lane("interactive")))


async def assert_left(store, *steps):
    """Every step of these is done, once."""
    redis = store.redis
    assert await redis.zcard(keys.running()) == 0
    assert await redis.zrange(keys.unsettled(), 0, -1) == [ID.encode()]
    assert await redis.zcard(keys.owner_active(OWNER)) == 0
    assert int(await redis.hget(keys.owner_limits(OWNER), "used")) == 7
    assert await redis.hget(keys.owner_bytes(OWNER), ID) is not None
    assert await redis.zscore(keys.owner_until(OWNER), ID) - await store.now_ms() <= 60_000
    meta_ms = await redis.pttl(keys.meta(ID))
    if "idem" in steps:
        assert await redis.pttl("tr:idem:k") < meta_ms
    if "audio" in steps:
        assert not await redis.exists(keys.audio(ID))
        entry = await redis.zscore(keys.owner_until(OWNER), f"{ID} audio")
        assert entry is None or entry <= await store.now_ms() + 1_000
    if "pieces" in steps:
        assert await redis.pttl(keys.request(ID)) <= meta_ms + 1_000
    if "webhook" in steps:
        assert await redis.zcard(keys.HOOKS_WAITING) == 0
    if {"queue_wait", "deadline"} & set(steps):
        assert await redis.zcard(keys.due()) == 0


@pytest.mark.parametrize("is_run", [False, True], ids=["not run", "reply lost"])
@pytest.mark.parametrize("steps", [(), *((step,) for step in EACH_STEP), EACH_STEP], ids="+".join)
async def test_the_entry_stays_until_every_step_is_done(redis, store, queue, steps, is_run):
    """A worker dies at each exchange in turn; then another one does what is left."""
    has_left, exchanges = False, 0
    while not has_left:
        await redis.flushdb()
        await queue.ensure_groups()
        await accept(store, *steps)
        fields, delivery = await answer(store), await deliver(queue)

        with cut_after(redis, exchanges, is_run=is_run), suppress(Unavailable):
            await queue.leave(delivery, ID, store.retention_ms, RECORDS, fields=fields)
            has_left = True

        if await is_queued(redis):
            assert await redis.zcard(keys.running()) == 1, "the janitor finds it as well"
            other = Queue(redis, "two")
            (claimed,) = await other.claim("interactive", 0, 1)
            await other.leave(claimed, ID, store.retention_ms)
            assert not await is_queued(redis)
        await assert_left(store, *steps)
        exchanges += 1
    assert exchanges > 1


async def test_a_prompt_with_no_other_step_leaves_in_one_round_trip(redis, store, queue):
    """On a cluster it takes two: the owner's record may be away where the entry is not."""
    await accept(store)
    fields, delivery = await answer(store), await deliver(queue)

    with cut_after(redis, 2 if queue.scripts.is_sharded else 1):
        await queue.leave(delivery, ID, store.retention_ms, RECORDS, fields=fields)

    assert not await is_queued(redis)
    await assert_left(store)


@pytest.mark.parametrize("lost", [SCRIPT, SETTLE])
async def test_the_entry_stays_while_the_shard_of_the_owner_is_away(
    redis, store, queue, monkeypatch, lost
):
    """On a cluster the calls of other shards are answered, and those of this one are errors."""
    await accept(store)
    fields, delivery = await answer(store), await deliver(queue)
    run, digest = queue.pipeline.run, (await queue.scripts.command(lost, ((), ())))[1]
    monkeypatch.setattr(queue.scripts, "is_sharded", True)

    async def run_without_owner(commands):
        left = [command for command in commands if command[1] != digest]
        replies = iter(await run(left) if left else ())
        return [
            RedisConnectionError("away") if command[1] == digest else next(replies)
            for command in commands
        ]

    monkeypatch.setattr(queue.pipeline, "run", run_without_owner)
    with pytest.raises(Unavailable):
        await queue.leave(delivery, ID, store.retention_ms, RECORDS, fields=fields)
    assert await is_queued(redis) and await redis.zcard(keys.running()) == 1
    monkeypatch.undo()

    (claimed,) = await queue.claim("interactive", 0, 1)
    await queue.leave(claimed, ID, store.retention_ms)

    assert not await is_queued(redis)
    await assert_left(store)


@pytest.mark.parametrize("usage_days", [0, 30])
async def test_a_generation_without_an_entry_stays_in_its_indexes_until_every_step_is_done(
    redis, usage_days
):
    """A producer outside of the workers has no entry: the janitor finds it in the index `due`."""
    store, left, exchanges = store_on(redis, retention_s=60.0, usage_days=usage_days), False, 0
    await store.scripts.run("leave", *leave_call(ID, keys.QUEUE)[1])
    while not left:
        await redis.flushdb()
        await accept(store, *EACH_STEP)
        await store.close(ID, CANCELLED)

        with cut_after(redis, exchanges), suppress(Unavailable):
            await forget(store, ID)
            left = True

        if not left and await redis.zcard(keys.due()):
            await forget(store, ID)
        assert not await redis.zcard(keys.due())
        assert not await redis.exists(keys.audio(ID))
        assert not await redis.zcard(keys.HOOKS_WAITING)
        assert await redis.zcard(keys.unsettled()) == bool(usage_days)
        exchanges += 1


async def test_a_late_step_outlives_no_generation(redis, store):
    await accept(store, "idem", "pieces")
    await store.close(ID, CANCELLED)
    await redis.pexpire(keys.meta(ID), 30_000)

    await forget(store, ID)

    assert await redis.pttl("tr:idem:k") <= 29_000
    assert await redis.pttl(keys.request(ID)) <= 30_000
