"""Deliveries: at least once, over hours, only to public addresses; no receiver delays another."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest

from jobs import connector, webhooks
from jobs.connector import AddressRefused, open_session
from jobs.webhook_due import TO_ONE_HOST_MAX
from jobs.webhook_slots import RUNNING_MAX, Hope
from jobs.webhooks import DELIVERY_PAUSES_S, Reply, Webhooks, pause_after, retry_after_s
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.later.dead_letters import (
    count_dead,
    letter_of,
    newest_dead,
    record_command,
    redrive,
)
from shared.later.webhooks import (
    Webhook,
    WebhookEvent,
    drop,
    encode_webhook,
    make_due,
    read_record,
    register,
)
from shared.log.store import Store
from shared.queue.accept import Acceptor, NewGeneration
from shared.queue.endings import cancel
from shared.redis import keys
from shared.redis.counts import read_counts
from tests.support.generation import ID, Holder, create, lose, store_on
from tests.support.receiver import SECRET, Receiver
from tests.support.wait import until

DEADLINE_S = 10.0
ALICE = "alice"
OTHER = ID[:-1] + "z"


@pytest.fixture
def redis(real_redis):
    return real_redis


@pytest.fixture
def store(redis):
    return store_on(redis, webhook_private="allow")


@pytest.fixture
def hooks(store):
    return Webhooks(store.redis, store.settings)


@pytest.fixture
async def receiver():
    async with Receiver() as receiver:
        yield receiver


def place_of(url, owner=ALICE):
    return keys.hook_place(owner, Webhook(url, SECRET).host)


async def look_at(store, place):
    """Make the next check include this place."""
    digest, _ = keys.split_hook_place(place)
    await store.redis.zadd(keys.hooks_hosts(digest), {place: 1})
    await store.redis.zadd(keys.HOOKS_OWNERS, {digest: 1})


async def accept(store, url, generation_id=ID, owner=ALICE):
    hook = Webhook(url, SECRET)
    await register(store.redis, generation_id, "generation", hook, {"model": "demo"}, owner=owner)
    await create(store, generation_id, webhook=encode_webhook(hook), owner=owner)


async def ended(store, url, generation_id=ID, owner=ALICE):
    await accept(store, url, generation_id, owner)
    await cancel(store, generation_id)


async def turn(hooks):
    """Run all due jobs at once, and return their number."""
    jobs = await hooks.due()
    async with asyncio.TaskGroup() as tasks:
        for job in jobs:
            tasks.create_task(hooks.deliver({}, *job.args))
    return len(jobs)


async def end_pause(store, url, generation_id=ID):
    """Make the pause of a delivery end now."""
    await store.redis.zadd(keys.hooks_due(place_of(url)), {generation_id: 1}, xx=True)
    await look_at(store, place_of(url))


async def make_looked_at(store, generation_id=ID):
    await store.redis.zadd(keys.HOOKS_WAITING, {generation_id: 1}, xx=True)


async def counted(store):
    counts, _ = await read_counts(store.redis)
    return {name: number for name, number in counts.items() if number}


async def pause_s(store, url, generation_id=ID):
    due_ms = await store.redis.zscore(keys.hooks_due(place_of(url)), generation_id)
    return None if due_ms is None else (due_ms - await store.now_ms()) / 1000


# One attempt


async def test_an_end_is_delivered_once_with_a_signature(hooks, store, receiver):
    await ended(store, receiver.url)

    assert await turn(hooks) == 1
    await end_pause(store, receiver.url)
    assert await turn(hooks) == 0

    (call,) = receiver.calls
    assert call.line == "POST /hook HTTP/1.1"
    assert call.headers["content-type"] == "application/json"
    assert call.headers["webhook-id"] == f"msg_{ID}"
    assert call.verified()["type"] == "generation.cancelled"
    assert await counted(store) == {"webhooks_delivered": 1}


async def test_a_delivered_record_keeps_no_url_and_no_secret(hooks, store, receiver):
    await ended(store, receiver.url)
    await turn(hooks)

    record = await read_record(store.redis, ID)
    assert record.state == "done" and record.webhook is None and not record.body
    assert not record.about
    assert await store.redis.pttl(keys.hook(ID)) > 0
    place = place_of(receiver.url)
    await look_at(store, place)
    await hooks.due()
    assert await store.redis.exists(keys.hooks_hosts(keys.split_hook_place(place)[0])) == 0
    assert await store.redis.exists(keys.hooks_due(place)) == 0
    await store.redis.zadd(keys.HOOKS_OWNERS, {keys.split_hook_place(place)[0]: 1})
    await hooks.due()
    assert await store.redis.zcard(keys.HOOKS_OWNERS) == 0


async def test_no_log_line_holds_url_or_secret(hooks, store, receiver, caplog):
    caplog.set_level(logging.DEBUG)
    url = receiver.url + "/a-path-that-is-a-password?token=hidden"
    receiver.answers = [500, 200]
    await ended(store, url)
    await turn(hooks)
    await end_pause(store, url)
    await turn(hooks)

    said = " ".join(str(vars(record)) for record in caplog.records)
    assert "webhook failed" in said and "webhook delivered" in said
    assert "password" not in said and "hidden" not in said and "whsec" not in said


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_is_a_delivery(hooks, store, receiver, status):
    receiver.answers = [status]
    await ended(store, receiver.url)
    await turn(hooks)

    assert await counted(store) == {"webhooks_delivered": 1}


@pytest.mark.parametrize("status", [300, 400, 401, 404, 429, 500, 503])
async def test_any_other_status_is_retried(hooks, store, receiver, status):
    receiver.answers = [status, 200]
    await ended(store, receiver.url)

    await turn(hooks)
    pause_is_s, least_s = await pause_s(store, receiver.url), DELIVERY_PAUSES_S[0]
    assert 0 < least_s - 1 < pause_is_s < least_s * 1.2
    assert await turn(hooks) == 0
    await end_pause(store, receiver.url)
    await turn(hooks)

    first, second = receiver.calls
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert second.verified()["data"]["id"] == ID
    assert await counted(store) == {"webhooks_delivered": 1, "webhook_attempts_failed": 1}


async def test_a_redirect_is_not_followed(hooks, store, receiver):
    async with Receiver() as other:
        receiver.answers = [(302, {"location": other.url})]
        await ended(store, receiver.url)
        await turn(hooks)

        assert len(receiver.calls) == 1 and not other.calls
    assert await counted(store) == {"webhook_attempts_failed": 1}


async def test_a_410_is_not_retried(hooks, store, receiver):
    receiver.answers = [410]
    await ended(store, receiver.url)
    await turn(hooks)

    assert await pause_s(store, receiver.url) is None
    assert await counted(store) == {"webhook_attempts_failed": 1, "webhooks_given_up": 1}


async def test_a_webhook_is_given_up_after_the_last_pause(hooks, store, receiver):
    receiver.answers = [500]
    await ended(store, receiver.url)
    for _ in range(len(DELIVERY_PAUSES_S) + 1):
        await end_pause(store, receiver.url)
        assert await turn(hooks) == 1
    await end_pause(store, receiver.url)

    assert await turn(hooks) == 0
    assert len(receiver.calls) == 8
    found = await counted(store)
    assert found == {"webhook_attempts_failed": 8, "webhooks_given_up": 1}


async def given_up(hooks, store, receiver, generation_id=ID):
    receiver.answers = [410]
    await ended(store, receiver.url, generation_id)
    await turn(hooks)
    receiver.answers = [200]


async def test_a_dead_letter_is_listed_without_its_url_and_delivered_again(hooks, store, receiver):
    await given_up(hooks, store, receiver)

    assert await newest_dead(store.redis, 10) == [ID]
    reply = await store.redis.execute_command(*record_command(ID))
    letter = letter_of(ID, 1, reply)
    assert (letter.kind, letter.owner, letter.attempts) == ("generation", ALICE, 1)
    assert (letter.reason, letter.host) == ("410", Webhook(receiver.url, SECRET).host)

    assert await redrive(store.redis, [ID, "gen_unknown"]) == [True, False]
    assert await redrive(store.redis, [ID]) == [False], "it is due already"
    assert await newest_dead(store.redis, 10) == []
    assert await turn(hooks) == 1
    first, second = receiver.calls
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert await redrive(store.redis, [ID]) == [False], "it is delivered"
    assert "secret" not in {name.decode() for name in await store.redis.hgetall(keys.hook(ID))}


async def test_only_the_newest_dead_letters_are_listed(hooks, store, receiver, monkeypatch):
    monkeypatch.setattr(webhooks, "DEAD_MAX", 1)
    await given_up(hooks, store, receiver)
    await given_up(hooks, store, receiver, OTHER)

    assert await newest_dead(store.redis, 10) == [OTHER]
    assert await count_dead(store.redis) == 1


async def test_a_deleted_webhook_is_no_dead_letter(hooks, store, receiver):
    await given_up(hooks, store, receiver)
    await drop(store.redis, ID)

    assert await count_dead(store.redis) == 0
    assert await redrive(store.redis, [ID]) == [False]


async def test_an_absent_receiver_is_retried(hooks, store, receiver):
    url = receiver.url
    await receiver.__aexit__()
    await ended(store, url)
    await turn(hooks)

    assert await pause_s(store, url) > 0
    await receiver.__aenter__()


async def test_an_attempt_without_a_response_times_out(hooks, store, receiver, monkeypatch):
    monkeypatch.setattr(webhooks, "ATTEMPT_S", 0.2)
    receiver.holds.clear()
    await ended(store, receiver.url)
    started = time.monotonic()
    await turn(hooks)

    assert time.monotonic() - started < 5
    assert await pause_s(store, receiver.url) > 0


@pytest.mark.parametrize("length", ["100000000000", None], ids=["announced", "endless"])
async def test_a_long_response_is_not_read_completely(hooks, store, receiver, length):
    receiver.body = b"x" * 1_000_000
    receiver.answers = [(200, {"content-length": length} if length else {"x-none": "1"})]
    await ended(store, receiver.url)
    await turn(hooks)

    assert await counted(store) == {"webhooks_delivered": 1}


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhel",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhel",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nhel",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
    ids=["no body", "slow body", "no chunk", "no end", "bad gzip", "no content"],
)
@pytest.mark.parametrize("is_cut", [False, True])
async def test_the_status_is_the_answer_whatever_the_body_is(
    hooks, store, monkeypatch, answer, is_cut
):
    monkeypatch.setattr(webhooks, "BODY_WAIT_S", 0.05)
    left, closed = asyncio.Event(), asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if not is_cut:
            await left.wait()
        writer.close()
        closed.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await ended(store, url)
        async with asyncio.timeout(webhooks.ATTEMPT_S / 2):
            await turn(hooks)
        left.set()
        await closed.wait()

    assert await counted(store) == {"webhooks_delivered": 1}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n",
    ],
)
async def test_a_response_that_is_not_http_is_a_failure(hooks, store, answer):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    await ended(store, url)
    await turn(hooks)
    server.close()

    assert await counted(store) == {"webhook_attempts_failed": 1}
    assert await pause_s(store, url) > 0


async def test_a_record_that_cannot_be_signed_is_given_up(hooks, store, receiver):
    """Otherwise it would be taken again and again."""
    await ended(store, receiver.url)
    await store.redis.hset(keys.hook(ID), "secret", "whsec_no base64!")
    await turn(hooks)

    assert await pause_s(store, receiver.url) > 0
    assert await counted(store) == {"webhook_attempts_failed": 1}


# When again


def test_pauses_grow_to_hours_with_jitter():
    for number, base_s in enumerate(DELIVERY_PAUSES_S, start=1):
        found = [pause_after(number, Reply(500)) for _ in range(20)]

        assert all(base_s <= pause_s <= 1.2 * base_s for pause_s in found)
        assert len(set(found)) > 1
    assert pause_after(len(DELIVERY_PAUSES_S) + 1, Reply(500)) is None
    assert pause_after(1, Reply(410)) is None


def test_retry_after_is_bounded_by_a_day():
    assert 60 <= pause_after(1, Reply(429, retry_after_s=60)) <= 72
    assert pause_after(2, Reply(503, retry_after_s=1)) >= DELIVERY_PAUSES_S[1]
    assert pause_after(1, Reply(503, retry_after_s=10**9)) <= 1.2 * 86_400


def test_retry_after_is_seconds_or_a_date():
    assert retry_after_s({"retry-after": "120"}) == 120
    assert 50 < retry_after_s({"retry-after": formatdate(time.time() + 60, usegmt=True)}) <= 61
    for text in ("", "soon", "-5", "1e3", "²", formatdate(0), "9" * 400, "Mon, 99 Foo 99999"):
        assert 0 <= retry_after_s({"retry-after": text}) < 10**9
    assert retry_after_s({}) == 0


async def test_retry_after_moves_the_next_attempt(hooks, store, receiver):
    receiver.answers = [(503, {"retry-after": "1000"})]
    await ended(store, receiver.url)
    await turn(hooks)

    assert 990 < await pause_s(store, receiver.url) <= 1_200


# Whom it may call


async def resolved_to(monkeypatch, *answers):
    """Give successive DNS answers, as a malicious name server does."""
    given = iter(answers)

    async def look_up(self, host, port, **_):
        family = socket.AF_INET6 if ":" in (address := next(given)) else socket.AF_INET
        found = (address, port, 0, 0) if family == socket.AF_INET6 else (address, port)
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", found)]

    monkeypatch.setattr(type(asyncio.get_running_loop()), "getaddrinfo", look_up)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "::ffff:127.0.0.1", "fe80::1",
        "fd00:ec2::254", "64:ff9b::7f00:1",
    ],
)  # fmt: skip
async def test_a_name_with_a_private_address_is_refused_at_the_connection(
    redis, receiver, monkeypatch, address, caplog
):
    store = store_on(redis)
    hooks = Webhooks(redis, store.settings)
    url = f"http://innocent.example:{receiver.port}/"
    await ended(store, url)
    await resolved_to(monkeypatch, address)
    await turn(hooks)

    assert not receiver.calls
    assert (await counted(store))["webhook_addresses_refused"] == 1
    assert [record.reason for record in caplog.records if hasattr(record, "reason")] == ["address"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "localhost", "[::ffff:127.0.0.1]"]
)
async def test_no_spelling_of_loopback_is_connected_to(redis, receiver, host):
    """The check at acceptance is bypassed here."""
    store = store_on(redis)
    hooks = Webhooks(redis, store.settings)
    await ended(store, f"http://{host}:{receiver.port}/hook")
    await turn(hooks)

    assert not receiver.calls
    assert (await counted(store))["webhook_attempts_failed"] == 1


async def test_the_address_of_a_name_is_checked_at_each_connection(redis, receiver, monkeypatch):
    """DNS rebinding: public at the lookup, private at the call."""
    store = store_on(redis)
    hooks = Webhooks(redis, store.settings)
    url = f"http://rebound.example:{receiver.port}/"
    await ended(store, url)
    await resolved_to(monkeypatch, "192.0.2.1", "127.0.0.1")
    for _ in range(2):
        await end_pause(store, url)
        await turn(hooks)

    assert not receiver.calls
    assert (await counted(store))["webhook_addresses_refused"] == 2


async def test_a_refused_address_raises_address_refused(receiver):
    async with open_session(is_private_allowed=False) as session:
        with pytest.raises(Exception) as caught:
            await session.post(receiver.url)

    assert isinstance(caught.value.os_error, AddressRefused)


async def test_environment_proxies_and_cookies_are_not_used(hooks, store, receiver, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    receiver.answers = [(500, {"set-cookie": "a=b"}), 200]
    await ended(store, receiver.url)
    await turn(hooks)
    await end_pause(store, receiver.url)
    await turn(hooks)

    assert len(receiver.calls) == 2
    assert "cookie" not in receiver.calls[1].headers


# One does not hold up the others


async def test_a_hanging_receiver_delays_only_its_own_events(hooks, store, receiver):
    receiver.holds.clear()
    for number in range(50):
        await ended(store, receiver.url, f"gen_hanging_{number:02}")
    async with Receiver() as other, asyncio.TaskGroup() as tasks:
        await ended(store, other.url)
        for job in await hooks.due():
            tasks.create_task(hooks.deliver({}, *job.args))
        await until(lambda: other.calls, DEADLINE_S, "the other's webhook")
        await until(lambda: len(receiver.calls) == 4, DEADLINE_S, "as many as may be under way")
        await end_pause(store, receiver.url, "gen_hanging_40")

        assert await turn(hooks) <= TO_ONE_HOST_MAX
        assert len(receiver.calls) == TO_ONE_HOST_MAX
        receiver.holds.set()


async def test_many_events_for_one_receiver_are_delivered_in_a_row(hooks, store, receiver):
    """Not only four with each poll."""
    for number in range(40):
        await ended(store, receiver.url, f"gen_many_{number:04}")

    assert await turn(hooks) == TO_ONE_HOST_MAX
    assert len(receiver.calls) == len(set(receiver.events())) == 40


async def test_a_failing_receiver_gets_no_events_in_a_row(hooks, store, receiver):
    receiver.answers = [500]
    for number in range(10):
        await ended(store, receiver.url, f"gen_many_{number:04}")

    assert await turn(hooks) == len(receiver.calls) == TO_ONE_HOST_MAX


async def test_the_attempts_of_a_process_are_bounded(hooks, store, receiver):
    await ended(store, receiver.url)
    owners = [f"owner {number}" for number in range(RUNNING_MAX)]
    for owner in owners:
        assert hooks.slots.take(owner, Hope.MUCH)
    assert await turn(hooks) == 1
    assert not receiver.calls

    for owner in owners:
        hooks.slots.free(owner, Hope.MUCH)
    await end_pause(store, receiver.url)
    await turn(hooks)
    assert receiver.calls


async def test_two_processes_make_one_attempt(hooks, store, receiver):
    other = Webhooks(store.redis, store.settings)
    await ended(store, receiver.url)
    async with asyncio.TaskGroup() as tasks:
        for job in await hooks.due():
            tasks.create_task(hooks.deliver({}, *job.args))
            tasks.create_task(other.deliver({}, *job.args))

    assert len(receiver.calls) == 1


async def test_an_abandoned_attempt_is_repeated_after_its_lease(hooks, store, receiver):
    """The process was killed during the attempt."""
    await ended(store, receiver.url)
    place = place_of(receiver.url)
    host = keys.split_hook_place(place)[1]
    names = [keys.hook(ID), keys.hooks_due(place), keys.hooks_busy(host)]
    assert await hooks.scripts.run("hook_take", names, [ID, 20_000, 4]) == 1

    await look_at(store, place)
    assert await turn(hooks) == 0
    await end_pause(store, receiver.url)
    assert await turn(hooks) == 1
    assert len(receiver.calls) == 1


async def test_a_redis_outage_during_an_attempt_leaves_the_webhook_due(
    hooks, store, receiver, monkeypatch
):
    await ended(store, receiver.url)
    run = hooks.scripts.run

    async def away(name, *args):
        if name == "hook_settle":
            raise Unavailable("away")
        return await run(name, *args)

    monkeypatch.setattr(hooks.scripts, "run", away)
    await turn(hooks)
    monkeypatch.undo()
    assert len(receiver.calls) == 1

    await end_pause(store, receiver.url)
    await turn(hooks)
    first, second = receiver.calls
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


async def test_the_result_of_an_outdated_attempt_does_not_count(hooks, store, receiver):
    """The process paused beyond its lease; another attempt runs or has been made."""
    await ended(store, receiver.url)
    place = place_of(receiver.url)
    host = keys.split_hook_place(place)[1]
    names = [keys.hook(ID), keys.hooks_due(place), keys.hooks_busy(host)]
    await hooks.scripts.run("hook_take", names, [ID, 20_000, 4])
    await end_pause(store, receiver.url)
    await hooks.scripts.run("hook_take", names, [ID, 20_000, 4])

    late = [ID, 1, 5_000, 86_400_000, "given_up", 10, "500"]
    assert await hooks.scripts.run("hook_settle", [*names, keys.HOOKS_DEAD], late) == 0
    assert await pause_s(store, receiver.url) > 10


# Ends that nobody has noted


async def unnoted(store, receiver):
    """End a generation without noting its webhook, as a process that dies in between."""
    await accept(store, receiver.url)
    await (await Holder.begin(store)).finish("Hello")


async def test_an_end_that_was_not_noted_is_found(hooks, store, receiver):
    await unnoted(store, receiver)
    assert await turn(hooks) == 0, "it is looked at after a while only"

    await make_looked_at(store)
    await turn(hooks)

    (call,) = receiver.calls
    assert call.verified()["type"] == "generation.completed"


async def test_an_unfinished_generation_is_checked_again_later(hooks, store, receiver):
    await accept(store, receiver.url)
    await make_looked_at(store)
    await turn(hooks)

    later_ms = await store.redis.zscore(keys.HOOKS_WAITING, ID)
    assert later_ms > await store.now_ms() + 10_000
    assert (await read_record(store.redis, ID)).is_seen
    assert not receiver.calls


async def test_the_webhook_of_a_subject_that_was_never_accepted_is_dropped(hooks, store, receiver):
    """The node died between registration and acceptance; no client got an id."""
    await register(store.redis, ID, "generation", Webhook(receiver.url, SECRET), {})
    for _ in range(2):
        await make_looked_at(store)
        await turn(hooks)

    assert not receiver.calls
    assert await read_record(store.redis, ID) is None
    assert await store.redis.zcard(keys.HOOKS_WAITING) == 0


async def test_a_lost_generation_is_reported_as_lost(hooks, store, receiver):
    await accept(store, receiver.url)
    await make_looked_at(store)
    await turn(hooks)
    await lose(store)
    for _ in range(2):
        assert not receiver.calls
        await make_looked_at(store)
        await turn(hooks)

    (call,) = receiver.calls
    assert call.verified()["data"]["error"]["code"] == "lost"
    assert call.event["data"]["model"] == "demo"


async def test_a_sealed_generation_is_reported_as_lost_at_once(hooks, store, receiver):
    await accept(store, receiver.url)
    await lose(store)
    await store.seal(ID)
    await make_looked_at(store)
    await turn(hooks)

    (call,) = receiver.calls
    assert call.verified()["data"]["error"]["code"] == "lost"


async def test_a_generation_absent_in_one_check_is_not_lost(hooks, store, receiver):
    """Its worker restores it."""
    await accept(store, receiver.url)
    fields = await store.redis.hgetall(keys.meta(ID))
    for is_there in (True, False, True, False, True):
        await store.redis.delete(keys.meta(ID))
        if is_there:
            await store.redis.hset(keys.meta(ID), mapping=fields)
        await make_looked_at(store)
        await turn(hooks)

    assert not receiver.calls
    assert (await read_record(store.redis, ID)).state == "waiting"


async def test_a_finder_returns_the_end_of_other_kinds(store, receiver):
    answers = iter([None, WebhookEvent("batch.completed", {"id": "batch_1"})])

    async def find(subject_id, about):
        assert (subject_id, about) == ("batch_1", {"endpoint": "/v1/responses"})
        return next(answers)

    hooks = Webhooks(store.redis, store.settings, {"batch": find})
    hook = Webhook(receiver.url, SECRET)
    await register(store.redis, "batch_1", "batch", hook, {"endpoint": "/v1/responses"})
    for _ in range(2):
        await make_looked_at(store, "batch_1")
        await turn(hooks)

    (call,) = receiver.calls
    assert call.verified() == call.event
    assert call.event["type"] == "batch.completed"


async def test_an_absent_record_is_removed_from_the_indexes(hooks, store, receiver):
    await ended(store, receiver.url)
    await store.redis.zadd(keys.HOOKS_WAITING, {"gen_nothing": 1})
    await store.redis.delete(keys.hook(ID))
    await turn(hooks)
    await end_pause(store, receiver.url)
    await turn(hooks)

    assert not receiver.calls
    assert await store.redis.zcard(keys.HOOKS_WAITING) == 0
    assert await pause_s(store, receiver.url) is None


# From the acceptance on


@pytest.mark.parametrize("way", ["slow", "fast", "given"])
async def test_every_kind_of_acceptance_registers_the_webhook_first(redis, receiver, way):
    settings = Settings(redis_url="redis://test")
    store = Store(redis, settings)
    acceptor = Acceptor(redis, store, settings)
    hook = Webhook("https://example.com", SECRET)
    new = NewGeneration("alice", "demo", b"{}", session="s", webhook=hook)
    if way == "fast":
        acceptor._waiting["interactive"] = {keys.QUEUE: 0}
    if way == "given":
        accepted = await acceptor.accept_as("gen_0123456789", new, is_repeat=False)
    else:
        accepted = await acceptor.accept(new)

    record = await read_record(redis, accepted.generation_id)
    fields = await redis.hgetall(keys.meta(accepted.generation_id))
    assert record.webhook == hook
    assert record.about == {"model": "demo", "session": "s", "metadata": {}}
    assert fields[b"webhook"] == encode_webhook(hook)
    assert await redis.zscore(keys.HOOKS_WAITING, accepted.generation_id)


async def test_an_end_is_delivered_after_its_log_expired(hooks, store, receiver):
    """The jobs role was down for longer than the retention of the log."""
    await ended(store, receiver.url)
    await lose(store)
    await turn(hooks)

    (call,) = receiver.calls
    assert call.verified()["type"] == "generation.cancelled"


async def test_the_end_of_another_kind_needs_no_log(hooks, store, receiver):
    hook = Webhook(receiver.url, SECRET)
    await register(store.redis, "batch_1", "batch", hook, {})
    await make_due(store.redis, "batch_1", hook, WebhookEvent("batch.failed", {"id": "batch_1"}))
    await turn(hooks)

    assert receiver.calls[0].headers["webhook-id"] == "msg_batch_1"


def test_the_lease_outlasts_an_attempt():
    assert webhooks.LEASE_S > connector.ATTEMPT_S
    job = Webhooks(SimpleNamespace(), Settings()).functions[0]
    assert job.timeout_s > webhooks.LEASE_S
