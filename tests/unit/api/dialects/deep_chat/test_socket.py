"""/deep-chat/ws on a hub with a fake log: answers in turn, each with its stop key."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from api.dialects.deep_chat.socket import deep_chat_socket, read_stop_key
from api.edge.auth import Authenticator
from shared.config.credentials import Identity
from shared.errors import RequestError, Unavailable
from shared.log.events import End, Failure, Start
from tests.support.hub_harness import END, HubHarness, settle
from tests.support.socket_client import ANYBODY, SocketHarness

HELLO = {"messages": [{"role": "user", "text": "Hi"}]}
STOP = {"text": "stop-key"}
BROKE = End("failed", "error", error=Failure("upstream_error", "it broke", True))
FIRST, SECOND = "gen_0000000000", "gen_0000000001"


@pytest.mark.parametrize("key", ["", "x", "  ", "x" * 257, "ab\udc80"])
def test_an_invalid_stop_key_is_refused(key: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_stop_key({"stop_key": key})
    assert caught.value.status == 422


@pytest.fixture
async def harness() -> AsyncIterator[SocketHarness]:
    async with HubHarness() as hub_harness:
        harness = SocketHarness(hub_harness, deep_chat_socket)
        yield harness
        await harness.leave()


async def test_an_answer_is_texts_and_the_stop_key(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client(query="stop_key=%2Fover%2F")
    await socket_client.say({**HELLO, "session": "s1"})
    harness.log.append(Start(1, "demo"))
    harness.log.tokens("Hel")
    await settle()
    harness.log.tokens("lo", "/over/")
    harness.log.append(END)
    await settle()

    assert socket_client.take() == [
        {"text": "Hel"}, {"text": "lo"}, {"text": "/"}, {"text": "over/"}, {"text": "/over/"},
    ]  # fmt: skip
    (new,) = harness.acceptor.seen
    assert (new.session, new.grace_s) == ("s1", 5.0)


async def test_a_request_during_an_answer_waits_for_its_turn(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    for _ in range(2):
        await socket_client.say(HELLO)
    harness.log.tokens("a")
    await settle()
    assert socket_client.take() == [{"text": "a"}]
    assert len(harness.acceptor.seen) == 1

    harness.log.append(END)
    await settle()
    harness.log.tokens("b", generation_id=SECOND)
    harness.log.append(BROKE, generation_id=SECOND)
    await settle()
    assert socket_client.take() == [STOP, {"text": "b"}, {"error": "it broke"}, STOP]


async def test_the_error_of_a_wrong_frame_comes_in_its_turn_with_a_stop_key(
    harness: SocketHarness,
) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(HELLO)
    for wrong in ("{", "[1]", {"messages": []}, {**HELLO, "model": "none"}):
        await socket_client.say(wrong)
    assert socket_client.take() == []
    harness.log.append(END)
    await settle()

    frames = socket_client.take()
    assert frames[:2] == [{"text": " "}, STOP]
    assert frames[3::2] == [STOP] * 4
    assert all(isinstance(frame["error"], str) for frame in frames[2::2]) and len(frames) == 10
    await socket_client.say(HELLO)
    assert len(harness.acceptor.seen) == 2


async def test_a_request_beyond_the_bound_is_refused(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    for _ in range(18):
        await socket_client.say(HELLO)
    for n in range(17):
        harness.log.append(END, generation_id=f"gen_{n:010}")
        await settle(80)
    assert [f["error"] for f in socket_client.take() if "error" in f] == [
        "at most 16 requests wait on a socket"
    ]
    assert len(harness.acceptor.seen) == 17


async def test_a_flood_of_requests_closes_the_socket(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    for _ in range(90):
        await socket_client.say(HELLO)
    await socket_client.task
    assert socket_client.close_code == 1008


async def test_a_rewritten_log_overwrites_the_text(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(HELLO)
    harness.log.tokens("One, ", "two, ", "three")
    await settle()
    harness.log.roll_back(2)
    harness.log.tokens("deux, ")
    harness.log.append(END)
    await harness.hub_harness.pass_time(5)
    frames = socket_client.take()
    assert frames[3]["overwrite"] is True
    assert "".join(f["text"] for f in frames[3:-1]) == "One, deux, "
    assert frames[-1] == STOP


async def test_a_lost_answer_is_an_error_and_a_stop_key(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(HELLO)
    harness.log.tokens("a")
    await settle()
    socket_client.take()
    harness.log.lose(FIRST)
    await harness.hub_harness.pass_time(13)
    error, stop = socket_client.take()
    assert "lost" in error["error"]
    assert stop == STOP


async def test_with_redis_away_a_request_gets_an_error_and_the_socket_stays_open(
    harness: SocketHarness,
) -> None:
    socket_client = await harness.socket_client()
    harness.acceptor.error = Unavailable("away")
    await socket_client.say(HELLO)
    error, stop = socket_client.take()
    assert "repeating" in error["error"] and stop == STOP
    harness.acceptor.error = None
    await socket_client.say(HELLO)
    harness.log.append(END)
    await settle()
    assert socket_client.take() == [{"text": " "}, STOP]


async def test_a_draining_node_sends_an_error_and_closes(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    harness.hub_harness.hub.is_draining = True
    await socket_client.say(HELLO)
    await socket_client.task
    assert [next(iter(frame)) for frame in socket_client.take()] == ["error", "text"]
    assert socket_client.close_code == 1012


async def test_a_binary_frame_closes_with_1003(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say_bytes(b"\x00")
    await socket_client.task
    assert socket_client.close_code == 1003


@pytest.mark.parametrize(
    ("query", "authenticator", "status"),
    [("", Authenticator({"k": Identity("ann")}, ()), 401), ("stop_key=x", ANYBODY, 422)],
)
async def test_a_socket_is_refused_only_at_the_handshake(
    harness: SocketHarness, query: str, authenticator: Authenticator, status: int
) -> None:
    """The component would reconnect at once, for ever, after an accepted socket closes."""
    socket_client = await harness.socket_client(query=query, authenticator=authenticator)
    with pytest.raises(RequestError) as caught:
        await socket_client.task
    assert caught.value.status == status
    assert socket_client.client.messages == []
