"""The life of a stream: for each state and each action the outcome; and what readers find."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from shared.config.settings import Settings
from shared.redis import stream_keys
from shared.streams.place import ZERO, Place, after
from shared.streams.record import Segment, StreamInfo
from shared.streams.store import ForkPoint, NewStream, Producer, StreamStore, lineage_of, owner_of
from shared.streams.sweep import forget_owner, note_owner, sweep_owners

OWNER = owner_of("somebody")
TEXT = NewStream(content_type="text/plain", media="text/plain")


@pytest.fixture
def store(real_redis: Redis) -> StreamStore:
    return StreamStore(real_redis, Settings(redis_url="redis://test"))


async def append(store: StreamStore, path: str, data: bytes = b"x", **how):
    return await store.append(OWNER, path, data, media="text/plain", **how)


async def fork(store: StreamStore, source: str, path: str, place: Place | None = None, **how):
    info = (await store.look(OWNER, source)).info
    assert info is not None
    point = ForkPoint(info, info.tail if place is None else place)
    return await store.create(
        OWNER, path, NewStream(source=source, fork=place, fork_point=point, **how)
    )


async def text_of(store: StreamStore, path: str, place: Place = ZERO) -> bytes:
    reading = await store.read(OWNER, path, place, bytes_max=10_000)
    assert reading.state == "live", reading.state
    return b"".join(entry.data for entry in reading.entries)


# Each state of a stream, and how it gets there.
async def bring_to(store: StreamStore, state: str) -> None:
    if state == "absent":
        return
    ttl = "0" if state in ("expired", "expired, forked") else ""
    await store.create(OWNER, "s", replace(TEXT, ttl_s="60", data=b"first"))
    if state in ("hidden", "expired, forked"):
        await fork(store, "s", "fork")
    if state == "hidden":
        assert await store.delete(OWNER, "s") == "hidden"
    if state == "closed":
        await append(store, "s", closes=True)
    if ttl:
        await store.redis.hset(stream_keys.meta(OWNER, "s"), mapping={"until": 1, "expires": 1})


LIFE = {
    # state: create, append, close, read, delete
    "absent": ("created", "absent", "absent", "absent", "absent"),
    "open": ("exists", "ok", "ok", "live", "deleted"),
    "closed": ("differs", "closed", "ok", "live", "deleted"),
    "hidden": ("blocked", "gone", "gone", "gone", "gone"),
    "expired": ("expired", "absent", "absent", "absent", "absent"),
    "expired, forked": ("blocked", "gone", "gone", "gone", "gone"),
}
ACTIONS = ("create", "append", "close", "read", "delete")


@pytest.mark.parametrize("state", LIFE)
@pytest.mark.parametrize("action", ACTIONS)
async def test_every_action_in_every_state(store: StreamStore, state: str, action: str) -> None:
    await bring_to(store, state)
    match action:
        case "create":
            found = (await store.create(OWNER, "s", replace(TEXT, ttl_s="60"))).kind
        case "append":
            found = (await append(store, "s")).kind
        case "close":
            found = (await store.append(OWNER, "s", b"", closes=True)).kind
        case "read":
            found = (await store.read(OWNER, "s", ZERO, bytes_max=10)).state
        case _:
            found = await store.delete(OWNER, "s")

    assert found == LIFE[state][ACTIONS.index(action)]


# A producer that is known by (epoch 3, seq 5), or not at all, and what it sends.
PRODUCERS = [
    ("unknown", (0, 0), "ok", ""),
    ("unknown", (7, 0), "ok", ""),
    ("unknown", (0, 1), "gap", "0"),
    ("known", (3, 6), "ok", ""),
    ("known", (3, 5), "duplicate", "5"),
    ("known", (3, 0), "duplicate", "5"),
    ("known", (3, 7), "gap", "6"),
    ("known", (2, 6), "stale", "3"),
    ("known", (2, 0), "stale", "3"),
    ("known", (4, 0), "ok", ""),
    ("known", (4, 1), "epoch", ""),
    ("known", (2**53 - 1, 0), "ok", ""),
]


@pytest.mark.parametrize(("state", "sent", "kind", "detail"), PRODUCERS)
async def test_every_answer_to_a_producer(
    store: StreamStore, state: str, sent: tuple[int, int], kind: str, detail: str
) -> None:
    await store.create(OWNER, "s", TEXT)
    if state == "known":
        for seq in range(6):
            await append(store, "s", b"k", producer=Producer("p", 3, seq))
    before = await text_of(store, "s")
    outcome = await append(store, "s", b"new", producer=Producer("p", *sent))

    assert (outcome.kind, outcome.detail) == (kind, detail)
    assert await text_of(store, "s") == before + (b"new" if kind == "ok" else b"")


async def test_many_repeats_at_once_append_each_sequence_number_once(store: StreamStore) -> None:
    await store.create(OWNER, "s", TEXT)
    for seq in range(5):
        outcomes = await asyncio.gather(
            *(append(store, "s", b"%d" % seq, producer=Producer("p", 0, seq)) for _ in range(4))
        )
        assert sorted(outcome.kind for outcome in outcomes) == ["duplicate"] * 3 + ["ok"]

    assert await text_of(store, "s") == b"01234"


async def test_the_script_computes_the_places_of_this_package(store: StreamStore) -> None:
    created = await store.create(OWNER, "s", replace(TEXT, data=b"ab"))
    appended = await append(store, "s", b"c")

    assert created.tail == after(ZERO, b"ab")
    assert appended.tail == after(after(ZERO, b"ab"), b"c")


async def test_a_place_of_other_bytes_is_lost(store: StreamStore) -> None:
    await store.create(OWNER, "s", TEXT)
    tails = [(await append(store, "s", data)).tail for data in (b"aa", b"bb", b"cc")]
    await store.delete(OWNER, "s")
    await store.create(OWNER, "s", TEXT)
    for data in (b"aa", b"BB", b"cc"):
        await append(store, "s", data)

    assert await text_of(store, "s", tails[0]) == b"BBcc"
    for lost in (*tails[1:], Place(1, 0), Place(2, tails[0].tag + 1), Place(99, 1)):
        reading = await store.read(OWNER, "s", lost, bytes_max=10)
        assert reading.state == "lost", lost


async def test_pages_are_bounded_by_bytes_and_have_one_entry_at_least(store: StreamStore) -> None:
    await store.create(OWNER, "s", TEXT)
    for size in (5, 5, 50, 5):
        await append(store, "s", b"x" * size)
    place, sizes = ZERO, []
    while True:
        page = await store.read(OWNER, "s", place, bytes_max=12)
        sizes.append([len(entry.data) for entry in page.entries])
        place = page.after
        if page.is_at_tail:
            break

    assert sizes == [[5, 5], [50], [5]]


async def test_the_oldest_entries_go_and_their_places_are_lost(real_redis: Redis) -> None:
    settings = Settings(redis_url="redis://test", stream_bytes_max=100, stream_entries_max=8)
    store = StreamStore(real_redis, settings)
    await store.create(OWNER, "s", TEXT)
    first = (await append(store, "s", b"x" * 40)).tail
    second = (await append(store, "s", b"y" * 40)).tail
    await append(store, "s", b"z" * 40)

    assert await text_of(store, "s") == b"y" * 40 + b"z" * 40
    assert await text_of(store, "s", first) == b"y" * 40 + b"z" * 40
    for _ in range(12):
        await append(store, "s", b"1")
    assert (await store.read(OWNER, "s", second, bytes_max=9)).state == "lost"
    assert len(await text_of(store, "s")) <= 8
    assert int(await real_redis.hget(stream_keys.sums(OWNER), "bytes")) <= 8


async def test_forks_read_their_source_and_go_their_own_way(store: StreamStore) -> None:
    await store.create(OWNER, "a", TEXT)
    one = (await append(store, "a", b"1")).tail
    two = (await append(store, "a", b"2")).tail
    assert (await fork(store, "a", "b", one)).kind == "created"
    await append(store, "b", b"B")
    await append(store, "a", b"3")
    assert (await fork(store, "b", "c")).kind == "created"
    await append(store, "c", b"C")

    assert await text_of(store, "a") == b"123"
    assert await text_of(store, "b") == b"1B"
    assert await text_of(store, "c") == b"1BC"
    assert await text_of(store, "c", one) == b"BC"
    assert (await store.read(OWNER, "b", two, bytes_max=9)).state == "lost"
    info = (await store.look(OWNER, "c")).info
    assert info is not None and info.parents == ("b", "a")


async def test_a_source_lives_as_long_as_its_forks(store: StreamStore) -> None:
    await store.create(OWNER, "a", replace(TEXT, data=b"1"))
    await fork(store, "a", "b")
    await fork(store, "b", "c")
    assert await store.delete(OWNER, "a") == "hidden"
    assert await store.delete(OWNER, "b") == "hidden"
    assert await text_of(store, "c") == b"1"

    assert await store.delete(OWNER, "c") == "deleted"
    assert not [key async for key in store.redis.scan_iter("tr:{ds:*")]


def test_lineage_of_a_fork_inside_of_inherited_entries() -> None:
    place = [Place(n, n) for n in range(6)]
    source = _info(tail=place[5], lineage=(Segment("a", place[2]), Segment("b", place[4])))

    assert lineage_of("c", ForkPoint(source, place[5])) == [
        ("a", place[2]), ("b", place[4]), ("c", place[5]),
    ]  # fmt: skip
    assert lineage_of("c", ForkPoint(source, place[3])) == [("a", place[2]), ("b", place[3])]
    assert lineage_of("c", ForkPoint(source, place[2])) == [("a", place[2])]
    assert lineage_of("c", ForkPoint(source, ZERO)) == []


def _info(**changes):
    plain = StreamInfo("text/plain", "text/plain", ZERO, ZERO, False, "", "", (), (), 0)
    return plain._replace(**changes)


async def test_limits_of_an_owner(real_redis: Redis) -> None:
    settings = Settings(redis_url="redis://test", streams_max=2, streams_bytes_max=10)
    store = StreamStore(real_redis, settings)
    assert (await store.create(OWNER, "a", replace(TEXT, data=b"123456"))).kind == "created"
    assert (await append(store, "a", b"12345")).detail == "owner"
    assert (await append(store, "a", b"1234")).kind == "ok"
    assert (await store.create(OWNER, "b", TEXT)).kind == "created"
    assert (await store.create(OWNER, "c", TEXT)).detail == "streams"
    assert (await store.create(owner_of("other"), "c", TEXT)).kind == "created"
    await store.delete(OWNER, "a")
    assert (await store.create(OWNER, "c", replace(TEXT, data=b"1234567890"))).kind == "created"


async def test_use_moves_the_end_of_a_life_but_a_look_does_not(store: StreamStore) -> None:
    await store.create(OWNER, "s", replace(TEXT, ttl_s="100"))
    key = stream_keys.meta(OWNER, "s")
    before = int(await store.redis.hget(key, "until")) - 50_000

    async def moved_by(action) -> bool:
        await store.redis.hset(key, "until", before)
        await action
        return int(await store.redis.hget(key, "until")) != before

    assert not await moved_by(store.look(OWNER, "s"))
    assert await moved_by(store.read(OWNER, "s", ZERO, bytes_max=1))
    assert await moved_by(append(store, "s"))
    assert await moved_by(store.look(OWNER, "s", is_use=True))


async def test_expired_streams_are_swept_with_their_sums(store: StreamStore) -> None:
    await note_owner(store, OWNER)
    await store.create(OWNER, "a", replace(TEXT, ttl_s="0", data=b"1"))
    await store.create(OWNER, "b", replace(TEXT, expires_at="x", expires_ms=1, data=b"1"))
    assert await sweep_owners(store) == 2

    assert not [key async for key in store.redis.scan_iter("tr:*ds:*")]


async def test_an_owner_is_forgotten_with_hidden_streams(store: StreamStore) -> None:
    await note_owner(store, OWNER)
    await store.create(OWNER, "a", TEXT)
    await fork(store, "a", "b")
    await store.delete(OWNER, "a")
    while await forget_owner(store, OWNER):
        pass

    assert not [key async for key in store.redis.scan_iter("tr:*ds:*")]
