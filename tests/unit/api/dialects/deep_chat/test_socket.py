"""/deep-chat/ws on a hub with a fake log: answers in turn, each with its stop key."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from api.dialects.deep_chat.socket import deep_chat_socket, read_stop_key
from api.edge.auth import Authenticator
from shared.config.credentials import Identity
from shared.errors import RequestError, Unavailable
from shared.log.events import End, Failure, Start
from tests.support.bench import END, Bench, settle
from tests.support.talk import ANYBODY, SocketStage

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
async def stage() -> AsyncIterator[SocketStage]:
    async with Bench() as bench:
        stage = SocketStage(bench, deep_chat_socket)
        yield stage
        await stage.leave()


async def test_an_answer_is_texts_and_the_stop_key(stage: SocketStage) -> None:
    talk = await stage.talk(query="stop_key=%2Fover%2F")
    await talk.say({**HELLO, "session": "s1"})
    stage.log.append(Start(1, "demo"))
    stage.log.tokens("Hel")
    await settle()
    stage.log.tokens("lo", "/over/")
    stage.log.append(END)
    await settle()

    assert talk.take() == [
        {"text": "Hel"}, {"text": "lo"}, {"text": "/"}, {"text": "over/"}, {"text": "/over/"},
    ]  # fmt: skip
    (new,) = stage.acceptor.seen
    assert (new.session, new.grace_s) == ("s1", 5.0)


async def test_a_request_during_an_answer_waits_for_its_turn(stage: SocketStage) -> None:
    talk = await stage.talk()
    for _ in range(2):
        await talk.say(HELLO)
    stage.log.tokens("a")
    await settle()
    assert talk.take() == [{"text": "a"}]
    assert len(stage.acceptor.seen) == 1

    stage.log.append(END)
    await settle()
    stage.log.tokens("b", generation_id=SECOND)
    stage.log.append(BROKE, generation_id=SECOND)
    await settle()
    assert talk.take() == [STOP, {"text": "b"}, {"error": "it broke"}, STOP]


async def test_the_error_of_a_wrong_frame_comes_in_its_turn_with_a_stop_key(
    stage: SocketStage,
) -> None:
    talk = await stage.talk()
    await talk.say(HELLO)
    for wrong in ("{", "[1]", {"messages": []}, {**HELLO, "model": "none"}):
        await talk.say(wrong)
    assert talk.take() == []
    stage.log.append(END)
    await settle()

    frames = talk.take()
    assert frames[:2] == [{"text": " "}, STOP]
    assert frames[3::2] == [STOP] * 4
    assert all(isinstance(frame["error"], str) for frame in frames[2::2]) and len(frames) == 10
    await talk.say(HELLO)
    assert len(stage.acceptor.seen) == 2


async def test_a_request_beyond_the_bound_is_refused(stage: SocketStage) -> None:
    talk = await stage.talk()
    for _ in range(18):
        await talk.say(HELLO)
    for n in range(17):
        stage.log.append(END, generation_id=f"gen_{n:010}")
        await settle(80)
    assert [f["error"] for f in talk.take() if "error" in f] == [
        "at most 16 requests wait on a socket"
    ]
    assert len(stage.acceptor.seen) == 17


async def test_a_flood_of_requests_closes_the_socket(stage: SocketStage) -> None:
    talk = await stage.talk()
    for _ in range(90):
        await talk.say(HELLO)
    await talk.task
    assert talk.close_code == 1008


async def test_a_rewritten_log_overwrites_the_text(stage: SocketStage) -> None:
    talk = await stage.talk()
    await talk.say(HELLO)
    stage.log.tokens("One, ", "two, ", "three")
    await settle()
    stage.log.roll_back(2)
    stage.log.tokens("deux, ")
    stage.log.append(END)
    await stage.bench.pass_time(5)
    frames = talk.take()
    assert frames[3]["overwrite"] is True
    assert "".join(f["text"] for f in frames[3:-1]) == "One, deux, "
    assert frames[-1] == STOP


async def test_a_lost_answer_is_an_error_and_a_stop_key(stage: SocketStage) -> None:
    talk = await stage.talk()
    await talk.say(HELLO)
    stage.log.tokens("a")
    await settle()
    talk.take()
    stage.log.lose(FIRST)
    await stage.bench.pass_time(13)
    error, stop = talk.take()
    assert "lost" in error["error"]
    assert stop == STOP


async def test_with_redis_away_a_request_gets_an_error_and_the_socket_stays_open(
    stage: SocketStage,
) -> None:
    talk = await stage.talk()
    stage.acceptor.error = Unavailable("away")
    await talk.say(HELLO)
    error, stop = talk.take()
    assert "repeating" in error["error"] and stop == STOP
    stage.acceptor.error = None
    await talk.say(HELLO)
    stage.log.append(END)
    await settle()
    assert talk.take() == [{"text": " "}, STOP]


async def test_a_draining_node_sends_an_error_and_closes(stage: SocketStage) -> None:
    talk = await stage.talk()
    stage.bench.hub.is_draining = True
    await talk.say(HELLO)
    await talk.task
    assert [next(iter(frame)) for frame in talk.take()] == ["error", "text"]
    assert talk.close_code == 1012


async def test_a_binary_frame_closes_with_1003(stage: SocketStage) -> None:
    talk = await stage.talk()
    await talk.say_bytes(b"\x00")
    await talk.task
    assert talk.close_code == 1003


@pytest.mark.parametrize(
    ("query", "authenticator", "status"),
    [("", Authenticator({"k": Identity("ann")}, ()), 401), ("stop_key=x", ANYBODY, 422)],
)
async def test_a_socket_is_refused_only_at_the_handshake(
    stage: SocketStage, query: str, authenticator: Authenticator, status: int
) -> None:
    """The component would reconnect at once, for ever, after an accepted socket closes."""
    talk = await stage.talk(query=query, authenticator=authenticator)
    with pytest.raises(RequestError) as caught:
        await talk.task
    assert caught.value.status == status
    assert talk.client.messages == []
