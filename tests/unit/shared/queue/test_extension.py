"""The keys of a generation that lives longer than usual: which are extended, and when."""

from __future__ import annotations

import pytest

from shared.config.limits import OwnerLimits
from shared.config.settings import Settings
from shared.log.events import End
from shared.log.lifetimes import (
    chat_ms,
    counted_ms,
    extend_every_s,
    listed_ms,
    must_extend,
    named_ms,
    request_ms,
)
from shared.log.producing import Appended, OutsideEvents, ProducerTerms, begin_producing
from shared.log.producing import append_outside as append
from shared.log.records import Begun
from shared.log.request_pieces import PIECE_BYTES
from shared.queue import extension
from shared.queue.accept import Acceptor, NewGeneration
from shared.queue.endings import cancel
from shared.queue.extension import Extensions, extend, extend_begun
from shared.queue.fed_names import fed_key, find_fed, name_fed
from shared.redis import keys
from tests.support.generation import store_on

SHORT = Settings(queue_wait_s=86_400.0, upstream_total_s=60.0, upstream_outage_s=1.0)
LONG = Settings()
LEASE_S = 30.0
SHORT_MS = 5_000
SPARE_MS = 4_000  # that a test may take
FED = fed_key("lobehub", "op")
NEW = {
    "owner": "alice",
    "model": "report",
    "session": "chat",
    "idempotency_key": "key",
    "body_digest": "digest",
    "limits": OwnerLimits(active_max=2),
    "request": b" " * (PIECE_BYTES + 1),
    "fed": FED,
}


class Bench:
    """A generation with every key, and what is left of the life of each."""

    def __init__(self, redis):
        self.redis = redis
        self.store = store_on(redis)
        self.settings = self.store.settings
        self.extensions = Extensions(self.store)

    async def accept(self, **changes):
        acceptor = Acceptor(self.redis, self.store, self.settings)
        new = NewGeneration(**(NEW | changes))
        self.id = (await acceptor.accept(new)).generation_id
        await name_fed(self.store, "lobehub", "op", self.id)
        await self.redis.rpush(keys.timeline(self.id), "moment")
        await self.shorten()

    async def shorten(self):
        for name in [*self.lives(), keys.owner_limits("alice"), keys.owner_active("alice")]:
            await self.redis.pexpire(name, SHORT_MS)
        soon_ms = await self.store.now_ms() + SHORT_MS
        for name in (keys.owner_active("alice"), keys.owner_until("alice")):
            await self.redis.zadd(name, {self.id: soon_ms})

    async def age(self, seconds):
        await self.redis.hincrby(keys.meta(self.id), "created", -round(seconds * 1000))

    async def append(self):
        appended = await append(self.store, OutsideEvents(self.id, "token", 1, 0, []))
        assert isinstance(appended, Appended)
        await self.extensions.note(self.id, appended)

    def lives(self, silence_s=LEASE_S):
        """Return the keys that expire as a whole, and how long they are kept."""
        named, listed = named_ms(self.settings, silence_s), listed_ms(self.settings, silence_s)
        return {
            keys.idempotency("alice", "key"): named,
            FED: named,
            keys.timeline(self.id): named,
            keys.request(self.id): request_ms(self.settings, None, silence_s),
            keys.owner("alice"): listed,
            keys.session("alice", "chat"): listed,
        }

    async def left_ms(self):
        now_ms = await self.store.now_ms()
        found = {name: await self.redis.pttl(name) for name in self.lives()}
        for name in (keys.owner_active("alice"), keys.owner_until("alice")):
            found[name] = round(await self.redis.zscore(name, self.id)) - now_ms
        return found

    async def is_extended(self, silence_s=LEASE_S):
        found = await self.left_ms()
        wanted = self.lives(silence_s) | {
            keys.owner_active("alice"): counted_ms(self.settings, silence_s),
            keys.owner_until("alice"): named_ms(self.settings, silence_s),
        }
        for name in (keys.owner_active("alice"), keys.owner_limits("alice")):
            assert await self.redis.pttl(name) > counted_ms(self.settings), name
        for name, kept_ms in wanted.items():
            assert kept_ms - SPARE_MS <= found[name] <= kept_ms, name
        return True

    async def is_short(self):
        return all(left_ms <= SHORT_MS for left_ms in (await self.left_ms()).values())


@pytest.fixture
async def bench(redis):
    return Bench(redis)


@pytest.fixture
async def produced(bench):
    await bench.accept(producer=ProducerTerms(LEASE_S, "token"))
    await begin_producing(bench.store, bench.id, "token", is_first=True)
    return bench


async def test_an_append_extends_every_key_of_an_old_generation(produced):
    await produced.age(produced.settings.generation_s_max / 2 + 1)

    await produced.append()

    assert await produced.is_extended()
    assert await find_fed(produced.store, "lobehub", "op") == produced.id


async def test_an_append_to_a_young_generation_extends_nothing(produced, monkeypatch):
    monkeypatch.setattr(extension, "extend", None)
    await produced.age(produced.settings.generation_s_max / 2 - 60)

    await produced.append()

    assert await produced.is_short()


async def test_a_node_extends_a_generation_once_in_an_hour(produced):
    await produced.age(produced.settings.generation_s_max)
    await produced.append()
    await produced.shorten()

    await produced.append()

    assert extend_every_s(produced.settings) == 3_600
    assert await produced.is_short()


async def test_a_worker_that_begins_an_old_generation_extends_every_key(bench):
    await bench.accept()
    silence_s = bench.settings.queue_wait_s + bench.settings.upstream_total_s
    silence_s += bench.settings.upstream_outage_s
    await bench.age(bench.settings.generation_s_max / 2 + 1)
    begun = await bench.store.begin(bench.id, "token", "worker")
    assert isinstance(begun, Begun)

    await extend_begun(bench.store, begun)

    assert await bench.is_extended(silence_s)


@pytest.mark.parametrize("is_large", [True, False])
async def test_of_a_line_of_a_batch_only_a_large_request_is_extended(bench, monkeypatch, is_large):
    request = NEW["request"] if is_large else b'{"messages":[]}'
    await bench.accept(request=request, priority="batch", wait_s=86_400.0)
    await bench.age(bench.settings.generation_s_max + 86_400)
    begun = await bench.store.begin(bench.id, "token", "worker")
    assert isinstance(begun, Begun)
    if not is_large:
        monkeypatch.setattr(extension, "extend", None)

    await extend_begun(bench.store, begun)

    assert not is_large or await bench.redis.pttl(keys.request(bench.id)) > 86_400_000


async def test_the_first_attempt_of_a_usual_generation_extends_nothing(bench, monkeypatch):
    monkeypatch.setattr(extension, "extend", None)
    await bench.accept()
    await bench.age(bench.settings.queue_wait_s)
    begun = await bench.store.begin(bench.id, "token", "worker")

    await extend_begun(bench.store, begun)

    assert await bench.is_short()


async def test_a_generation_that_ends_meanwhile_has_no_key_that_outlives_its_meta(
    produced, monkeypatch
):
    add = extension.Listing.add

    async def add_after_the_end(*args):
        await cancel(produced.store, produced.id)
        await add(*args)

    monkeypatch.setattr(extension.Listing, "add", add_after_the_end)
    await extend(produced.store, produced.id, LEASE_S)

    kept_ms = await produced.redis.pttl(keys.meta(produced.id))
    one_only = (keys.idempotency("alice", "key"), keys.request(produced.id))
    for name in (*one_only, FED, keys.timeline(produced.id)):
        assert await produced.redis.pttl(name) <= kept_ms + 100
    assert await produced.redis.zscore(keys.owner_active("alice"), produced.id) is None


@pytest.mark.parametrize("state", ["ended", "sealed", "absent"])
async def test_only_an_unfinished_generation_is_extended(produced, state):
    if state == "ended":
        await produced.store.close(produced.id, End("cancelled", "cancelled"))
    elif state == "sealed":
        await produced.store.delete(produced.id)
    else:
        await produced.redis.delete(keys.meta(produced.id))

    await extend(produced.store, produced.id, LEASE_S)

    assert await produced.redis.pttl(keys.idempotency("alice", "key")) <= SHORT_MS


def test_no_key_expires_between_two_calls():
    """Whatever the settings and the silence are."""
    for settings in (SHORT, LONG):
        life_s = settings.generation_s_max
        for silence_s in (0.0, life_s / 3, 0.9 * life_s):
            last_s = min(life_s / 2, life_s - silence_s)  # of the last call without an extension
            assert not must_extend(settings, last_s, silence_s)
            assert must_extend(settings, last_s + 0.1, silence_s)
            kept_s = counted_ms(settings) / 1000
            assert last_s + silence_s <= kept_s
            extended_s = counted_ms(settings, silence_s) / 1000
            assert extend_every_s(settings) + silence_s <= extended_s
    assert listed_ms(LONG) <= chat_ms(LONG) <= 86_400_000
