"""/lobe/ws on a hub with a fake log: every frame of the protocol, and every wrong frame."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.dialects.lobe.socket import lobe_socket
from api.edge.auth import Authenticator
from shared.config.credentials import Identity
from shared.errors import RequestError, Unavailable
from shared.log.events import Counts, End, Failure, Progress, Reset, Start, Token, Usage
from tests.support.hub_harness import END, HubHarness, settle
from tests.support.socket_client import SocketHarness

START = {"type": "startConversation", "prompt": "Hi", "sessionId": "s1", "messageId": "m1"}
FIRST = "gen_0000000000"


@pytest.fixture(autouse=True)
def cancel_through_the_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake store records the cancellations."""
    name = "api.dialects.lobe.socket.cancel"
    monkeypatch.setattr(name, lambda store, *args, **_: store.cancel(*args))


@pytest.fixture
async def harness() -> AsyncIterator[SocketHarness]:
    async with HubHarness() as hub_harness:
        harness = SocketHarness(hub_harness, lobe_socket)
        yield harness
        await harness.leave()


def token(content: str, at: str, message_id: str = "m1") -> dict[str, Any]:
    return {"type": "token", "content": content, "messageId": message_id, "id": at}


async def test_a_conversation_gets_tokens_progress_and_one_end(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(START)
    assert socket_client.take() == []
    harness.log.append(Start(1, "demo"), Progress("pdf_parsing", 3, 50, 6.0))
    harness.log.tokens('Grüße "you"\n', "b")
    harness.log.append(End("completed", "stop", usage=Counts(1, 2, 3)))
    await settle()

    assert socket_client.take() == [
        {
            "type": "progress", "messageId": "m1", "id": "1-2",
            "stage": "pdf_parsing", "current": 3, "total": 50, "percentage": 6.0,
        },
        token('Grüße "you"\n', "1-3"),
        token("b", "1-4"),
        {
            "type": "end", "messageId": "m1", "id": "1-5", "status": "completed",
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        },
    ]  # fmt: skip
    (new,) = harness.acceptor.seen
    assert (new.session, new.model, new.grace_s) == ("s1", "demo", None)
    assert harness.hub_harness.hub.relays[FIRST].holds == 0


async def test_a_message_without_an_id_gets_an_id(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say({"type": "startConversation", "prompt": "Hi", "sessionId": "s1"})
    harness.log.tokens("a")
    await settle()
    (frame,) = socket_client.take()
    assert frame["messageId"].startswith("msg_")

    other = await harness.socket_client()
    await other.say({"type": "resume", "messageId": frame["messageId"]})
    assert [f["type"] for f in other.take()] == ["token", "resume_complete"]


async def test_starting_again_reads_the_same_message(harness: SocketHarness) -> None:
    first, other = await harness.socket_client(), await harness.socket_client()
    await first.say(START)
    harness.log.tokens("a")
    harness.log.append(END)
    await settle()
    seen = first.take()
    await first.say(START)
    await other.say(START)

    assert first.take() == other.take() == seen
    assert [f["type"] for f in seen] == ["token", "end"]
    assert list(harness.log.known) == [FIRST]


async def test_starting_a_message_that_this_socket_reads_repeats_nothing(
    harness: SocketHarness,
) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(START)
    harness.log.tokens("a")
    await socket_client.say(START)
    harness.log.append(END)
    await settle()
    assert [f["type"] for f in socket_client.take()] == ["token", "end"]


async def test_another_prompt_with_the_same_message_id_is_refused(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(START)
    await socket_client.say({**START, "prompt": "Ho"})
    (error,) = socket_client.take()
    assert (error["code"], error["messageId"]) == ("idempotency_mismatch", "m1")


async def test_a_message_belongs_to_its_owner(harness: SocketHarness) -> None:
    keys = Authenticator({"k1": Identity("ann"), "k2": Identity("bob")}, ())
    ann = await harness.socket_client(authenticator=keys, query="access_token=k1")
    bob = await harness.socket_client(authenticator=keys, query="access_token=k2")
    await ann.say(START)
    for kind in ("resume", "cancel"):
        await bob.say({"type": kind, "messageId": "m1"})
    assert [f["code"] for f in bob.take()] == ["not_found", "not_found"]
    await bob.say({**START, "prompt": "of bob"})
    assert [meta.owner for meta in harness.log.known.values()] == ["ann", "bob"]
    assert harness.cancelled == []


async def test_resume_sends_the_rest_then_resume_complete_then_new_tokens(
    harness: SocketHarness,
) -> None:
    socket_client, other = await harness.socket_client(), await harness.socket_client()
    await socket_client.say(START)
    ids = harness.log.tokens("a", "b", '"c"')
    await other.say({"type": "resume", "messageId": "m1", "lastEventId": str(ids[0])})
    harness.log.tokens("d")
    harness.log.append(END)
    await settle()

    frames = other.take()
    assert frames[:4] == [
        token("b", "1-2"),
        token('"c"', "1-3"),
        {"type": "resume_complete", "messageId": "m1", "status": "running", "gap": False},
        token("d", "1-4"),
    ]
    assert [f["type"] for f in frames[4:]] == ["end"]


async def test_resume_of_a_queued_message_has_the_status_queued(harness: SocketHarness) -> None:
    socket_client, other = await harness.socket_client(), await harness.socket_client()
    await socket_client.say(START)
    await other.say({"type": "resume", "messageId": "m1"})
    assert [(f["type"], f["status"]) for f in other.take()] == [("resume_complete", "queued")]


async def test_resume_of_an_ended_message_has_the_end_before_resume_complete(
    harness: SocketHarness,
) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(START)
    harness.log.tokens("a")
    harness.log.append(END)
    await settle()
    socket_client.take()

    await socket_client.say({"type": "resume", "messageId": "m1", "lastEventId": "1-1"})
    assert [f["type"] for f in socket_client.take()] == ["end", "resume_complete"]
    await socket_client.say({"type": "resume", "messageId": "m1", "lastEventId": "1-2"})
    assert socket_client.take() == [
        {"type": "resume_complete", "messageId": "m1", "status": "completed", "gap": False}
    ]


async def test_resume_with_a_cursor_that_is_not_in_the_log_reports_a_gap(
    harness: SocketHarness,
) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(START)
    harness.log.tokens("a")
    harness.log.append(END)
    await settle()
    socket_client.take()
    await socket_client.say({"type": "resume", "messageId": "m1", "lastEventId": "3-7"})

    frames = socket_client.take()
    assert frames[0] == {
        "type": "reset", "messageId": "m1", "id": "0-0", "reason": "log_rewritten",
    }  # fmt: skip
    assert [f["type"] for f in frames[1:]] == ["token", "end", "resume_complete"]
    assert frames[-1]["gap"] is True


async def test_a_native_generation_is_read_by_its_generation_id(harness: SocketHarness) -> None:
    harness.log.create("gen_native0000")
    harness.log.append(Token("a"), generation_id="gen_native0000")
    socket_client = await harness.socket_client()
    await socket_client.say({"type": "resume", "messageId": "gen_native0000"})
    assert socket_client.take()[0] == token("a", "1-1", "gen_native0000")


async def test_a_reset_is_sent_and_clears_the_usage(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(START)
    harness.log.append(Start(1, "demo"), Usage(1, 2, 3), Reset("takeover"), END)
    await settle()
    frames = socket_client.take()
    assert frames[0] == {"type": "reset", "messageId": "m1", "id": "1-3", "reason": "takeover"}
    assert frames[1]["usage"] is None


async def test_a_failure_gets_an_error_and_then_the_end(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(START)
    harness.log.append(End("failed", "error", error=Failure("upstream_error", "it broke", True)))
    await settle()
    assert socket_client.take() == [
        {
            "type": "error", "messageId": "m1",
            "code": "upstream_error", "message": "it broke", "retryable": True,
        },
        {"type": "end", "messageId": "m1", "id": "1-1", "status": "failed", "usage": None},
    ]  # fmt: skip


async def test_cancel_names_its_message(harness: SocketHarness) -> None:
    socket_client, other = await harness.socket_client(), await harness.socket_client()
    await socket_client.say(START)
    await other.say({"type": "cancel", "messageId": "m1"})
    assert harness.cancelled == [FIRST]
    harness.log.append(End("cancelled", "cancelled"))
    await settle()
    assert [(f["type"], f["status"]) for f in socket_client.take()] == [("end", "cancelled")]
    assert other.take() == []


async def test_messages_on_one_socket_take_turns_and_a_pong_overtakes_them(
    harness: SocketHarness,
) -> None:
    socket_client = await harness.socket_client()
    for n in range(2):
        await socket_client.say({**START, "messageId": f"m{n}"})
    socket_client.client.block()
    for generation_id in list(harness.log.known) * 2:
        harness.log.tokens("x", generation_id=generation_id)
    await socket_client.say({"type": "ping"})
    socket_client.client.unblock()
    await settle()
    frames = socket_client.take()
    assert [f["type"] for f in frames] == ["token", "pong", "token", "token", "token"]
    assert [f["messageId"] for f in frames if "id" in f] == ["m0", "m1", "m0", "m1"]


async def test_a_lost_generation_gets_one_error_and_one_end(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(START)
    harness.log.tokens("a")
    await settle()
    socket_client.take()
    harness.log.lose(FIRST)
    await harness.hub_harness.pass_time(13)
    error, end = socket_client.take()
    assert (error["type"], error["code"]) == ("error", "lost")
    assert (end["type"], end["id"], end["status"]) == ("end", "0-0", "failed")


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "invalid_json"),
        ("[1]", "invalid_request"),
        ('{"type":"nonsense"}', "invalid_request"),
        ('{"type":["ping"]}', "invalid_request"),
        ("{}", "invalid_request"),
        ('{"type":"startConversation"}', "invalid_request"),
        ('{"type":"startConversation","prompt":""}', "invalid_request"),
        ('{"type":"startConversation","prompt":7,"sessionId":"s"}', "invalid_request"),
        ('{"type":"startConversation","prompt":"x","sessionId":7}', "invalid_request"),
        ('{"type":"startConversation","prompt":"x","messageId":7}', "invalid_request"),
        ('{"type":"startConversation","prompt":"x","messageId":""}', "invalid_request"),
        ('{"type":"startConversation","prompt":"x","messageId":false}', "invalid_request"),
        ('{"type":"startConversation","prompt":"x","model":"none"}', "model_not_found"),
        ('{"type":"startConversation","prompt":"x","model":7}', "invalid_request"),
        ('{"type":"resume"}', "invalid_request"),
        ('{"type":"resume","messageId":{}}', "invalid_request"),
        ('{"type":"resume","messageId":"none"}', "not_found"),
        ('{"type":"resume","messageId":"gen_none000000"}', "not_found"),
        ('{"type":"resume","messageId":"m1","lastEventId":"1:2"}', "cursor_invalid"),
        ('{"type":"resume","messageId":"m1","lastEventId":7}', "cursor_invalid"),
        ('{"type":"cancel","messageId":"none"}', "not_found"),
        ('{"type":"cancel"}', "invalid_request"),
        ('{"type":"cancel","messageId":"\\ud800"}', "invalid_request"),
        ("[" * 130 + "]" * 130, "invalid_json"),
    ],
)
async def test_a_wrong_frame_gets_an_error_and_the_socket_stays_open(
    harness: SocketHarness, frame: str, code: str
) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(START)
    await socket_client.say(frame)
    (error,) = socket_client.take()
    assert (error["type"], error["code"], error["retryable"]) == ("error", code, False)
    await socket_client.say({"type": "ping"})
    assert socket_client.take() == [{"type": "pong"}]


async def test_a_binary_frame_gets_an_error_and_closes_with_1003(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say_bytes(b"\x00")
    await socket_client.task
    assert [f["code"] for f in socket_client.take()] == ["invalid_request"]
    assert socket_client.close_code == 1003


async def test_an_idle_socket_is_closed(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await harness.hub_harness.pass_time(301)
    await socket_client.task
    assert socket_client.close_code == 4000


async def test_the_hundred_and_first_message_is_refused(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    for n in range(101):
        await socket_client.say({**START, "messageId": f"m{n}"})
    assert [(f["messageId"], f["code"]) for f in socket_client.take()] == [("m100", "rate_limited")]
    assert len(harness.acceptor.seen) == 100


async def test_a_draining_node_accepts_no_prompts(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    harness.hub_harness.hub.is_draining = True
    await socket_client.say(START)
    await socket_client.task
    assert [f["code"] for f in socket_client.take()] == ["draining"]
    assert socket_client.close_code == 1012


async def test_with_redis_away_a_resume_gets_unavailable(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(START)
    harness.acceptor.error = Unavailable("away")
    await socket_client.say({"type": "resume", "messageId": "m1"})
    (error,) = socket_client.take()
    assert (error["code"], error["retryable"], socket_client.close_code) == (
        "unavailable",
        True,
        None,
    )


async def test_bad_credentials_are_refused_at_the_handshake(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client(
        authenticator=Authenticator({"k1": Identity("ann")}, ())
    )
    with pytest.raises(RequestError) as caught:
        await socket_client.task
    assert caught.value.status == 401
    assert socket_client.client.messages == []
