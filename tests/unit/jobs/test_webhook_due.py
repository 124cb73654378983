"""Due deliveries: owners take turns; older and newer jobs roles find each other's records."""

from __future__ import annotations

import pytest

from jobs import webhook_due, webhook_ends
from jobs.index_janitor import IndexJanitor
from jobs.webhook_due import DueHooks, in_turn
from jobs.webhook_ends import Ends
from shared.later.webhooks import OWNER_CHECKS_PER_S, Webhook, WebhookEvent, make_due, register
from shared.redis import keys
from shared.redis.client import clock_ms
from shared.redis.counts import read_counts
from tests.support.receiver import SECRET

ANN, BOB = "ann", "bob"
# A fifth of the limits of the product: tests that exceed them take a second for 100 webhooks.
OWNERS_MAX, HOSTS_MAX, CHECKS_MAX = 10, 20, 100


@pytest.fixture
def redis(real_redis, monkeypatch):
    monkeypatch.setattr(webhook_due, "OWNERS_MAX", OWNERS_MAX)
    monkeypatch.setattr(webhook_due, "HOSTS_MAX", HOSTS_MAX)
    monkeypatch.setattr(webhook_ends, "CHECKS_MAX", CHECKS_MAX)
    return real_redis


async def ended(redis, subject_id, host, owner=""):
    hook = Webhook(f"https://{host}/x", SECRET)
    await register(redis, subject_id, "batch", hook, {}, owner=owner)
    await make_due(redis, subject_id, hook, WebhookEvent("batch.failed", {}), owner=owner)


async def found(redis):
    """Return digest of the owner, host and subject of each due delivery."""
    dues = await DueHooks(redis).find(await clock_ms(redis))
    return [(*keys.split_hook_place(due.place), due.subject_id) for due in dues]


def test_in_turn_takes_one_item_of_each_queue():
    assert in_turn([[1, 2, 3], [4], [], [5, 6]]) == [1, 4, 5, 2, 6, 3]
    assert in_turn([]) == []


def test_a_result_is_bounded():
    assert webhook_due.OWNER_HOSTS_MIN * webhook_due.OWNERS_MAX < 1_000


async def test_an_owner_with_very_many_hosts_does_not_precede_other_owners(redis):
    for number in range(3 * HOSTS_MAX):
        await ended(redis, f"a{number}", f"host-{number}.example", ANN)
    await ended(redis, "b", "bob.example", BOB)
    await ended(redis, "old", "old.example")

    dues = await found(redis)

    assert {due[2] for due in dues[:3]} & {"b", "old"} == {"b", "old"}
    assert len(dues) >= HOSTS_MAX // 3


async def test_a_single_owner_gets_the_whole_result(redis):
    for number in range(2 * HOSTS_MAX):
        await ended(redis, f"a{number}", f"host-{number}.example", ANN)

    assert len(await found(redis)) >= HOSTS_MAX // 2
    assert len(await found(redis)) == 0, "the owner is looked at again after a second"


async def test_further_results_serve_the_other_owners(redis):
    for number in range(OWNERS_MAX + 10):
        await ended(redis, f"s{number}", "one.example", f"owner {number}")

    looks = [await found(redis), await found(redis)]

    assert [len(look) for look in looks] == [OWNERS_MAX, 10]


async def test_an_event_added_during_a_check_is_found(redis):
    await ended(redis, "one", "a.example", ANN)
    place = keys.hook_place(ANN, "a.example")
    digest, _ = keys.split_hook_place(place)
    await redis.delete(keys.hooks_due(place))
    assert await found(redis) == []
    await redis.zadd(keys.HOOKS_OWNERS, {digest: 1})
    assert await found(redis) == []
    assert await redis.exists(keys.hooks_hosts(digest), keys.HOOKS_OWNERS) == 0

    await ended(redis, "two", "a.example", ANN)
    assert [due[2] for due in await found(redis)] == ["two"]


async def test_due_webhooks_of_an_older_version_are_found(redis):
    """The older version has one index, of hosts."""
    await redis.hset(keys.hook("x"), mapping={"state": "due", "host": "old.example"})
    await redis.zadd(keys.HOOKS_HOSTS, {"old.example": 1})
    await redis.zadd(keys.hooks_due("old.example"), {"x": 1})

    assert await found(redis) == [("", "old.example", "x")]


async def test_an_older_jobs_role_finds_due_webhooks_of_this_version(redis):
    """It uses the members state and host, and the index of hosts that it mends."""
    await ended(redis, "x", "new.example", ANN)

    state, host, url = await redis.hmget(keys.hook("x"), ["state", "host", "url"])
    assert (state, host, url) == (b"due", b"new.example", b"https://new.example/x")


async def test_the_janitor_indexes_due_webhooks_again(redis):
    await ended(redis, "x", "new.example", ANN)
    place = keys.hook_place(ANN, "new.example")
    digest, _ = keys.split_hook_place(place)
    await redis.delete(keys.hooks_due(place), keys.hooks_hosts(digest), keys.HOOKS_OWNERS)

    assert (await IndexJanitor(redis).mend())["webhooks_mended"] == 1
    assert await found(redis) == [(digest, "new.example", "x")]


async def test_hosts_of_all_owners_are_counted(redis):
    await ended(redis, "a", "a.example", ANN)
    await ended(redis, "b", "b.example", BOB)
    await ended(redis, "c", "c.example")

    _, ahead = await read_counts(redis)
    assert ahead["webhook_hosts"] == 3


# Looks at what waits for an end


async def test_an_owner_with_many_waiting_webhooks_does_not_delay_other_owners(redis):
    hook = Webhook("https://a.example/x", SECRET)
    for number in range(4 * CHECKS_MAX):
        await register(redis, f"a{number}", "batch", hook, {}, owner=ANN)
    await register(redis, "b", "batch", hook, {}, owner=BOB)

    now_ms = await clock_ms(redis)
    first_ms = await redis.zscore(keys.HOOKS_WAITING, "a0")
    last_ms = await redis.zscore(keys.HOOKS_WAITING, f"a{4 * CHECKS_MAX - 1}")
    assert last_ms - first_ms >= (4 * CHECKS_MAX - 1) * 1000 / OWNER_CHECKS_PER_S
    at_ms = await redis.zscore(keys.HOOKS_WAITING, "b")
    assert at_ms - now_ms <= 2_000
    # What was due before now has been looked at, however long the registering took here.
    assert await redis.zcount(keys.HOOKS_WAITING, now_ms, at_ms) < CHECKS_MAX


async def test_repeated_checks_are_spaced_too(redis):
    async def find(subject_id, about):
        return None

    hook = Webhook("https://a.example/x", SECRET)
    for number in range(100):
        await register(redis, f"a{number}", "batch", hook, {}, owner=ANN)
        await redis.zadd(keys.HOOKS_WAITING, {f"a{number}": 1})
    await redis.delete(keys.hooks_clock(ANN, "batch"))
    await Ends(redis, {"batch": find}).check(await clock_ms(redis))

    scores = [score for _, score in await redis.zrange(keys.HOOKS_WAITING, 0, -1, withscores=True)]
    assert scores[-1] - scores[0] >= 99 * 1000 / OWNER_CHECKS_PER_S
    assert await redis.pttl(keys.hooks_clock(ANN, "batch")) > 0


async def test_registering_again_does_not_move_the_check(redis):
    hook = Webhook("https://a.example/x", SECRET)
    await register(redis, "a", "batch", hook, {}, owner=ANN)
    before = await redis.zscore(keys.HOOKS_WAITING, "a")
    for _ in range(5):
        await register(redis, "a", "batch", hook, {}, owner=ANN)

    assert await redis.zscore(keys.HOOKS_WAITING, "a") == before
