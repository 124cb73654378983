"""Webhooks in Redis: registered, due once, and signed as the reference library expects."""

from __future__ import annotations

import base64
import json
import time

import pytest
from standardwebhooks import Webhook as Reference
from standardwebhooks import WebhookVerificationError

from shared.later.webhooks import (
    Webhook,
    WebhookEvent,
    encode_event,
    encode_webhook,
    key_of,
    lost_event,
    make_due,
    read_record,
    register,
    signed,
)
from shared.log.records import failed
from shared.queue.endings import CANCELLED, cancel
from shared.queue.leaving import forget
from shared.redis import keys
from tests.support.generation import ID, Holder, create, store_on

SECRET = "whsec_" + base64.b64encode(b"a secret of more than 24 bytes").decode()
HOOK = Webhook("https://Example.com:8443/hook", SECRET)
PLACE = keys.hook_place("alice", HOOK.host)


@pytest.fixture
def store(redis):
    return store_on(redis)


async def accept(store):
    """A generation with a webhook, as shared/queue/accept.py makes it."""
    about = {"model": "demo", "session": "chat", "metadata": {"a": 1}}
    await register(store.redis, ID, "generation", HOOK, about, owner="alice")
    await create(store, webhook=encode_webhook(HOOK))


async def is_due(store):
    return await store.redis.zscore(keys.hooks_due(PLACE), ID) is not None


async def body_of(store):
    record = await read_record(store.redis, ID)
    return json.loads(record.body)


async def test_a_webhook_waits_until_the_end(store):
    await accept(store)

    record = await read_record(store.redis, ID)
    assert record.state == "waiting" and record.webhook == HOOK
    assert await store.redis.zcard(keys.HOOKS_WAITING) == 1
    assert not await is_due(store)


async def test_forget_makes_the_webhook_due(store):
    await accept(store)
    await (await Holder.begin(store)).finish("Hello")

    await forget(store, ID)

    body = await body_of(store)
    assert await is_due(store)
    assert await store.redis.zcard(keys.HOOKS_WAITING) == 0
    digest, _ = keys.split_hook_place(PLACE)
    assert await store.redis.zrange(keys.hooks_hosts(digest), 0, -1) == [PLACE.encode()]
    assert await store.redis.zrange(keys.HOOKS_OWNERS, 0, -1) == [digest.encode()]
    assert body["type"] == "generation.completed"
    assert body["data"] | {"attempt": 1, "created_at": 0, "ended_at": 0} == {
        "id": ID,
        "object": "generation",
        "status": "completed",
        "model": "demo",
        "session": "chat",
        "finish_reason": "stop",
        "usage": None,
        "error": None,
        "metadata": {"a": 1},
        "attempt": 1,
        "created_at": 0,
        "ended_at": 0,
        "events_url": f"/v1/generations/{ID}/events",
    }
    assert abs(body["data"]["ended_at"] - time.time()) < 60
    assert "secret" not in json.dumps(body) and "request" not in json.dumps(body)


async def test_a_cancel_makes_the_webhook_due(store):
    await accept(store)

    await cancel(store, ID)

    assert (await body_of(store))["type"] == "generation.cancelled"
    assert (await body_of(store))["data"]["status"] == CANCELLED.status


async def test_the_event_of_a_failure_has_its_code(store):
    await accept(store)
    await store.close(ID, failed("queue_timeout", "no worker", retryable=True))

    await forget(store, ID)

    body = await body_of(store)
    assert body["type"] == "generation.failed"
    assert body["data"]["error"]["code"] == "queue_timeout"


async def test_a_webhook_becomes_due_once_and_wakes_one_process(store):
    await accept(store)
    await cancel(store, ID)
    await store.redis.delete(keys.JOBS_WAKE)
    before = await body_of(store)

    await forget(store, ID)

    assert await store.redis.llen(keys.JOBS_WAKE) == 0
    assert await body_of(store) == before


async def test_an_end_wakes_a_jobs_process(store):
    await accept(store)

    await cancel(store, ID)

    assert await store.redis.llen(keys.JOBS_WAKE) == 1


async def test_a_generation_without_a_webhook_leaves_nothing(store):
    await create(store)

    await cancel(store, ID)

    assert [key async for key in store.redis.scan_iter("tr:{jobs}:*")] == []


async def test_an_unfinished_generation_has_no_event(store):
    await accept(store)

    await forget(store, ID)

    assert not await is_due(store)


async def test_a_lost_record_is_written_again_at_the_end(store):
    """Its worker has restored the generation with its webhook."""
    await accept(store)
    await store.redis.delete(keys.hook(ID), keys.HOOKS_WAITING)

    await cancel(store, ID)

    record = await read_record(store.redis, ID)
    assert await is_due(store)
    assert record.webhook == HOOK and record.state == "due"


async def test_registering_again_does_not_change_a_due_record(store):
    await accept(store)
    await cancel(store, ID)

    await register(store.redis, ID, "generation", HOOK, {})

    assert (await read_record(store.redis, ID)).state == "due"
    assert await is_due(store)


async def test_other_kinds_give_their_own_event(store):
    await register(store.redis, "batch_1", "batch", HOOK, {"model": "demo"})
    event = WebhookEvent("batch.completed", {"id": "batch_1", "status": "completed"})

    assert await make_due(store.redis, "batch_1", HOOK, event)
    assert not await make_due(store.redis, "batch_1", HOOK, event)
    record = await read_record(store.redis, "batch_1")
    assert json.loads(record.body)["data"] == {"id": "batch_1", "status": "completed"}


async def test_the_event_of_a_lost_subject_has_the_registered_data(store):
    await accept(store)
    record = await read_record(store.redis, ID)

    event = lost_event(ID, record.kind, record.about)

    assert event.type == "generation.failed"
    assert event.data["error"]["code"] == "lost"
    assert event.data["id"] == ID and event.data["metadata"] == {"a": 1}


async def test_an_unregistered_subject_has_no_record(store):
    assert await read_record(store.redis, ID) is None


# Signing


@pytest.mark.parametrize("secret", [SECRET, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
def test_the_reference_library_verifies(secret):
    body = encode_event(WebhookEvent("generation.completed", {"id": ID, "text": "ü"}))
    headers = signed(ID, Webhook("https://a.example", secret), body, int(time.time()))

    assert Reference(secret).verify(body, headers)["data"]["text"] == "ü"
    with pytest.raises(WebhookVerificationError):
        Reference(secret).verify(body.replace(b"completed", b"cancelled"), headers)


def test_a_text_signs_with_its_own_bytes():
    secret = "a text that is no base64"
    body = b"{}"
    headers = signed(ID, Webhook("https://a.example", secret), body, int(time.time()))

    assert Reference(base64.b64encode(secret.encode()).decode()).verify(body, headers) == {}


def test_the_id_is_per_event_and_the_time_per_attempt():
    first = signed(ID, HOOK, b"{}", 1)
    second = signed(ID, HOOK, b"{}", 2)

    assert first["webhook-id"] == second["webhook-id"] == f"msg_{ID}"
    assert first["webhook-signature"] != second["webhook-signature"]


def test_a_secret_that_is_not_base64_is_an_error():
    with pytest.raises(ValueError):
        key_of("whsec_not base64!")


def test_the_repr_of_a_webhook_shows_no_url_and_no_secret():
    assert "example" not in repr(HOOK) and "whsec" not in f"{HOOK}"


def test_deliveries_count_against_host_and_port():
    assert HOOK.host == "example.com:8443"
