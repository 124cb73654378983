"""Producers outside of the workers on two nodes with real sockets and a real Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from shared.config.settings import Settings
from shared.log.events import End
from shared.queue import time_limits
from shared.queue.endings import cancel
from shared.queue.janitor import Janitor
from shared.queue.requeuing import requeue
from shared.redis import keys
from tests.support.local_node import LocalNode, ManualWorker, post_json, serve_here
from tests.support.redis_server import RedisServer
from tests.support.tokens import SECRET, hmac_token
from tests.support.wait import until

TOKEN = "x-producer-token"
HI = {"type": "token", "text": "Hi"}
END = {"type": "end"}


@pytest.fixture(scope="module")
def settings(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=redis_server.url)


@pytest.fixture(scope="module")
async def node(settings: Settings) -> AsyncIterator[LocalNode]:
    """One node for all tests: no test needs an empty Redis."""
    async with serve_here(settings) as local_node:
        await local_node.node.redis.flushall()
        yield local_node


@pytest.fixture
async def web(node: LocalNode) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(node.url, timeout=aiohttp.ClientTimeout(20)) as session:
        yield session


class Producer:
    """One producer by hand: it counts its events itself."""

    def __init__(self, web: aiohttp.ClientSession, begun: dict[str, Any]) -> None:
        self.web = web
        self.id: str = begun["id"]
        self.token: str = begun["producer_token"]
        self.seq: int = begun["next_seq"]

    @classmethod
    async def begin(cls, web: aiohttp.ClientSession, **members: Any) -> Producer:
        status, begun = await post_json(web, "/v1/generations", {"producer": True, **members})
        assert status == 201, begun
        return cls(web, begun)

    async def append(self, *events: dict[str, Any], seq: int = 0) -> tuple[int, dict[str, Any]]:
        body = {"seq": seq or self.seq, "events": list(events)}
        path = f"/v1/generations/{self.id}/events"
        return await post_json(self.web, path, body, **{TOKEN: self.token})

    async def say(self, *events: dict[str, Any]) -> dict[str, Any]:
        status, answer = await self.append(*events)
        assert status == 200, answer
        self.seq = answer["next_seq"]
        return answer

    async def log(self) -> list[dict[str, Any]]:
        path = f"/v1/generations/{self.id}/events"
        async with self.web.get(path, headers={"accept": "application/json"}) as response:
            found: list[dict[str, Any]] = (await response.json())["events"]
        return found

    async def snapshot(self) -> dict[str, Any]:
        async with self.web.get(f"/v1/generations/{self.id}") as response:
            found: dict[str, Any] = await response.json()
        return found


async def test_a_reader_gets_each_event_of_a_producer_and_the_end(web) -> None:
    producer = await Producer.begin(web, session="report", prompt="Write it", model="my-job")
    path = f"/v1/generations/{producer.id}/events"
    async with web.get(path, headers={"accept": "application/x-ndjson"}) as reading:
        await producer.say({"type": "progress", "stage": "pdf", "current": 3, "total": 50})
        await producer.say({**HI, "agent": "writer"}, {"type": "data", "name": "row", "value": [1]})
        await producer.say({"type": "token", "text": " there"}, END)
        lines = [json.loads(line) async for line in reading.content]

    assert lines == [
        {"id": "1-1", "type": "start", "attempt": 1, "model": "my-job"},
        {
            "id": "1-2", "type": "progress", "stage": "pdf", "current": 3, "total": 50,
            "percentage": 6.0,
        },
        {"id": "1-3", "type": "token", "text": "Hi", "agent": "writer"},
        {"id": "1-4", "type": "data", "name": "row", "value": [1]},
        {"id": "1-5", "type": "token", "text": " there"},
        {"id": "1-6", "type": "end", "status": "completed", "finish_reason": "stop"},
    ]  # fmt: skip
    snapshot = await producer.snapshot()
    assert (snapshot["text"], snapshot["session"], snapshot["status"]) == (
        "Hi there", "report", "completed",
    )  # fmt: skip


async def test_a_repeated_append_writes_nothing_twice(web) -> None:
    producer = await Producer.begin(web)
    first = await producer.append(HI, {"type": "token", "text": "!"})
    again = await producer.append(HI, {"type": "token", "text": "!"})
    more = await producer.append(HI, {"type": "token", "text": "!"}, {"type": "token", "text": "?"})

    assert first == again
    assert more[1]["next_seq"] == first[1]["next_seq"] + 1
    assert (await producer.snapshot())["text"] == "Hi!?"


async def test_a_repeated_end_gets_the_answer_of_the_first(web) -> None:
    producer = await Producer.begin(web)

    assert await producer.append(HI, END) == await producer.append(HI, END)


@pytest.mark.parametrize(
    ("seq", "event", "expected"),
    [
        (9, HI, ("sequence_gap", "next_seq", 3)),
        (2, {"type": "token", "text": "Ho"}, ("sequence_conflict", "seq", 2)),
        (1, HI, ("sequence_conflict", "seq", 1)),
    ],
)
async def test_a_gap_and_another_event_under_a_used_number_are_refused(
    web, seq: int, event: dict[str, Any], expected: tuple[str, str, int]
) -> None:
    producer = await Producer.begin(web)
    await producer.say(HI)
    status, answer = await producer.append(event, seq=seq)
    code, member, value = expected

    assert status == 409
    assert (answer["error"]["code"], answer["error"][member]) == (code, value)
    assert len(await producer.log()) == 2


async def test_a_takeover_fences_the_producer_before_it(web) -> None:
    first = await Producer.begin(web)
    await first.say(HI)
    status, begun = await post_json(web, f"/v1/generations/{first.id}/producer", {})
    second = Producer(web, begun)
    late = await first.append({"type": "token", "text": "late"})
    await second.say({"type": "token", "text": " again"}, END)

    assert (status, begun["attempt"], begun["next_seq"]) == (200, 2, 4)
    assert (late[0], late[1]["error"]["code"]) == (409, "producer_fenced")
    assert [event["id"] for event in await first.log()] == ["1-1", "1-2", "2-3", "2-4", "2-5"]
    assert (await first.snapshot())["text"] == "Hi again"


async def test_a_takeover_with_reset_begins_the_answer_anew(web) -> None:
    first = await Producer.begin(web)
    await first.say(HI)
    _, begun = await post_json(web, f"/v1/generations/{first.id}/producer", {"reset": True})
    await Producer(web, begun).say({"type": "token", "text": "New"}, END)

    assert [event["type"] for event in await first.log()][2:4] == ["start", "reset"]
    assert (await first.snapshot())["text"] == "New"


async def test_of_two_racing_producers_one_writes_and_the_other_is_fenced(web) -> None:
    first = await Producer.begin(web)
    path = f"/v1/generations/{first.id}/producer"
    begun = await asyncio.gather(*(post_json(web, path, {}) for _ in range(4)))
    rivals = [Producer(web, answer) for _, answer in begun]
    answers = await asyncio.gather(*(rival.append(HI, END) for rival in rivals))
    codes = sorted(answer.get("error", {}).get("code", "ok") for _, answer in answers)

    assert codes.count("ok") == 1
    assert set(codes) <= {"ok", "producer_fenced", "generation_ended"}
    assert (await first.snapshot())["text"] == "Hi"


async def test_a_cancel_reaches_the_producer_in_the_answer_of_its_append(web, node) -> None:
    producer = await Producer.begin(web)
    await producer.say(HI)
    await cancel(node.node.store, producer.id)
    status, answer = await producer.append(HI)
    beat = await post_json(
        web, f"/v1/generations/{producer.id}/events", {}, **{TOKEN: producer.token}
    )

    assert status == 409
    assert (answer["error"]["code"], answer["error"]["status"]) == ("generation_ended", "cancelled")
    assert beat[1]["error"]["status"] == "cancelled"


async def test_the_same_idempotency_key_gives_the_same_producer(web) -> None:
    keyed = {"idempotency-key": "k"}
    first = await post_json(web, "/v1/generations", {"producer": True}, **keyed)
    again = await post_json(web, "/v1/generations", {"producer": True}, **keyed)
    other = await post_json(web, "/v1/generations", {"prompt": "x"}, **keyed)

    assert (first[0], again[0], other[0]) == (201, 200, 422)
    assert first[1] == again[1]


async def test_a_repeated_start_after_a_takeover_gets_no_token(web) -> None:
    keyed = {"idempotency-key": "taken-over"}
    _, begun = await post_json(web, "/v1/generations", {"producer": True}, **keyed)
    await post_json(web, f"/v1/generations/{begun['id']}/producer", {})
    status, answer = await post_json(web, "/v1/generations", {"producer": True}, **keyed)

    assert (status, answer["error"]["code"]) == (409, "producer_fenced")


async def test_a_producer_that_is_silent_for_longer_than_its_lease_is_lost(
    web, node, settings, monkeypatch
) -> None:
    monkeypatch.setattr(time_limits, "SPARE_S", 0.001)
    producer = await Producer.begin(web, producer={"lease_s": 1})
    await producer.say(HI)
    store, redis = node.node.store, node.node.redis
    janitor = Janitor(redis, store, settings)

    await end_lease(node, producer.id)
    await redis.delete(keys.janitor())
    await janitor.sweep()
    spared = await producer.snapshot()
    await redis.delete(keys.janitor())
    await until(lambda: has_passed(node, producer.id), 5, "the second look")
    await redis.delete(keys.janitor())
    await janitor.sweep()
    lost = await producer.snapshot()

    assert spared["status"] == "running"
    assert (lost["status"], lost["error"]["code"]) == ("failed", "producer_lost")
    assert lost["error"]["retryable"] is True
    assert lost["text"] == "Hi"
    assert await redis.zscore(keys.due(), producer.id) is None
    assert (await producer.append(HI))[1]["error"]["status"] == "failed"


async def end_lease(node: LocalNode, generation_id: str) -> None:
    redis = node.node.redis
    await redis.hset(keys.meta(generation_id), "lease", "1")
    await redis.zadd(keys.due(), {generation_id: 1})


async def has_passed(node: LocalNode, generation_id: str) -> bool:
    """Whether the time of the next look at a generation is over."""
    due = await node.node.redis.zscore(keys.due(), generation_id)
    return due is not None and due < await node.node.store.now_ms()


async def test_an_append_after_the_first_look_keeps_the_producer(web, node, monkeypatch) -> None:
    monkeypatch.setattr(time_limits, "SPARE_S", 0.001)
    producer = await Producer.begin(web)
    store = node.node.store
    await end_lease(node, producer.id)
    await time_limits.end_hopeless(store, [producer.id])
    await producer.say(HI)
    await time_limits.end_hopeless(store, [producer.id])

    assert (await producer.snapshot())["status"] == "running"


async def test_no_worker_takes_a_producers_generation(web, node) -> None:
    producer = await Producer.begin(web)
    store, redis = node.node.store, node.node.redis
    await end_lease(node, producer.id)
    await requeue(store, producer.id, "interactive")
    begun = await store.begin(producer.id, "token", "worker")

    assert [await redis.xlen(keys.lane(lane)) for lane in keys.LANES] == [0, 0, 0]
    assert type(begun).__name__ == "Absent"


async def test_a_workers_generation_takes_no_events_from_outside(web, node) -> None:
    worker = await ManualWorker.take(node.node.store)
    path = f"/v1/generations/{worker.generation_id}"
    token = f"{worker.attempt}.{worker.token}"
    append = await post_json(web, f"{path}/events", {"seq": 2, "events": [HI]}, **{TOKEN: token})
    takeover = await post_json(web, f"{path}/producer", {})
    await worker.append(End("completed", "stop"))

    assert [answer["error"]["code"] for _, answer in (append, takeover)] == ["not_produced"] * 2


async def test_events_beyond_the_answers_limit_are_refused_and_the_end_is_not(
    web, node, monkeypatch
) -> None:
    limited = replace(node.node.settings, answer_bytes_max=100)
    monkeypatch.setattr(node.node.store, "settings", limited)
    producer = await Producer.begin(web)
    await producer.say({"type": "token", "text": "x" * 60})
    status, answer = await producer.append({"type": "token", "text": "y" * 60})
    end = await producer.append(END)

    assert (status, answer["error"]["code"]) == (413, "answer_full")
    assert end[0] == 200


async def test_a_producers_answer_counts_against_the_bytes_and_the_usage_of_its_owner(
    web, node, settings
) -> None:
    producer = await Producer.begin(web, model="counted", prompt="x")
    for _ in range(2):
        await producer.say(*({"type": "token", "text": "y" * 1_000} for _ in range(70)))
    store, redis = node.node.store, node.node.redis
    total = int(await redis.hget(keys.owner_bytes("anonymous"), "total"))
    await producer.say(END)
    await redis.delete(keys.janitor())
    await Janitor(redis, store, settings).sweep()
    async with web.get("/v1/usage") as response:
        rows = (await response.json())["data"]
    (row,) = [row for row in rows if row["model"] == "counted"]

    assert total > 140_000
    assert row["prompts"] == 1 and row["output_tokens"] > 0


async def test_two_nodes_take_the_appends_of_one_producer(web, settings) -> None:
    producer = await Producer.begin(web)
    async with serve_here(settings, "n2") as other, aiohttp.ClientSession(other.url) as far:
        await producer.say(HI)
        producer.web = far
        await producer.say({"type": "token", "text": " you"}, END)
        producer.web = web

    assert (await producer.snapshot())["text"] == "Hi you"


async def test_a_member_of_a_shared_session_reads_a_producers_answer_and_writes_none(
    settings: Settings,
) -> None:
    def who(owner: str, **claims: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {hmac_token(sub=owner, **claims)}"}

    guarded = replace(settings, jwt_secret=SECRET)
    member = who("bob", sessions=["shared"])
    async with serve_here(guarded, "n3") as node, aiohttp.ClientSession(node.url) as web:
        body = {"producer": True, "session": "shared"}
        _, begun = await post_json(web, "/v1/generations", body, **who("alice"))
        path, token = f"/v1/generations/{begun['id']}", begun["producer_token"]
        async with web.get(path, headers=member) as response:
            read = response.status
        append = {"seq": 2, "events": [HI]}
        written, _ = await post_json(web, f"{path}/events", append, **member, **{TOKEN: token})
        taken, _ = await post_json(web, f"{path}/producer", {}, **member)
        stranger, _ = await post_json(web, f"{path}/producer", {}, **who("mallory"))

    assert (read, written, taken, stranger) == (200, 403, 403, 404)
