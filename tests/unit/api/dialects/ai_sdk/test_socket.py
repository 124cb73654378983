"""/ai-sdk/ws on a hub with a fake log: every frame of the protocol, and every wrong frame."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import fakeredis
import pytest

from api.dialects.ai_sdk.fold import AiSdkFrameFold
from api.dialects.ai_sdk.socket import ai_sdk_socket
from shared.errors import Unavailable
from shared.log.event_bytes import LOST
from shared.log.events import End, Start
from shared.log.records import Meta
from shared.queue.accept import Accepted, NewGeneration
from tests.support.hub_harness import HubHarness, settle
from tests.support.socket_client import KeyedAcceptor, SocketClient, SocketHarness

FIRST = "gen_0000000000"
HELLO = [{"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}]
SEND = {"type": "send", "requestId": "r1", "id": "c1", "messages": HELLO, "headers": {}, "body": {}}
RESUME = {"type": "resume", "requestId": "r2", "id": "c1", "headers": {}, "body": {}}
STOP = End("completed", "stop")
CANCELLED = End("cancelled", "cancelled")


@pytest.fixture(autouse=True)
def cancel_through_the_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake store records the cancellations."""
    monkeypatch.setattr(
        "api.dialects.ai_sdk.socket.cancel", lambda store, *args, **_: store.cancel(*args)
    )


class RequestAcceptor(KeyedAcceptor):
    """Stores the request with the generation, as the real acceptor does."""

    async def accept(self, new: NewGeneration, generation_id: str = "") -> Accepted:
        accepted = await super().accept(new, generation_id)
        known = self.hub_harness.log.known
        known[accepted.generation_id] = replace(
            known[accepted.generation_id], request=new.request, session=new.session
        )
        return accepted


class WorkerHarness(SocketHarness):
    """The harness with a fake Redis for the chats, on which each socket has its own node."""

    def __init__(self, hub_harness: HubHarness) -> None:
        super().__init__(hub_harness, ai_sdk_socket)
        self.redis = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer())
        self.acceptor = RequestAcceptor(hub_harness)
        self.log.metas = self._metas  # type: ignore[attr-defined]

    async def _metas(self, ids: Sequence[str]) -> list[Meta | None]:
        return [await self.log.meta(generation_id) for generation_id in ids]

    async def socket_client(self, *, query: str = "", **parts: Any) -> SocketClient:
        return await super().socket_client(query=query, redis=self.redis, **parts)

    async def leave(self) -> None:
        await super().leave()
        await self.redis.aclose()


@pytest.fixture
async def harness() -> AsyncIterator[WorkerHarness]:
    async with HubHarness() as hub_harness:
        harness = WorkerHarness(hub_harness)
        yield harness
        await harness.leave()


def chunks_of(frames: list[dict[str, Any]], request_id: str = "r1") -> list[str]:
    """Return the types of the chunks of a request; check that their numbers have no gap."""
    assert {frame["requestId"] for frame in frames} == {request_id}
    assert frames[0] == {"type": "start", "requestId": request_id}
    chunks = [frame for frame in frames if frame["type"] == "chunk"]
    assert [frame["sequence"] for frame in chunks] == list(range(len(chunks)))
    return [frame["chunk"]["type"] for frame in chunks]


async def test_a_request_gets_chunks_numbered_from_0_and_an_end(harness: WorkerHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(SEND)
    opening = socket_client.take()
    assert chunks_of(opening) == ["start"]  # before a worker takes it
    harness.log.append(Start(1, "demo"))
    harness.log.tokens("a", "b")
    harness.log.append(STOP)
    await settle()

    frames = opening + socket_client.take()
    assert chunks_of(frames) == [
        "start", "start-step", "text-start", "text-delta", "text-delta", "text-end",
        "finish-step", "finish",
    ]  # fmt: skip
    assert frames[1]["chunk"]["messageId"] == FIRST
    assert frames[-1] == {"type": "end", "requestId": "r1"}
    (new,) = harness.acceptor.seen
    assert (new.session, new.grace_s) == ("c1", None)
    assert harness.hub_harness.hub.relays[FIRST].holds == 0


async def test_members_are_read_from_body_and_the_key_from_headers(harness: WorkerHarness) -> None:
    socket_client = await harness.socket_client()
    frame = {
        **SEND, "headers": {"Idempotency-Key": "k1"},
        "body": {"priority": "batch", "on_disconnect": 7, "messages": [], "id": "another"},
    }  # fmt: skip
    await socket_client.say(frame)
    await socket_client.say({**frame, "requestId": "r9"})
    first, again = harness.acceptor.seen
    assert (first.priority, first.grace_s, first.idempotency_key) == ("batch", 7.0, "k1")
    assert first.session == "c1"
    assert list(harness.log.known) == [FIRST]
    assert again.body_digest == first.body_digest


async def test_a_resume_gets_all_chunks_from_0_under_its_own_request_id(
    harness: WorkerHarness,
) -> None:
    socket_client, other = await harness.socket_client(), await harness.socket_client()
    await socket_client.say(SEND)
    harness.log.append(Start(1, "demo"))
    harness.log.tokens("a", "b")
    await settle()
    seen = chunks_of(socket_client.take())
    await socket_client.leave()  # a lost socket cancels nothing
    await other.say(RESUME)

    assert chunks_of(other.take(), "r2") == seen
    assert harness.cancelled == []


async def test_a_resume_of_a_chat_without_a_running_answer_gets_no_active(
    harness: WorkerHarness,
) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(RESUME)
    await socket_client.say(SEND)
    harness.log.append(STOP)
    await settle()
    frames = socket_client.take()
    assert frames[0] == {"type": "no-active", "requestId": "r2"}
    await socket_client.say({**RESUME, "requestId": "r3"})
    assert socket_client.take() == [{"type": "no-active", "requestId": "r3"}]
    assert socket_client.close_code is None


async def test_an_abort_also_cancels_an_answer_that_was_resumed(harness: WorkerHarness) -> None:
    socket_client, other = await harness.socket_client(), await harness.socket_client()
    await socket_client.say(SEND)
    await other.say(RESUME)
    await other.say({"type": "abort", "requestId": "r2"})
    assert harness.cancelled == [FIRST]
    await socket_client.say({"type": "abort", "requestId": "unknown"})
    assert harness.cancelled == [FIRST]
    harness.log.append(CANCELLED)
    await settle()
    for frames, name in ((socket_client.take(), "r1"), (other.take(), "r2")):
        assert chunks_of(frames, name) == ["start", "abort", "finish"]
        assert frames[-1] == {"type": "end", "requestId": name}


async def test_many_requests_share_a_socket(harness: WorkerHarness) -> None:
    socket_client = await harness.socket_client()
    for number in range(100):
        await socket_client.say({**SEND, "requestId": f"r{number}", "id": f"c{number}"})
    socket_client.take()
    await socket_client.say({**SEND, "requestId": "one too many"})
    (frame,) = socket_client.take()
    assert frame["type"] == "error" and "rate_limited" in frame["errorText"]


@pytest.mark.parametrize(
    ("frame", "request_id", "code"),
    [
        ("{", "", "invalid_json"),
        ("[]", "", "invalid_request"),
        ({"type": "nothing", "requestId": "r1"}, "r1", "invalid_request"),
        ({**SEND, "requestId": 7}, "", "invalid_request"),
        ({**SEND, "requestId": ""}, "", "invalid_request"),
        ({**SEND, "messages": None}, "r1", "invalid_request"),
        ({**SEND, "id": 7}, "r1", "invalid_request"),
        ({**SEND, "body": []}, "r1", "invalid_request"),
        ({**SEND, "headers": "none"}, "r1", "invalid_request"),
        ({**SEND, "body": {"model": "nothing"}}, "r1", "model_not_found"),
        ({**SEND, "headers": {"Idempotency-Key": "a b"}}, "r1", "idempotency_key_invalid"),
        ({**SEND, "headers": {"Idempotency-Key": ""}}, "r1", "idempotency_key_invalid"),
        ({**SEND, "headers": {"idempotency-key": 7}}, "r1", "idempotency_key_invalid"),
        ({**RESUME, "id": None}, "r2", "invalid_request"),
        ({"type": "abort"}, "", "invalid_request"),
    ],
)
async def test_a_wrong_frame_gets_an_error_and_the_socket_stays_open(
    harness: WorkerHarness, frame: Any, request_id: str, code: str
) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(frame)
    (error,) = socket_client.take()
    assert (error["type"], error["requestId"]) == ("error", request_id)
    assert error["errorText"].endswith(f"({code})")
    assert socket_client.close_code is None
    await socket_client.say(SEND)
    assert chunks_of(socket_client.take()) == ["start"]


async def test_with_redis_away_a_socket_without_answers_is_closed_with_1013(
    harness: WorkerHarness,
) -> None:
    socket_client = await harness.socket_client()
    harness.acceptor.error = Unavailable("away")
    await socket_client.say(SEND)
    (frame,) = socket_client.take()
    assert frame["type"] == "error" and "unavailable" in frame["errorText"]
    assert socket_client.close_code == 1013


async def test_an_expired_log_is_an_error(harness: WorkerHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(SEND)
    socket_client.take()
    harness.hub_harness.hub.relays[FIRST].declare_expired()
    await settle()
    (frame,) = socket_client.take()
    assert (frame["type"], frame["requestId"]) == ("error", "r1")
    assert "expired" in frame["errorText"]


async def test_a_generation_lost_before_its_first_entry_still_gets_its_start(
    harness: WorkerHarness,
) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(SEND)
    frames = [
        json.loads(frame)
        for frame in AiSdkFrameFold(harness.log.known[FIRST], "r1").aside(LOST) or ()
    ]
    assert chunks_of(frames) == ["start", "error", "finish"]
    assert frames[-1]["type"] == "end"
