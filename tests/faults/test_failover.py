"""A real master and its replica in split brain: no id ever has two texts.

    A begins on the master, all of it is replicated, and A falls silent;
    the link breaks: B takes over on the old master, and readers there see what B writes;
    the replica is promoted, the old master dies: the promoted one has never heard of B.

Then either B finds the promoted server first (it may restore), or C does (it takes over, and B is
fenced). Source: docs/architecture.md, "The write protocol".
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from shared.config.settings import Settings
from shared.log.events import End, Token, encode
from shared.log.ids import EventId
from shared.log.records import Append, Begun, Ended, Entry, Fenced, Held, Lost, Ok
from shared.log.store import Store
from shared.redis.connections import connect
from tests.support.redis_server import RedisServer
from tests.support.wait import until

LEASE_S = 0.3
ID = "gen_failover"


@dataclass
class Seen:
    """What readers were given: an id means one text, for ever."""

    texts: dict[EventId, bytes] = field(default_factory=dict)

    async def look(self, store: Store) -> list[Entry]:
        log = await store.page(ID, EventId(0, 0), 1_000)
        for event_id, raw in log:
            assert self.texts.setdefault(event_id, raw) == raw, f"two texts at {event_id}"
        assert [event_id.seq for event_id, _ in log] == list(range(1, len(log) + 1))
        return log


@dataclass
class Holder:
    """A worker's memory of one generation: its token, its attempt, and all that stands."""

    name: str
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    attempt: int = 0
    log: list[Entry] = field(default_factory=list)
    fields: dict[bytes, bytes] = field(default_factory=dict)

    async def begin(self, store: Store) -> object:
        outcome = await store.begin(ID, self.token, self.name)
        if isinstance(outcome, Begun):
            found = await store.page(ID, EventId(0, 0), 1_000)
            self.log = [entry for entry in found if entry[0] <= outcome.start[0]]
            self.attempt, self.fields = outcome.start[0].attempt, dict(outcome.fields)
        return outcome

    async def take_over(self, store: Store) -> Begun:
        """Begin as soon as the lease of whoever holds it has run out."""

        async def begun() -> object:
            outcome = await self.begin(store)
            return outcome if isinstance(outcome, Begun) else None

        outcome = await until(begun, 10, f"{self.name} begins")
        assert isinstance(outcome, Begun)
        return outcome

    async def say(self, store: Store, *texts: str, end: bool = False) -> object:
        """Append, and remember it whatever the answer: an event gets its id once."""
        raws = [encode(Token(text)) for text in texts]
        raws += [encode(End("completed", "stop"))] if end else []
        before = self.log[-1][0].seq
        self.log += [(EventId(self.attempt, before + n), raw) for n, raw in enumerate(raws, 1)]
        status = "completed" if end else None
        batch = Append(ID, self.token, self.attempt, before, raws, status)
        return (await store.append_many([batch]))[0]

    async def restore(self, store: Store, top: EventId) -> object:
        """Write again what follows `top`, which must be an entry of this holder's own log."""
        ids = [event_id for event_id, _ in self.log]
        assert top in ids, "not mine: a worker stops here"
        missing = self.log[ids.index(top) + 1 :]
        return await store.restore(ID, self.token, self.attempt, top, self.fields, missing)


@pytest.fixture
async def servers() -> AsyncIterator[tuple[RedisServer, Store, RedisServer, Store]]:
    with RedisServer(tcp=True) as master, RedisServer(replica_of=master) as replica:
        stores = []
        for server in (master, replica):
            settings = Settings(redis_url=server.url, lease_s=LEASE_S)
            stores.append(Store(connect(settings), settings))
        yield master, stores[0], replica, stores[1]
        for store in stores:
            await store.redis.aclose()


@pytest.fixture
async def split(servers) -> tuple[Store, Holder, Holder, Seen]:
    """The promoted server's store, A and B, and what readers have seen: B is not there."""
    master, old, replica, promoted = servers
    seen, a, b = Seen(), Holder("A"), Holder("B")
    fields = {"owner": "", "model": "demo", "priority": "interactive", "request": b"{}"}
    await old.create(ID, fields, may_be_lost=False)
    await a.begin(old)
    assert await a.say(old, "a2", "a3") == Ok()
    replica.wait_replicated()

    replica.promote()
    await b.take_over(old)
    assert await b.say(old, "b5", "b6") == Ok()
    await seen.look(old)
    master.kill()
    return promoted, a, b, seen


async def test_a_holder_restores_the_entries_that_the_replica_lacks(split):
    store, a, b, seen = split

    told = await b.say(store, "b7")
    restored = await b.restore(store, told.top)

    assert told == Lost(EventId(1, 3))
    assert restored == Ok()
    log = await seen.look(store)
    assert log == b.log, "byte for byte, under the same ids"
    assert await b.say(store, "b8", end=True) == Ok()
    assert await a.say(store, "a4") == Ended()


async def test_after_a_restore_the_next_attempt_number_is_above_every_earlier_one(split):
    store, a, b, seen = split
    told = await b.say(store, "b7")
    await b.restore(store, told.top)
    c = Holder("C")

    begun = await c.take_over(store)

    assert begun.start[0].attempt > 10**12, "a loss was seen: milliseconds since 1970"
    assert await c.say(store, "c9") == Ok()
    assert await b.say(store, "b8") == Fenced()
    assert await a.say(store, "a4") == Fenced()
    log = await seen.look(store)
    assert [event_id.attempt for event_id, _ in log][:7] == [1, 1, 1, 2, 2, 2, 2]


async def test_a_holder_that_restores_too_late_is_fenced_and_its_ids_are_not_reused(split):
    store, a, b, seen = split
    c = Holder("C")

    begun = await c.take_over(store)
    assert await c.say(store, "c5", "c6") == Ok()

    assert begun.start[0].attempt > 10**12, "the history has changed"
    assert await b.say(store, "b7") == Fenced()
    assert await b.restore(store, EventId(1, 3)) == Fenced()
    assert await a.say(store, "a4") == Fenced()
    log = await seen.look(store)
    assert log == c.log


async def test_after_a_promotion_a_living_holder_may_restore_before_a_takeover(split):
    """A worker that has just connected is quiet for a lease: it takes over nothing that lapsed."""
    store, _, b, seen = split
    quiet_until_ms = await store.now_ms() + 10_000

    held = await store.begin(ID, "token of C", "C", quiet_until_ms=quiet_until_ms)

    assert isinstance(held, Held)
    told = await b.say(store, "b7")
    assert await b.restore(store, told.top) == Ok()
    await seen.look(store)


async def test_a_restore_and_a_takeover_at_once_give_no_id_two_texts(split):
    """C begins between B's being told and B's restore."""
    store, _, b, seen = split
    c = Holder("C")

    told = await b.say(store, "b7")
    await c.take_over(store)
    refused = await b.restore(store, told.top)
    assert await c.say(store, "c5", end=True) == Ok()

    assert refused == Fenced()
    assert await b.say(store, "b8") == Ended()
    assert await seen.look(store) == c.log


async def test_a_restore_onto_another_top_is_refused(split):
    store, _, b, seen = split

    outcome = await b.restore(store, EventId(1, 2))

    assert not isinstance(outcome, Ok)
    assert len(await seen.look(store)) == 3
