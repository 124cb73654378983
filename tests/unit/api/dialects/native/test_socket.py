"""/v1/ws on a hub with a fake log: every frame of the protocol, and every wrong frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.dialects.native.socket import native_socket
from api.edge.auth import Authenticator
from shared.config.credentials import Identity
from shared.errors import RequestError, Unavailable
from shared.log.events import Start
from shared.log.ids import new_generation_id
from shared.queue.accept import Accepted, NewGeneration
from tests.support.hub_harness import END, GENERATION, Client, HubHarness, settle
from tests.support.socket_client import FrameClient, steady_store

OTHER = "gen_other00000"


@pytest.fixture(autouse=True)
def cancel_through_the_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake store records the cancellations."""
    monkeypatch.setattr(
        "api.dialects.native.socket.cancel", lambda store, *args, **_: store.cancel(*args)
    )


class FakeAcceptor:
    """Accepts every prompt under one id, or raises `error`."""

    def __init__(self, hub_harness: HubHarness) -> None:
        self.hub_harness = hub_harness
        self.store = steady_store()
        self.error: Exception | None = None
        self.seen: list[NewGeneration] = []

    def draw_id(self) -> str:
        return new_generation_id()

    async def accept(self, new: NewGeneration, generation_id: str = "") -> Accepted:
        if self.error is not None:
            raise self.error
        self.seen.append(new)
        self.hub_harness.log.create(owner=new.owner)
        return Accepted(GENERATION, True, 1, "queued")


class NativeClient(FrameClient):
    """One open socket."""

    def __init__(self, hub_harness: HubHarness, *, keys: str = "", **scope: Any) -> None:
        self.hub_harness = hub_harness
        self.client = Client({"type": "websocket.connect"})
        self.acceptor = FakeAcceptor(hub_harness)
        authenticator = Authenticator({"k1": Identity("ann")} if keys else {}, ())
        endpoint = native_socket(
            hub_harness.node(acceptor=self.acceptor, authenticator=authenticator)
        )
        hub_harness.log.cancel = self._cancel  # type: ignore[attr-defined]
        self.cancelled: list[str] = []
        self.task = asyncio.create_task(
            endpoint(_scope(self.client, **scope), self.client.receive, self.client.send)  # type: ignore[arg-type]
        )

    async def _cancel(self, generation_id: str) -> None:
        self.cancelled.append(generation_id)


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
async def hub_harness() -> AsyncIterator[HubHarness]:
    async with HubHarness() as hub_harness:
        yield hub_harness


@pytest.fixture
async def socket_client(hub_harness: HubHarness) -> AsyncIterator[NativeClient]:
    socket_client = NativeClient(hub_harness)
    await settle()
    yield socket_client
    if not socket_client.task.done():
        await socket_client.leave()


async def test_a_prompt_is_accepted_and_its_events_follow(
    hub_harness: HubHarness, socket_client: NativeClient
) -> None:
    await socket_client.say({"type": "start", "ref": "r1", "prompt": "Hi"})
    hub_harness.log.append(Start(attempt=1, model="demo"))
    hub_harness.log.tokens("Hel")
    await settle()
    hub_harness.log.append(END)
    await settle()

    assert socket_client.take() == [
        {"type": "accepted", "ref": "r1", "id": GENERATION},
        {"type": "caught_up", "id": GENERATION},
        {"type": "start", "id": GENERATION, "event_id": "1-1", "attempt": 1, "model": "demo"},
        {"type": "token", "id": GENERATION, "event_id": "1-2", "text": "Hel"},
        {
            "type": "end", "id": GENERATION, "event_id": "1-3",
            "status": "completed", "finish_reason": "stop",
        },
    ]  # fmt: skip
    assert socket_client.client.messages[0] == {
        "type": "websocket.accept",
        "subprotocol": "tailrace.v1",
    }
    assert hub_harness.hub.relays[GENERATION].holds == 0


async def test_a_replay_joins_tokens_and_ends_with_caught_up(
    hub_harness: HubHarness, socket_client: NativeClient
) -> None:
    hub_harness.log.create()
    hub_harness.log.append(Start(attempt=1, model="demo"))
    ids = hub_harness.log.tokens(*"abcdefgh", '"', "i")
    await socket_client.say({"type": "subscribe", "id": GENERATION, "last_event_id": str(ids[1])})
    hub_harness.log.tokens("k")
    await settle()

    frames = socket_client.take()
    assert [f["type"] for f in frames] == ["token", "caught_up", "token"]
    assert [f.get("event_id") for f in frames] == ["1-11", None, "1-12"]
    assert "".join(f.get("text", "") for f in frames) == 'cdefgh"ik'


async def test_the_replay_of_an_ended_generation_ends_with_caught_up(
    hub_harness: HubHarness, socket_client: NativeClient
) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    hub_harness.log.append(END)
    await socket_client.say({"type": "subscribe", "id": GENERATION})
    assert [f["type"] for f in socket_client.take()] == ["token", "end", "caught_up"]

    await socket_client.say({"type": "subscribe", "id": GENERATION, "last_event_id": "1-2"})
    assert [f["type"] for f in socket_client.take()] == ["caught_up"]


async def test_a_cursor_that_is_not_in_the_log_gets_a_reset(
    hub_harness: HubHarness, socket_client: NativeClient
) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    hub_harness.log.append(END)
    await socket_client.say({"type": "subscribe", "id": GENERATION, "last_event_id": "3-3"})
    frames = socket_client.take()
    assert frames[0] == {
        "type": "reset", "id": GENERATION, "event_id": "0-0", "reason": "log_rewritten",
    }  # fmt: skip
    assert [f["type"] for f in frames[1:]] == ["token", "end", "caught_up"]


async def test_two_generations_take_turns_and_a_pong_overtakes_both(
    hub_harness: HubHarness, socket_client: NativeClient
) -> None:
    for name in (GENERATION, OTHER):
        hub_harness.log.create(name)
        await socket_client.say({"type": "subscribe", "id": name})
    socket_client.take()
    socket_client.client.block()
    for n in range(3):
        for name in (GENERATION, OTHER):
            hub_harness.log.tokens(f"{n}", generation_id=name)
    await socket_client.say({"type": "ping"})
    socket_client.client.unblock()
    await settle()

    frames = socket_client.take()
    assert [f["type"] for f in frames] == ["token", "pong"] + ["token"] * 5
    assert [f["id"] for f in frames if "id" in f] == [GENERATION, OTHER] * 3


async def test_unsubscribing_stops_the_events_and_releases_the_relay(
    hub_harness: HubHarness, socket_client: NativeClient
) -> None:
    hub_harness.log.create()
    await socket_client.say({"type": "subscribe", "id": GENERATION})
    await socket_client.say({"type": "unsubscribe", "id": GENERATION})
    await socket_client.say({"type": "unsubscribe", "id": "gen_never_there"})
    socket_client.take()
    hub_harness.log.tokens("a")
    await settle()
    assert socket_client.take() == []
    assert hub_harness.hub.relays[GENERATION].holds == 0


async def test_subscribing_again_starts_again_from_the_cursor(
    hub_harness: HubHarness, socket_client: NativeClient
) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    await socket_client.say({"type": "subscribe", "id": GENERATION})
    socket_client.take()
    await socket_client.say({"type": "subscribe", "id": GENERATION})
    assert [f["type"] for f in socket_client.take()] == ["token", "caught_up"]
    hub_harness.log.tokens("b")
    await settle()
    assert [f["event_id"] for f in socket_client.take()] == ["1-2"]
    assert hub_harness.hub.relays[GENERATION].holds == 1


async def test_cancel_reaches_the_store(
    hub_harness: HubHarness, socket_client: NativeClient
) -> None:
    hub_harness.log.create()
    await socket_client.say({"type": "cancel", "id": GENERATION})
    assert socket_client.cancelled == [GENERATION]
    assert socket_client.take() == []


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
    hub_harness: HubHarness, socket_client: NativeClient, frame: str, code: str
) -> None:
    hub_harness.log.create()
    await socket_client.say(frame)
    frames = socket_client.take()
    assert [(f["type"], f["code"], f["retryable"]) for f in frames] == [("error", code, False)]

    await socket_client.say({"type": "ping"})
    assert socket_client.take() == [{"type": "pong"}]


async def test_a_hello_as_the_first_frame_is_answered_with_the_heartbeat(
    socket_client: NativeClient,
) -> None:
    await socket_client.say({"type": "hello"})
    await socket_client.say({"type": "ping"})

    assert socket_client.take() == [{"type": "hello", "heartbeat_s": 15.0}, {"type": "pong"}]


async def test_an_error_has_the_ref_or_id_of_its_frame(socket_client: NativeClient) -> None:
    await socket_client.say({"type": "start", "ref": "r7", "prompt": ""})
    assert socket_client.take()[0]["ref"] == "r7"
    await socket_client.say({"type": "cancel", "id": "gen_unknown000"})
    assert socket_client.take()[0]["id"] == "gen_unknown000"


async def test_a_generation_of_another_owner_is_not_found(
    hub_harness: HubHarness, socket_client: NativeClient
) -> None:
    hub_harness.log.create(owner="bob")
    for kind in ("subscribe", "cancel"):
        await socket_client.say({"type": kind, "id": GENERATION})
        assert socket_client.take()[0]["code"] == "not_found"
    assert socket_client.cancelled == []


async def test_the_hundred_and_first_subscription_is_refused(
    hub_harness: HubHarness, socket_client: NativeClient
) -> None:
    for n in range(101):
        name = f"gen_{n:010}"
        hub_harness.log.create(name)
        await socket_client.say({"type": "subscribe", "id": name})
    errors = [f for f in socket_client.take() if f["type"] == "error"]
    assert [(e["id"], e["code"]) for e in errors] == [("gen_0000000100", "rate_limited")]


async def test_a_wrong_binary_frame_gets_an_error_and_the_socket_lives(
    socket_client: NativeClient,
) -> None:
    await socket_client.say_bytes(b"\x00")
    await socket_client.say({"type": "ping"})

    assert [f.get("code", f["type"]) for f in socket_client.take()] == ["invalid_request", "pong"]
    assert socket_client.close_code is None


async def test_an_idle_socket_is_closed_with_4000(
    hub_harness: HubHarness, socket_client: NativeClient
) -> None:
    await hub_harness.pass_time(200)
    await socket_client.say({"type": "ping"})
    await hub_harness.pass_time(200)
    assert socket_client.close_code is None
    await hub_harness.pass_time(120)
    await socket_client.task
    assert socket_client.close_code == 4000


async def test_a_socket_with_an_open_generation_is_not_idle(
    hub_harness: HubHarness, socket_client: NativeClient
) -> None:
    hub_harness.log.create()
    await socket_client.say({"type": "subscribe", "id": GENERATION})
    await hub_harness.pass_time(400)
    assert socket_client.close_code is None


async def test_a_drain_closes_with_1012(
    hub_harness: HubHarness, socket_client: NativeClient
) -> None:
    hub_harness.log.create()
    await socket_client.say({"type": "subscribe", "id": GENERATION})
    await hub_harness.hub.drain(0)
    await socket_client.task
    assert socket_client.close_code == 1012
    assert hub_harness.hub.statistics().connections == {}
    assert hub_harness.hub.relays[GENERATION].holds == 0


async def test_a_socket_is_closed_after_its_maximum_age_with_1012(
    hub_harness: HubHarness, socket_client: NativeClient
) -> None:
    hub_harness.log.create()
    await socket_client.say({"type": "subscribe", "id": GENERATION})
    await hub_harness.pass_time(3_700, step_s=20)
    assert socket_client.close_code == 1012
    assert hub_harness.hub.statistics().rotations == 1


async def test_with_redis_away_a_socket_without_subscriptions_is_closed_with_1013(
    hub_harness: HubHarness, socket_client: NativeClient
) -> None:
    hub_harness.log.create()
    hub_harness.log.is_away = True
    await socket_client.say({"type": "subscribe", "id": GENERATION})
    await socket_client.task
    assert socket_client.take()[0]["code"] == "unavailable"
    assert socket_client.close_code == 1013


async def test_with_redis_away_a_socket_with_subscriptions_stays_open(
    hub_harness: HubHarness, socket_client: NativeClient
) -> None:
    hub_harness.log.create()
    await socket_client.say({"type": "subscribe", "id": GENERATION})
    socket_client.take()
    socket_client.acceptor.error = Unavailable("away")
    await socket_client.say({"type": "start", "ref": "r", "prompt": "x"})
    assert [(f["code"], f["retryable"], f["ref"]) for f in socket_client.take()] == [
        ("unavailable", True, "r")
    ]
    hub_harness.log.tokens("a")
    await settle()
    assert [f["type"] for f in socket_client.take()] == ["token"]


async def test_a_client_that_stops_reading_is_cut(
    hub_harness: HubHarness, socket_client: NativeClient
) -> None:
    hub_harness.log.create()
    await socket_client.say({"type": "subscribe", "id": GENERATION})
    socket_client.client.block()
    for _ in range(3):
        hub_harness.log.tokens("x" * 700_000)
        await settle()
    await hub_harness.pass_time(1.5)
    socket_client.client.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
    await socket_client.task
    assert socket_client.client.was_aborted
    assert hub_harness.hub.statistics().cuts == 1


async def test_a_client_that_does_not_read_is_not_read_from(socket_client: NativeClient) -> None:
    socket_client.client.block()
    for _ in range(300):
        socket_client.client.incoming.put_nowait(
            {"type": "websocket.receive", "text": '{"type":"ping"}'}
        )
    await settle(2_000)
    assert socket_client.client.incoming.qsize() > 200

    socket_client.client.unblock()
    await settle(6_000)
    assert len(socket_client.take()) == 300


async def test_a_lost_generation_ends_with_the_event_id_0_0(
    hub_harness: HubHarness, socket_client: NativeClient
) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a")
    await socket_client.say({"type": "subscribe", "id": GENERATION})
    hub_harness.log.lose()
    await hub_harness.pass_time(13)
    last = socket_client.take()[-1]
    assert (last["type"], last["event_id"], last["error"]["code"]) == ("end", "0-0", "lost")
    assert hub_harness.hub.relays == {}


async def test_a_reader_that_needs_trimmed_entries_of_a_lost_generation_gets_the_end(
    hub_harness: HubHarness, socket_client: NativeClient
) -> None:
    hub_harness.log.create()
    hub_harness.log.tokens("a", "b", "c")
    await socket_client.say({"type": "subscribe", "id": GENERATION})
    assert len(socket_client.take()) > 3
    hub_harness.hub.relays[GENERATION].trim()
    hub_harness.log.lose()
    late = NativeClient(hub_harness)
    await settle()
    await late.say({"type": "subscribe", "id": GENERATION, "last_event_id": "1-1"})
    await hub_harness.pass_time(13)

    assert [frame["type"] for frame in late.take()][-1] == "end"
    assert hub_harness.hub.relays == {}
    late.client.leave("websocket")
    await late.task


# The handshake


async def test_a_socket_without_the_subprotocol_is_accepted(hub_harness: HubHarness) -> None:
    socket_client = NativeClient(hub_harness, subprotocols=["other"])
    await settle()
    assert socket_client.client.messages == [{"type": "websocket.accept", "subprotocol": None}]
    await socket_client.leave()


async def test_bad_credentials_are_refused_at_the_handshake(hub_harness: HubHarness) -> None:
    socket_client = NativeClient(hub_harness, keys="yes", headers={"authorization": "Bearer wrong"})
    with pytest.raises(RequestError) as caught:
        await socket_client.task
    assert caught.value.status == 401
    assert socket_client.client.messages == []


async def test_a_browser_gets_the_error_after_the_handshake(hub_harness: HubHarness) -> None:
    headers = {"origin": "http://here", "host": "here"}
    socket_client = NativeClient(
        hub_harness, keys="yes", headers=headers, query="access_token=wrong"
    )
    await socket_client.task
    assert socket_client.client.messages[0]["type"] == "websocket.accept"
    assert socket_client.take()[0]["code"] == "unauthorized"
    assert socket_client.close_code == 4501


async def test_a_key_in_the_query_is_accepted(hub_harness: HubHarness) -> None:
    socket_client = NativeClient(hub_harness, keys="yes", query="access_token=k1")
    await settle()
    await socket_client.say({"type": "start", "prompt": "x"})
    assert socket_client.acceptor.seen[0].owner == "ann"
    await socket_client.leave()


async def test_a_draining_node_accepts_no_sockets(hub_harness: HubHarness) -> None:
    hub_harness.hub.is_draining = True
    with pytest.raises(RequestError) as caught:
        await NativeClient(hub_harness).task
    assert (caught.value.status, caught.value.retry_after_s) == (503, 1)


async def test_a_new_subscription_reads_again_what_the_node_has_dropped() -> None:
    async with HubHarness(hub_bytes_max=2_000) as hub_harness:
        socket_client = NativeClient(hub_harness)
        await settle()
        hub_harness.log.create()
        await socket_client.say({"type": "subscribe", "id": GENERATION})
        for n in range(30):
            hub_harness.log.tokens(f"{n} " + "x" * 100)
        await settle(100)
        text = "".join(f.get("text", "") for f in socket_client.take())
        await hub_harness.pass_time(1.25)
        assert hub_harness.hub.relays[GENERATION].feed.base > 0
        await socket_client.say({"type": "subscribe", "id": GENERATION})
        await settle(100)
        assert "".join(f.get("text", "") for f in socket_client.take()) == text
        await socket_client.leave()
