"""Every script fits a cluster: one slot, each touched key declared, frames published by SPUBLISH.

The server runs in cluster mode and owns all slots. `tests/support/script_monitor.py` says what it
cannot show. With TEST_REDIS_MODE=cluster the other tests of the store make the same comparison.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from jobs.webhook_due import DueHooks
from shared.audio.input import AudioChunk, AudioInputs, AudioState
from shared.audio.record import end_audio
from shared.backends.board import Busy, change_breaker, read_view
from shared.backends.breaker import Breaker
from shared.backends.slots import BackendSlots, Waiter
from shared.batches.lease import BatchLease, Commit, InFlightLine, log_store
from shared.batches.record import Batches, NewBatch
from shared.config.limits import OwnerLimits
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.files.owner_files import Counted, OwnerFiles
from shared.later.dead_letters import redrive
from shared.later.schedules import Schedule, Schedules, Timing
from shared.later.webhooks import Webhook, WebhookEvent, make_due, register
from shared.log.events import End
from shared.log.feeding import Fed, feed
from shared.log.ids import EventId
from shared.log.producing import (
    Appended,
    OutsideEvents,
    ProducerTerms,
    Tenure,
    append_outside,
    begin_producing,
    draw_token,
)
from shared.log.records import Begun
from shared.log.store import Store
from shared.queue.accept import Acceptor, NewGeneration
from shared.queue.allowance import (
    ADMIT,
    EXTEND,
    SETTLE,
    admission,
    extension,
    line_admission,
    settlement,
)
from shared.queue.endings import CANCELLED
from shared.queue.lanes import Queue, put_back
from shared.queue.time_limits import end_hopeless
from shared.queue.turns import advance
from shared.redis import keys
from shared.redis.client import Command
from shared.redis.pipeline import ClientPipeline
from shared.redis.scripts import FILES, FOLDER, Scripts, source_of
from shared.streams.place import ZERO
from shared.streams.store import ForkPoint, NewStream, Producer, StreamStore, owner_of
from shared.streams.subscriptions import Config, Subscriptions
from shared.streams.sweep import note_owner, sweep_owners
from shared.timeline.moment import Moment
from shared.timeline.writer import TimelineWriter
from shared.usage.figures import Figures
from shared.usage.ledger import Fact, Ledger
from shared.usage.settlement import Settlement
from tests.support.generation import END, ID, Holder, create, lose, token
from tests.support.redis_server import RedisServer, free_port
from tests.support.script_monitor import ScriptMonitor
from tests.support.wait import until

SETTINGS = Settings(redis_url="redis://test")
PARTS = {
    "append_fast",
    "batch_prelude",
    "grace",
    "limit_prelude",
    "prelude",
    "produce_prelude",
    "stream_prelude",
    "stream_sub_prelude",
    "time_limits",
}  # they are parts of other scripts
SOURCES = sorted(FOLDER.glob("*.lua"))
NAMES = {path.stem for path in SOURCES} - PARTS | set(FILES)
CALL = re.compile(r"\bcall\(\s*'(\w+)'\s*(?:,\s*([^,)]+))?(?:,\s*([^,)]+))?")
KEYLESS = {"CLUSTER", "TIME", "INFO", "PUBLISH"}
BATCH = "batch_00000000000000000000000001"
HOOK = Webhook("https://example.com/hook", "whsec_" + base64.b64encode(b"k" * 24).decode())


async def send_audio(redis: Redis) -> None:
    """A chunk, its state, its reader, and the end of its generation."""
    store = Store(redis, SETTINGS)
    inputs = AudioInputs(store, SETTINGS)
    await lose(store)
    await create(store, audio="audio/ogg")
    begun = await store.begin(ID, "t", "w")
    assert isinstance(begun, Begun)
    owner = begun.meta.owner
    state = await inputs.append(ID, owner, AudioChunk(1, b"a", True))
    assert isinstance(state, AudioState) and await inputs.append(
        ID, owner, AudioChunk(1, b"a", True)
    )
    assert await inputs.state(ID, owner)
    assert await inputs.take(ID, "t", 0, 0) == [AudioChunk(1, b"a", True)]
    await end_audio(store.scripts, owner, ID)


class ShardedRedis(Redis):
    """A client that says that its server belongs to a cluster."""

    is_sharded = True


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisServer]:
    with RedisServer(is_cluster=True) as server:
        yield server


@pytest.fixture
async def sharded(cluster: RedisServer) -> AsyncIterator[Redis]:
    client = ShardedRedis.from_url(cluster.url, protocol=2)
    await client.flushall()
    yield client
    await client.aclose()


def digest_of(name: str) -> str:
    text = source_of(name, has_flags=True, is_sharded=True)
    return hashlib.sha1(text.encode()).hexdigest()


@pytest.mark.parametrize("path", SOURCES, ids=[path.stem for path in SOURCES])
def test_a_script_names_only_its_declared_keys(path: Path) -> None:
    for name, first, second in CALL.findall(path.read_text(encoding="utf-8")):
        if name not in KEYLESS:
            key = second if name in ("XINFO", "XGROUP") else first
            assert re.fullmatch(r"KEYS\[(\d|#KEYS|at( \+ \d)?|names_at)\]", key), f"{name} {key}"


def test_frames_are_published_to_one_shard_only_where_the_client_says_so() -> None:
    for name in sorted(NAMES):
        plain = source_of(name, has_flags=True, is_sharded=False)
        sharded = source_of(name, has_flags=True, is_sharded=True)

        assert "SPUBLISH" not in plain.split("-- KEYS")[0]
        assert "call('PUBLISH'" not in sharded
        assert plain.count("call('PUBLISH'") == sharded.count("call('SPUBLISH'")


async def test_every_script_stays_in_one_slot_and_touches_only_declared_keys(
    cluster: RedisServer, sharded: Redis
) -> None:
    with ScriptMonitor(cluster) as monitor:
        await live_a_generation(sharded)
        await take_the_queue(sharded)
        await run_a_batch(sharded)
        await deliver_webhooks(sharded)
        await fire_schedules(sharded)
        await count_files(sharded)
        await count_an_owner(sharded)
        await share_backends(sharded)
        await keep_streams(sharded)
        await send_audio(sharded)
        assert monitor.violations() == []

    run = {name for name in NAMES if digest_of(name) in monitor.touched}
    assert run == NAMES, "a script did not run: add it to the stories of this test"
    assert monitor.touched[digest_of("create")] == {0}, "create must need no second key"


async def test_a_subscriber_of_the_shard_gets_the_frames(sharded: Redis) -> None:
    store = Store(sharded, SETTINGS)
    await create(store)
    channel = keys.live(ID)
    connection = await sharded.connection_pool.get_connection()
    await connection.send_command("SSUBSCRIBE", channel)
    await connection.read_response()

    holder = await Holder.begin(store)
    await holder.say("a")

    frames = [await connection.read_response() for _ in range(2)]
    assert [frame[0] for frame in frames] == [b"smessage", b"smessage"]
    assert frames[1][2].endswith(token("a"))
    await connection.disconnect()


async def test_a_generation_is_created_while_its_slot_migrates_and_begins_afterwards(
    cluster: RedisServer, sharded: Redis
) -> None:
    """The last test on `cluster`, because it moves a slot away."""
    bus = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    with RedisServer(tcp=True, options=bus) as newcomer:
        target: Redis = ShardedRedis.from_url(newcomer.url, protocol=2)
        store = Store(target, SETTINGS, AskingPipeline(target))
        slot = await move_slot_of(ID, cluster, newcomer)

        with pytest.raises(Unavailable, match="ASK "):
            await create(Store(sharded, SETTINGS))
        await create(store)

        with pytest.raises(Unavailable, match="TRYAGAIN"):
            await store.begin(ID, "mine", "worker")
        finish_move(slot, cluster, newcomer)
        meta = await store.meta(ID)
        assert meta is not None and meta.status == "queued", "the refused begin wrote nothing"
        assert isinstance(await store.begin(ID, "mine", "worker"), Begun)
        await target.aclose()


class AskingPipeline(ClientPipeline):
    """Sends ASKING before each command, as a client that follows ASK does."""

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        replies = await super().run([word for each in commands for word in (["ASKING"], each)])
        return replies[1::2]


async def move_slot_of(generation_id: str, source: RedisServer, target: RedisServer) -> int:
    """Begin to move the slot of a generation, and return the slot."""
    with source.client() as old, target.client() as new:
        old.execute_command(
            "CLUSTER MEET", "127.0.0.1", target.port, target.options["cluster-port"]
        )
        ids = {client.cluster("myid").decode() for client in (old, new)}
        for client in (old, new):
            await until(lambda known=client: has_joined(known, ids), 10.0, "one cluster")
        slot = int(old.cluster("keyslot", keys.meta(generation_id)))
        new.cluster("setslot", slot, "importing", old.cluster("myid").decode())
        old.cluster("setslot", slot, "migrating", new.cluster("myid").decode())
    return slot


def has_joined(client: SyncRedis, ids: set[str]) -> bool:
    known = {node["node_id"] for node in client.cluster("nodes").values()}
    return known == ids and client.cluster("info")["cluster_state"] == "ok"


def finish_move(slot: int, source: RedisServer, target: RedisServer) -> None:
    with source.client() as old, target.client() as new:
        for client in (new, old):
            client.cluster("setslot", slot, "node", new.cluster("myid").decode())


async def live_a_generation(redis: Redis) -> None:
    store, other = Store(redis, SETTINGS), "gen_second00"
    acceptor = Acceptor(redis, store, SETTINGS)
    new = NewGeneration("alice", "demo", b'{"messages":[]}', session="s", grace_s=60.0)
    await acceptor.accept(new, ID)
    await acceptor.accept(new)
    await acceptor.accept(dataclasses.replace(new, idempotency_key="k", body_digest="d"))
    await store.attach_readers(ID, "node")
    holder = await Holder.begin(store)
    await holder.say("a", "b")
    await holder.renew()
    await store.detach_readers(ID, "node")
    await lose(store)
    top = EventId(0, 0)
    entries = [holder.begun.start, (EventId(holder.attempt, holder.seq + 1), token("a"))]
    await store.restore(ID, "mine", holder.attempt, top, holder.begun.fields, entries)
    await holder.append(token("b"), after=holder.seq + 1)
    await holder.release(has_failed=True)
    holder = await Holder.begin(store, "next")
    await holder.finish("c")
    writer = TimelineWriter(redis, SETTINGS)
    writer.note(ID, Moment("attempt_ended"))
    await writer.flush()
    assert writer.written == 1
    await store.delete(ID)
    await create(store, other)
    await store.close(other, CANCELLED)
    await store.seal("gen_third000")
    await produce(acceptor)


async def produce(acceptor: Acceptor) -> None:
    store, name, mine = acceptor.store, "gen_produced", draw_token()
    terms = ProducerTerms(lease_s=1.0, initial_holder_token=mine)
    new = NewGeneration("alice", "job", b'{"messages":[]}', grace_s=60.0, producer=terms)
    await acceptor.accept(new, name)
    begun = await begin_producing(store, name, mine, is_first=True)
    assert isinstance(begun, Tenure)
    said = OutsideEvents(name, mine, begun.attempt, begun.next_seq, [token("a")])
    assert isinstance(await append_outside(store, said), Appended)
    assert isinstance((await feed(store, [Fed(name, [token("b")], repeat_key="k")]))[0], Appended)
    await end_hopeless(store, [name])
    begun = await begin_producing(store, name, "next", is_first=False, is_reset=True)
    assert isinstance(begun, Tenure)
    said = OutsideEvents(name, "next", begun.attempt, begun.next_seq, [END], "completed")
    assert isinstance(await append_outside(store, said), Appended)
    await acceptor.accept(dataclasses.replace(new, grace_s=None), "gen_fed00000")
    assert isinstance((await feed(store, [Fed("gen_fed00000", [END], "completed")]))[0], Appended)


async def take_the_queue(redis: Redis) -> None:
    store, queue = Store(redis, SETTINGS), Queue(redis, "w-1")
    await queue.ensure_groups()
    acceptor = Acceptor(redis, store, SETTINGS)
    for _ in range(2):
        await acceptor.accept(NewGeneration("alice", "demo", b'{"messages":[]}'))
    assert await advance(queue.scripts, await queue.read("interactive", 9)) == 1
    await end_hopeless(store, [ID])
    await put_back(store, ID, "interactive", "demo")
    (delivery,) = await queue.read("resume", 1)
    assert delivery.ticket is not None
    await queue.note_begun(delivery.ticket, 1)
    await queue.try_later(delivery.ticket, 1)
    await queue.scripts.run("later", [keys.later(), keys.lane("resume")], [10])
    await queue.wait(list(keys.LANES), 1)
    await queue.claim("resume", 0, 10)
    await queue.leave(delivery, ID, 1_000)
    await store.scripts.run("spend", [keys.meta(ID)], [1, "{}"])
    await Settlement(redis, store, SETTINGS).look(keys.QUEUE)
    fact = Fact("alice", ID, await store.now_ms(), await store.now_ms(), "demo", Figures(1))
    await Ledger(redis, SETTINGS).settle([fact])
    await queue.scripts.run("consumer_drop", [keys.lane("resume")], [keys.GROUP, "w-1", 0])


async def run_a_batch(redis: Redis) -> None:
    batches = Batches(redis, SETTINGS)
    asked = {"endpoint": "/v1/responses", "input_file_id": "file-1", "window": "24h"}
    await batches.create(NewBatch(batch_id=BATCH, owner="alice", window_s=60.0, **asked))
    lease = await BatchLease.begin(log_store(redis, SETTINGS), BATCH, "jobs-1")
    assert lease is not None
    await lease.move("validating", "in_progress", fields={"total": "1"})
    await lease.renew()
    await lease.take([InFlightLine(1, 0, 10)], before=0, line=1, offset=10)
    await lease.commit(
        Commit(name="c1", parts=["p"], done=["1"], dead=["{}"], completed=1, model="m")
    )
    await batches.cancel(BATCH)
    ending = End("cancelled", "cancelled")
    assert await lease.move("cancelling", "cancelled", events=[ending], kept_s=60.0)


async def deliver_webhooks(redis: Redis) -> None:
    scripts, place = Scripts(redis), keys.hook_place("alice", HOOK.host)
    await register(redis, ID, "generation", HOOK, {}, owner="alice")
    assert await make_due(redis, ID, HOOK, WebhookEvent("generation.completed", {}), owner="alice")
    (due,) = await DueHooks(redis).find(2**50)
    assert due.place == place
    names = [keys.hook(ID), keys.hooks_due(place), keys.hooks_busy(HOOK.host)]
    assert await scripts.run("hook_take", names, [ID, 1_000, 4]) == 1
    settled = [*names, keys.HOOKS_DEAD], [ID, 1, "", 1_000, "given_up", 10, "500"]
    assert await scripts.run("hook_settle", *settled) == 1
    assert await redrive(redis, [ID]) == [True]


async def fire_schedules(redis: Redis) -> None:
    schedules = Schedules(redis, 10)
    timing = Timing(cron="0 0 * * *")
    schedule = Schedule(
        "sched_1", "alice", "generation", b"{}", timing, 0, 1, 0, "", None
    )  # fmt: skip
    await schedules.add(schedule, key="k", digest="d")
    assert await schedules.begin(schedule, 1) == "first"
    assert await schedules.finish(schedule, 1, 1, {"last_id": "gen_1"})
    assert await schedules.delete(schedule)


async def count_files(redis: Redis) -> None:
    files = OwnerFiles(redis, SETTINGS)
    await files.add("alice", Counted("file-1", 10, 1), is_bounded=True)
    assert (await files.kept("alice")).files == 0, "it has expired"
    await files.remove("file-1", keys.digest_of("alice"))


async def count_an_owner(redis: Redis) -> None:
    scripts, limits = Scripts(redis), OwnerLimits(active_max=1, tokens_per_min=10)
    for name in (ID, "gen_second00"):
        await scripts.run(ADMIT, *admission("alice", name, 5, limits, SETTINGS))
    await scripts.run(ADMIT, *line_admission("alice", "gen_third000", 60.0))
    assert await scripts.run(EXTEND, *extension("alice", ID, 1_000)) == 1
    assert await scripts.run(SETTLE, *settlement("alice", ID, 7)) == 1
    assert await scripts.run(SETTLE, *settlement("alice", "gen_third000", 7)) == 1
    for number in (1, 2, 0):
        names = [keys.owner_places("alice"), keys.owner_told("alice")]
        await scripts.run("limit_place", names, ["node", number, 1_000, 1, 1, 0, "reader", 1_000])


async def keep_streams(redis: Redis) -> None:
    store, owner = StreamStore(redis, replace(SETTINGS, stream_bytes_max=64)), owner_of("o")
    await note_owner(store, owner)
    subscriptions = Subscriptions(store)
    config = Config("webhook", 1_000, pattern="*", streams=("one",), url="https://example.com")
    assert await subscriptions.create(owner, "sub", config, "https://node") == "created"
    plain = NewStream(content_type="text/plain", media="text/plain", data=b"a" * 40, ttl_s="60")
    assert (await store.create(owner, "one", plain)).kind == "created"
    producer = Producer("p", 0, 0)
    appended = await store.append(
        owner, "one", b"b" * 40, media="text/plain", stream_seq="1", producer=producer, closes=True
    )
    assert appended.kind == "ok"
    reading = await store.read(owner, "one", ZERO, bytes_max=1)
    assert [entry.data for entry in reading.entries] == [b"b" * 40] and reading.info is not None
    point = ForkPoint(reading.info, reading.info.tail)
    fork = NewStream(source="one", fork_point=point, prefix=b"c", sub_offset=1)
    assert (await store.create(owner, "two", fork)).kind == "created"
    await subscriptions.notify(owner, "one", is_new=True)
    woken = await subscriptions.get(owner, "sub")
    assert woken is not None and woken.wake_id and woken.generation == 1
    assert (await subscriptions.act(owner, "sub", "claim", worker="w"))[0] == "claimed"
    assert await subscriptions.act(owner, "sub", "auto", generation=1, wake_id=woken.wake_id) == [
        "ok",
        "",
        "",
    ]
    assert await subscriptions.change_links(owner, "sub", "remove", ["one"]) == "ok"
    assert await store.delete(owner, "one") == "hidden"
    assert await store.delete(owner, "two") == "deleted"
    assert (await store.look(owner, "one")).state == "absent"
    gone = NewStream(content_type="text/plain", media="text/plain", ttl_s="0")
    assert (await store.create(owner, "three", gone)).kind == "created"
    assert await sweep_owners(store) == 1


async def share_backends(redis: Redis) -> None:
    scripts = Scripts(redis)
    assert (await change_breaker(scripts, "a", b"", Breaker(strikes=2)))[0]
    slots = BackendSlots(scripts, "a", 1, 1_000)
    for name in (ID, "gen_second00"):
        await slots.call(Waiter(name, entry=b"{}", owner="o"), kept=["gen_third000"])
    assert (await slots.call(released=[ID, "gen_third000"])).entries == [b"{}"]
    assert (await slots.call(Waiter("gen_second00"))).has_slot
    await read_view(redis, "w-1", {"a": Busy(1)}, now_ms=1)
