"""/v1/ws on a hub with a fake log: every frame of the protocol, and every wrong frame."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.dialects.native.socket import native_socket
from api.edge.auth import Authenticator
from shared.config.credentials import Identity
from shared.errors import RequestError, Unavailable
from shared.log.events import Start
from shared.queue.accept import Accepted, NewGeneration
from tests.support.bench import END, GENERATION, Bench, Client, settle
from tests.support.talk import steady_store

OTHER = "gen_other00000"


@pytest.fixture(autouse=True)
def cancel_through_the_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake store records the cancellations."""
    monkeypatch.setattr(
        "api.dialects.native.socket.cancel", lambda store, *args: store.cancel(*args)
    )


class FakeAcceptor:
    """Accepts every prompt under one id, or raises `error`."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.store = steady_store()
        self.error: Exception | None = None
        self.seen: list[NewGeneration] = []

    async def accept(self, new: NewGeneration, generation_id: str = "") -> Accepted:
        if self.error is not None:
            raise self.error
        self.seen.append(new)
        self.bench.log.create(owner=new.owner)
        return Accepted(GENERATION, True, 1, "queued")


class Talk:
    """One open socket."""

    def __init__(self, bench: Bench, *, keys: str = "", **scope: Any) -> None:
        self.bench = bench
        self.client = Client({"type": "websocket.connect"})
        self.acceptor = FakeAcceptor(bench)
        authenticator = Authenticator({"k1": Identity("ann")} if keys else {}, ())
        endpoint = native_socket(bench.node(acceptor=self.acceptor, authenticator=authenticator))
        bench.log.cancel = self._cancel  # type: ignore[attr-defined]
        self.cancelled: list[str] = []
        self.task = asyncio.create_task(
            endpoint(_scope(self.client, **scope), self.client.receive, self.client.send)  # type: ignore[arg-type]
        )

    async def _cancel(self, generation_id: str) -> None:
        self.cancelled.append(generation_id)

    async def say(self, frame: Any) -> None:
        text = frame if isinstance(frame, str) else json.dumps(frame)
        self.client.incoming.put_nowait({"type": "websocket.receive", "text": text})
        await settle()

    def take(self) -> list[dict[str, Any]]:
        """Return the frames since the last call."""
        frames = [json.loads(m["text"]) for m in self.client.messages if "text" in m]
        self.client.messages = [m for m in self.client.messages if "text" not in m]
        return frames

    @property
    def close_code(self) -> int | None:
        codes = [m["code"] for m in self.client.messages if m["type"] == "websocket.close"]
        assert len(codes) <= 1
        return codes[0] if codes else None

    async def leave(self) -> None:
        self.client.leave("websocket")
        await self.task


def _scope(client: Client, **scope: Any) -> dict[str, Any]:
    headers = scope.pop("headers", {})
    return {
        "type": "websocket",
        "path": "/v1/ws",
        "query_string": scope.pop("query", "").encode(),
        "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
        "subprotocols": scope.pop("subprotocols", ["tailrace.v1"]),
        "extensions": {"tailrace.transport": client} if scope.pop("with_transport", True) else {},
        **scope,
    }


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as bench:
        yield bench


@pytest.fixture
async def talk(bench: Bench) -> AsyncIterator[Talk]:
    talk = Talk(bench)
    await settle()
    yield talk
    if not talk.task.done():
        await talk.leave()


async def test_a_prompt_is_accepted_and_its_events_follow(bench: Bench, talk: Talk) -> None:
    await talk.say({"type": "start", "ref": "r1", "prompt": "Hi"})
    bench.log.append(Start(attempt=1, model="demo"))
    bench.log.tokens("Hel")
    await settle()
    bench.log.append(END)
    await settle()

    assert talk.take() == [
        {"type": "accepted", "ref": "r1", "id": GENERATION},
        {"type": "caught_up", "id": GENERATION},
        {"type": "start", "id": GENERATION, "event_id": "1-1", "attempt": 1, "model": "demo"},
        {"type": "token", "id": GENERATION, "event_id": "1-2", "text": "Hel"},
        {
            "type": "end", "id": GENERATION, "event_id": "1-3",
            "status": "completed", "finish_reason": "stop",
        },
    ]  # fmt: skip
    assert talk.client.messages[0] == {"type": "websocket.accept", "subprotocol": "tailrace.v1"}
    assert bench.hub.relays[GENERATION].holds == 0


async def test_a_replay_joins_tokens_and_ends_with_caught_up(bench: Bench, talk: Talk) -> None:
    bench.log.create()
    bench.log.append(Start(attempt=1, model="demo"))
    ids = bench.log.tokens(*"abcdefgh", '"', "i")
    await talk.say({"type": "subscribe", "id": GENERATION, "last_event_id": str(ids[1])})
    bench.log.tokens("k")
    await settle()

    frames = talk.take()
    assert [f["type"] for f in frames] == ["token", "caught_up", "token"]
    assert [f.get("event_id") for f in frames] == ["1-11", None, "1-12"]
    assert "".join(f.get("text", "") for f in frames) == 'cdefgh"ik'


async def test_the_replay_of_an_ended_generation_ends_with_caught_up(
    bench: Bench, talk: Talk
) -> None:
    bench.log.create()
    bench.log.tokens("a")
    bench.log.append(END)
    await talk.say({"type": "subscribe", "id": GENERATION})
    assert [f["type"] for f in talk.take()] == ["token", "end", "caught_up"]

    await talk.say({"type": "subscribe", "id": GENERATION, "last_event_id": "1-2"})
    assert [f["type"] for f in talk.take()] == ["caught_up"]


async def test_a_cursor_that_is_not_in_the_log_gets_a_reset(bench: Bench, talk: Talk) -> None:
    bench.log.create()
    bench.log.tokens("a")
    bench.log.append(END)
    await talk.say({"type": "subscribe", "id": GENERATION, "last_event_id": "3-3"})
    frames = talk.take()
    assert frames[0] == {
        "type": "reset", "id": GENERATION, "event_id": "0-0", "reason": "log_rewritten",
    }  # fmt: skip
    assert [f["type"] for f in frames[1:]] == ["token", "end", "caught_up"]


async def test_two_generations_take_turns_and_a_pong_overtakes_both(
    bench: Bench, talk: Talk
) -> None:
    for name in (GENERATION, OTHER):
        bench.log.create(name)
        await talk.say({"type": "subscribe", "id": name})
    talk.take()
    talk.client.block()
    for n in range(3):
        for name in (GENERATION, OTHER):
            bench.log.tokens(f"{n}", generation_id=name)
    await talk.say({"type": "ping"})
    talk.client.unblock()
    await settle()

    frames = talk.take()
    assert [f["type"] for f in frames] == ["token", "pong"] + ["token"] * 5
    assert [f["id"] for f in frames if "id" in f] == [GENERATION, OTHER] * 3


async def test_unsubscribing_stops_the_events_and_releases_the_relay(
    bench: Bench, talk: Talk
) -> None:
    bench.log.create()
    await talk.say({"type": "subscribe", "id": GENERATION})
    await talk.say({"type": "unsubscribe", "id": GENERATION})
    await talk.say({"type": "unsubscribe", "id": "gen_never_there"})
    talk.take()
    bench.log.tokens("a")
    await settle()
    assert talk.take() == []
    assert bench.hub.relays[GENERATION].holds == 0


async def test_subscribing_again_starts_again_from_the_cursor(bench: Bench, talk: Talk) -> None:
    bench.log.create()
    bench.log.tokens("a")
    await talk.say({"type": "subscribe", "id": GENERATION})
    talk.take()
    await talk.say({"type": "subscribe", "id": GENERATION})
    assert [f["type"] for f in talk.take()] == ["token", "caught_up"]
    bench.log.tokens("b")
    await settle()
    assert [f["event_id"] for f in talk.take()] == ["1-2"]
    assert bench.hub.relays[GENERATION].holds == 1


async def test_cancel_reaches_the_store(bench: Bench, talk: Talk) -> None:
    bench.log.create()
    await talk.say({"type": "cancel", "id": GENERATION})
    assert talk.cancelled == [GENERATION]
    assert talk.take() == []


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "invalid_json"),
        ("[1]", "invalid_request"),
        ('"text"', "invalid_request"),
        ('{"type":"nonsense"}', "invalid_request"),
        ('{"type":["start"]}', "invalid_request"),
        ('{"type":"subscribe"}', "invalid_request"),
        ('{"type":"subscribe","id":5}', "invalid_request"),
        ('{"type":"subscribe","id":"gen_unknown000"}', "not_found"),
        ('{"type":"subscribe","id":"../x"}', "not_found"),
        ('{"type":"subscribe","id":"gen_0000000000","last_event_id":"1:2"}', "cursor_invalid"),
        ('{"type":"subscribe","id":"gen_0000000000","last_event_id":7}', "cursor_invalid"),
        ('{"type":"cancel","id":"gen_unknown000"}', "not_found"),
        ('{"type":"start"}', "invalid_request"),
        ('{"type":"start","ref":1,"prompt":"x"}', "invalid_request"),
        ('{"type":"start","prompt":"x","model":"none"}', "model_not_found"),
        ('{"type":"start","prompt":"x","idempotency_key":{}}', "invalid_request"),
        ('{"type":"start","prompt":"x","idempotency_key":""}', "idempotency_key_invalid"),
        ("[" * 200 + "]" * 200, "invalid_json"),
        ("", "invalid_json"),
    ],
)
async def test_a_wrong_frame_gets_an_error_frame_and_the_socket_stays_open(
    bench: Bench, talk: Talk, frame: str, code: str
) -> None:
    bench.log.create()
    await talk.say(frame)
    frames = talk.take()
    assert [(f["type"], f["code"], f["retryable"]) for f in frames] == [("error", code, False)]

    await talk.say({"type": "ping"})
    assert talk.take() == [{"type": "pong"}]


async def test_a_hello_as_the_first_frame_is_answered_with_the_heartbeat(talk: Talk) -> None:
    await talk.say({"type": "hello"})
    await talk.say({"type": "ping"})

    assert talk.take() == [{"type": "hello", "heartbeat_s": 15.0}, {"type": "pong"}]


async def test_an_error_has_the_ref_or_id_of_its_frame(talk: Talk) -> None:
    await talk.say({"type": "start", "ref": "r7", "prompt": ""})
    assert talk.take()[0]["ref"] == "r7"
    await talk.say({"type": "cancel", "id": "gen_unknown000"})
    assert talk.take()[0]["id"] == "gen_unknown000"


async def test_a_generation_of_another_owner_is_not_found(bench: Bench, talk: Talk) -> None:
    bench.log.create(owner="bob")
    for kind in ("subscribe", "cancel"):
        await talk.say({"type": kind, "id": GENERATION})
        assert talk.take()[0]["code"] == "not_found"
    assert talk.cancelled == []


async def test_the_hundred_and_first_subscription_is_refused(bench: Bench, talk: Talk) -> None:
    for n in range(101):
        name = f"gen_{n:010}"
        bench.log.create(name)
        await talk.say({"type": "subscribe", "id": name})
    errors = [f for f in talk.take() if f["type"] == "error"]
    assert [(e["id"], e["code"]) for e in errors] == [("gen_0000000100", "rate_limited")]


async def test_binary_closes_with_1003(talk: Talk) -> None:
    talk.client.incoming.put_nowait({"type": "websocket.receive", "bytes": b"\x00"})
    await talk.task
    assert talk.close_code == 1003


async def test_an_idle_socket_is_closed_with_4000(bench: Bench, talk: Talk) -> None:
    await bench.pass_time(200)
    await talk.say({"type": "ping"})
    await bench.pass_time(200)
    assert talk.close_code is None
    await bench.pass_time(120)
    await talk.task
    assert talk.close_code == 4000


async def test_a_socket_with_an_open_generation_is_not_idle(bench: Bench, talk: Talk) -> None:
    bench.log.create()
    await talk.say({"type": "subscribe", "id": GENERATION})
    await bench.pass_time(400)
    assert talk.close_code is None


async def test_a_drain_closes_with_1012(bench: Bench, talk: Talk) -> None:
    bench.log.create()
    await talk.say({"type": "subscribe", "id": GENERATION})
    await bench.hub.drain(0)
    await talk.task
    assert talk.close_code == 1012
    assert bench.hub.statistics().connections == {}
    assert bench.hub.relays[GENERATION].holds == 0


async def test_a_socket_is_closed_after_its_maximum_age_with_1012(bench: Bench, talk: Talk) -> None:
    bench.log.create()
    await talk.say({"type": "subscribe", "id": GENERATION})
    await bench.pass_time(3_700, step_s=20)
    assert talk.close_code == 1012
    assert bench.hub.statistics().rotations == 1


async def test_with_redis_away_a_socket_without_subscriptions_is_closed_with_1013(
    bench: Bench, talk: Talk
) -> None:
    bench.log.create()
    bench.log.is_away = True
    await talk.say({"type": "subscribe", "id": GENERATION})
    await talk.task
    assert talk.take()[0]["code"] == "unavailable"
    assert talk.close_code == 1013


async def test_with_redis_away_a_socket_with_subscriptions_stays_open(
    bench: Bench, talk: Talk
) -> None:
    bench.log.create()
    await talk.say({"type": "subscribe", "id": GENERATION})
    talk.take()
    talk.acceptor.error = Unavailable("away")
    await talk.say({"type": "start", "ref": "r", "prompt": "x"})
    assert [(f["code"], f["retryable"], f["ref"]) for f in talk.take()] == [
        ("unavailable", True, "r")
    ]
    bench.log.tokens("a")
    await settle()
    assert [f["type"] for f in talk.take()] == ["token"]


async def test_a_client_that_stops_reading_is_cut(bench: Bench, talk: Talk) -> None:
    bench.log.create()
    await talk.say({"type": "subscribe", "id": GENERATION})
    talk.client.block()
    for _ in range(3):
        bench.log.tokens("x" * 700_000)
        await settle()
    await bench.pass_time(1.5)
    talk.client.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
    await talk.task
    assert talk.client.was_aborted
    assert bench.hub.statistics().cuts == 1


async def test_a_client_that_does_not_read_is_not_read_from(talk: Talk) -> None:
    talk.client.block()
    for _ in range(300):
        talk.client.incoming.put_nowait({"type": "websocket.receive", "text": '{"type":"ping"}'})
    await settle(2_000)
    assert talk.client.incoming.qsize() > 200

    talk.client.unblock()
    await settle(6_000)
    assert len(talk.take()) == 300


async def test_a_lost_generation_ends_with_the_event_id_0_0(bench: Bench, talk: Talk) -> None:
    bench.log.create()
    bench.log.tokens("a")
    await talk.say({"type": "subscribe", "id": GENERATION})
    bench.log.lose()
    await bench.pass_time(13)
    last = talk.take()[-1]
    assert (last["type"], last["event_id"], last["error"]["code"]) == ("end", "0-0", "lost")
    assert bench.hub.relays == {}


# The handshake


async def test_a_socket_without_the_subprotocol_is_accepted(bench: Bench) -> None:
    talk = Talk(bench, subprotocols=["other"])
    await settle()
    assert talk.client.messages == [{"type": "websocket.accept", "subprotocol": None}]
    await talk.leave()


async def test_bad_credentials_are_refused_at_the_handshake(bench: Bench) -> None:
    talk = Talk(bench, keys="yes", headers={"authorization": "Bearer wrong"})
    with pytest.raises(RequestError) as caught:
        await talk.task
    assert caught.value.status == 401
    assert talk.client.messages == []


async def test_a_browser_gets_the_error_after_the_handshake(bench: Bench) -> None:
    headers = {"origin": "http://here", "host": "here"}
    talk = Talk(bench, keys="yes", headers=headers, query="access_token=wrong")
    await talk.task
    assert talk.client.messages[0]["type"] == "websocket.accept"
    assert talk.take()[0]["code"] == "unauthorized"
    assert talk.close_code == 4501


async def test_a_key_in_the_query_is_accepted(bench: Bench) -> None:
    talk = Talk(bench, keys="yes", query="access_token=k1")
    await settle()
    await talk.say({"type": "start", "prompt": "x"})
    assert talk.acceptor.seen[0].owner == "ann"
    await talk.leave()


async def test_a_draining_node_accepts_no_sockets(bench: Bench) -> None:
    bench.hub.is_draining = True
    with pytest.raises(RequestError) as caught:
        await Talk(bench).task
    assert (caught.value.status, caught.value.retry_after_s) == (503, 1)


async def test_a_new_subscription_reads_again_what_the_node_has_dropped() -> None:
    async with Bench(hub_bytes_max=2_000) as bench:
        talk = Talk(bench)
        await settle()
        bench.log.create()
        await talk.say({"type": "subscribe", "id": GENERATION})
        for n in range(30):
            bench.log.tokens(f"{n} " + "x" * 100)
        await settle(100)
        text = "".join(f.get("text", "") for f in talk.take())
        await bench.pass_time(1.25)
        assert bench.hub.relays[GENERATION].feed.base > 0
        await talk.say({"type": "subscribe", "id": GENERATION})
        await settle(100)
        assert "".join(f.get("text", "") for f in talk.take()) == text
        await talk.leave()
