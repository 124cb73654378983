"""The socket of Responses on a hub with a fake log: each event of a client, and wrong ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from api.dialects.responses.socket import responses_socket
from api.edge.auth import Authenticator
from shared.config.credentials import Identity
from shared.errors import Unavailable
from shared.log.events import End, Failure, Start, ToolCall, encode
from shared.queue.accept import Accepted, NewGeneration
from tests.support.hub_harness import END, HubHarness, settle
from tests.support.socket_client import KeyedAcceptor, SocketHarness

CREATE: dict[str, Any] = {"type": "response.create", "model": "demo", "input": "Hi"}
FIRST, SECOND = "gen_0000000000", "gen_0000000001"
RESPONSE = "resp_0000000000"
OPENING = ["response.created", "response.queued"]


class RequestAcceptor(KeyedAcceptor):
    """Also keeps the requests, which a response repeats."""

    async def accept(self, new: NewGeneration, generation_id: str = "") -> Accepted:
        accepted = await super().accept(new, generation_id)
        known = self.hub_harness.log.known
        if accepted.is_new:
            stored = {"request": bytes(new.request), "dialect": new.dialect, "model": new.model}
            known[accepted.generation_id] = replace(known[accepted.generation_id], **stored)
        return accepted


@pytest.fixture(autouse=True)
def cancel_through_the_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake store records the cancellations."""
    name = "api.dialects.responses.socket.cancel"
    monkeypatch.setattr(name, lambda store, *args, **_: store.cancel(*args))


@pytest.fixture
async def harness() -> AsyncIterator[SocketHarness]:
    async with HubHarness() as hub_harness:
        harness = SocketHarness(hub_harness, responses_socket)
        harness.acceptor = RequestAcceptor(hub_harness)
        yield harness
        await harness.leave()


def types(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["type"] for frame in frames]


def error_of(frames: list[dict[str, Any]]) -> tuple[int, str]:
    (frame,) = frames
    assert frame["type"] == "error"
    return frame["status"], frame["error"]["code"]


async def answer(harness: SocketHarness, generation_id: str, *texts: str) -> None:
    harness.log.append(Start(1, "demo"), generation_id=generation_id)
    harness.log.tokens(*texts, generation_id=generation_id)
    harness.log.append(END, generation_id=generation_id)
    await settle()


async def test_a_response_has_all_its_events_once(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say({**CREATE, "stream": True, "stream_id": "main"})
    assert types(socket_client.take()) == OPENING
    await answer(harness, FIRST, "a", "b")

    frames = socket_client.take()
    assert [frame["sequence_number"] for frame in frames] == list(range(2, 2 + len(frames)))
    assert all(frame["stream_id"] == "main" for frame in frames)
    assert frames[-1]["response"]["output"][0]["content"][0]["text"] == "ab"
    (new,) = harness.acceptor.seen
    assert (new.model, new.grace_s) == ("demo", 30.0)
    assert harness.hub_harness.hub.relays[FIRST].holds == 0


async def test_requests_of_a_stream_wait_and_streams_run_at_once(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    for name in ("a", "a", "b"):
        await socket_client.say({**CREATE, "stream_id": name})
    assert [f["stream_id"] for f in socket_client.take()] == ["a", "a", "b", "b"]
    assert len(harness.acceptor.seen) == 2

    await answer(harness, FIRST, "x")
    frames = socket_client.take()
    assert types(frames)[-3:] == ["response.completed", *OPENING]
    assert len(harness.acceptor.seen) == 3


async def test_another_socket_reads_on_after_the_number(harness: SocketHarness) -> None:
    first = await harness.socket_client()
    await first.say({**CREATE, "store": False})
    harness.log.append(Start(1, "demo"))
    harness.log.tokens("a", "b")
    await settle()
    seen = first.take()
    await first.leave()
    resume = {"type": "response.resume", "response_id": RESPONSE, "stream_id": "new"}
    other = await harness.socket_client()
    await other.say({**resume, "starting_after": seen[4]["sequence_number"]})
    harness.log.tokens("c")
    harness.log.append(END)
    await settle()

    rest = other.take()
    assert [f["sequence_number"] for f in rest] == list(range(5, 5 + len(rest)))
    assert "".join(f["delta"] for f in seen[:5] + rest if "delta" in f) == "abc"
    assert all(f["stream_id"] == "new" for f in rest)


async def test_a_resumed_response_is_in_turn_and_from_the_start_without_a_number(
    harness: SocketHarness,
) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(CREATE)
    await socket_client.say({"type": "response.resume", "response_id": RESPONSE})
    assert types(socket_client.take()) == OPENING
    await answer(harness, FIRST, "a")

    frames = socket_client.take()
    half = frames.index({**frames[-1]})  # the second reading ends with the same event
    assert types(frames)[half + 1 : half + 3] == OPENING
    assert types(frames).count("response.completed") == 2


@pytest.mark.parametrize("number", [400, 2**52])
async def test_a_number_that_the_log_cannot_prove_is_refused(
    harness: SocketHarness, number: int
) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(CREATE)
    await answer(harness, FIRST, "a")
    socket_client.take()
    resume = {"type": "response.resume", "response_id": RESPONSE, "starting_after": number}
    await socket_client.say(resume)

    assert error_of(socket_client.take()) == (409, "stream_reset")
    assert harness.hub_harness.hub.relays[FIRST].holds == 0


async def test_a_repeat_with_the_key_is_the_same_response(harness: SocketHarness) -> None:
    first, other = await harness.socket_client(), await harness.socket_client()
    create = {**CREATE, "idempotency_key": "k"}
    await first.say(create)
    await other.say({**create, "starting_after": 0})
    await answer(harness, FIRST, "a")

    assert other.take() == first.take()[1:]
    assert list(harness.log.known) == [FIRST]


async def test_another_request_with_the_key_is_refused(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say({**CREATE, "idempotency_key": "k"})
    await socket_client.say({**CREATE, "idempotency_key": "k", "input": "Ho", "stream_id": "b"})
    frames = [f for f in socket_client.take() if f["type"] == "error"]
    assert error_of(frames) == (400, "idempotency_mismatch")


async def test_a_turn_that_is_sent_again_reads_the_running_answer(harness: SocketHarness) -> None:
    create = {**CREATE, "client_metadata": {"thread_id": "t", "turn_id": "u"}}
    first, other = await harness.socket_client(), await harness.socket_client()
    await first.say(create)
    await other.say(create)
    await answer(harness, FIRST, "a")
    assert first.take() == other.take()

    more = [{"role": "user", "content": text} for text in ("Hi", "and")]
    await other.say({**create, "input": more})
    assert list(harness.log.known) == [FIRST, SECOND]


async def test_a_turn_whose_answer_failed_gets_a_new_one(harness: SocketHarness) -> None:
    create = {**CREATE, "client_metadata": {"thread_id": "t", "turn_id": "u"}}
    socket_client = await harness.socket_client()
    await socket_client.say(create)
    harness.log.append(End("failed", "error", error=Failure("x", "it broke", True)))
    harness.log.known[FIRST] = replace(harness.log.known[FIRST], status="failed")
    await settle()
    frames = socket_client.take()
    assert types(frames)[-2:] == ["error", "response.failed"]
    assert frames[-2]["status"] == 502

    await socket_client.say(create)
    assert list(harness.log.known) == [FIRST, SECOND]


async def test_a_turn_that_failed_too_often_still_gets_new_answers(
    harness: SocketHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.dialects.responses.repeats.ANSWERS_MAX", 1)
    create = {**CREATE, "client_metadata": {"thread_id": "t", "turn_id": "u"}}
    socket_client = await harness.socket_client()
    for number in range(3):
        await socket_client.say({**create, "stream_id": f"s{number}"})
        name = f"gen_{number:010}"
        failed = End("failed", "error", error=Failure("x", "it broke", True))
        harness.log.append(failed, generation_id=name)
        harness.log.known[name] = replace(harness.log.known[name], status="failed")
        await settle()

    assert len(harness.log.known) == 3


async def test_a_response_is_continued_from_the_log(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say({**CREATE, "store": False})
    await answer(harness, FIRST, "a")
    await socket_client.say({**CREATE, "input": "more", "previous_response_id": RESPONSE})

    assert socket_client.take()[-1]["response"]["previous_response_id"] == RESPONSE
    request = harness.acceptor.seen[1].request.decode()
    assert request.index('"Hi"') < request.index('"a"') < request.index('"more"')


async def test_an_unstored_response_of_another_socket_is_not_continued(
    harness: SocketHarness,
) -> None:
    first, other = await harness.socket_client(), await harness.socket_client()
    await first.say({**CREATE, "store": False})
    await answer(harness, FIRST, "a")
    await other.say({**CREATE, "previous_response_id": RESPONSE, "stream_id": "s"})

    (frame,) = other.take()
    assert error_of([frame]) == (400, "previous_response_not_found")
    assert (frame["stream_id"], frame["error"]["param"]) == ("s", "previous_response_id")


async def test_a_cancel_stops_a_response_of_the_owner(harness: SocketHarness) -> None:
    keys = Authenticator({"k1": Identity("ann"), "k2": Identity("bob")}, ())
    ann = await harness.socket_client(authenticator=keys, query="access_token=k1")
    bob = await harness.socket_client(authenticator=keys, query="access_token=k2")
    await ann.say({**CREATE, "store": False})
    stop = {"type": "response.cancel", "response_id": RESPONSE}
    await bob.say(stop)
    await bob.say({"type": "response.resume", "response_id": RESPONSE})
    assert [error_of([frame]) for frame in bob.take()] == [(404, "not_found")] * 2
    assert harness.cancelled == []

    ann.take()
    await ann.say(stop)
    assert harness.cancelled == [FIRST]
    (frame,) = ann.take()
    assert (frame["type"], frame["response_id"]) == ("response.cancel.accepted", RESPONSE)


@pytest.mark.parametrize("stream", [{}, {"stream_id": "main"}])
async def test_a_reading_after_the_last_event_is_answered(
    harness: SocketHarness, stream: dict[str, str]
) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say({**CREATE, "idempotency_key": "k"})
    await answer(harness, FIRST, "a")
    last = socket_client.take()[-1]["sequence_number"]
    expected = {
        "type": "response.resume.empty", "sequence_number": last, "response_id": RESPONSE,
        "status": "completed", **stream,
    }  # fmt: skip
    resume = {"type": "response.resume", "response_id": RESPONSE, **stream}

    await socket_client.say({**resume, "starting_after": last})
    assert socket_client.take() == [expected]
    await socket_client.say({**CREATE, "idempotency_key": "k", "starting_after": last, **stream})
    assert socket_client.take() == [expected]
    await socket_client.say({**resume, "starting_after": last - 1})
    assert types(socket_client.take()) == ["response.completed"]


async def test_a_reading_after_the_last_event_so_far_waits(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(CREATE)
    last = socket_client.take()[-1]["sequence_number"]
    resume = {"type": "response.resume", "response_id": RESPONSE, "starting_after": last}
    other = await harness.socket_client()
    await other.say(resume)
    assert other.take() == []

    await answer(harness, FIRST, "a")
    assert types(other.take())[-1] == "response.completed"


@pytest.mark.parametrize(
    ("status", "finish_reason", "shown"),
    [
        ("queued", "", "queued"),
        ("running", "", "in_progress"),
        ("completed", "stop", "completed"),
        ("completed", "length", "incomplete"),
        ("completed", "content_filter", "incomplete"),
        ("cancelled", "cancelled", "cancelled"),
    ],
)
async def test_an_accepted_cancel_shows_the_status_of_the_response(
    harness: SocketHarness, status: str, finish_reason: str, shown: str
) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(CREATE)
    socket_client.take()
    end = encode(End(status, finish_reason)) if finish_reason else b""
    harness.log.known[FIRST] = replace(harness.log.known[FIRST], status=status, end=end)

    await socket_client.say({"type": "response.cancel", "response_id": RESPONSE})
    (frame,) = socket_client.take()
    assert frame["status"] == shown


# Steering


STEER = {"type": "response.steer", "previous_response_id": RESPONSE, "input": "be brief"}


async def test_a_steered_response_is_continued_in_its_stream(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say({**CREATE, "stream_id": "s", "temperature": 0.5})
    await socket_client.say({**CREATE, "stream_id": "s", "input": "next"})
    await socket_client.say(STEER)
    accepted = socket_client.take()[-1]
    assert accepted["type"] == "response.steer.accepted"
    assert (accepted["stream_id"], accepted["sequence_number"]) == ("s", 1)
    await answer(harness, FIRST, "a")

    created = socket_client.take()[-2]
    assert (created["type"], created["stream_id"]) == ("response.created", "s")
    assert created["response"]["previous_response_id"] == RESPONSE
    assert created["response"]["temperature"] == 0.5
    request = harness.acceptor.seen[1].request.decode()
    assert request.index('"Hi"') < request.index('"a"') < request.index('"be brief"')
    assert len(harness.acceptor.seen) == 2, "the next request of the stream waits"


async def test_steers_wait_for_the_results_of_tools(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(CREATE)
    await socket_client.say(STEER)
    harness.log.append(Start(1, "demo"), ToolCall(0, "call_a", "f", "{}"))
    harness.log.append(End("completed", "tool_calls"))
    await settle()
    pending = socket_client.take()[-1]
    assert pending["type"] == "response.steer.pending"
    (stub,) = pending["required_input"]
    assert stub == {"type": "function_call_output", "call_id": "call_a", "name": "f"}

    more = {"previous_response_id": RESPONSE, "input": [{**stub, "output": "42"}]}
    await socket_client.say({**CREATE, **more})
    request = harness.acceptor.seen[1].request.decode()
    assert request.index('"be brief"') < request.index('"42"')


async def test_a_steer_that_cannot_be_used_comes_back(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(STEER)
    await socket_client.say(CREATE)
    await socket_client.say(STEER)
    await socket_client.say({**STEER, "input": []})
    harness.log.append(End("failed", "error", error=Failure("x", "it broke", True)))
    await settle()
    await socket_client.say(STEER)

    failed = [f for f in socket_client.take() if f["type"] == "response.steer.failed"]
    assert [f["error"]["code"] for f in failed] == [
        "response_not_found", "invalid_input", "response_not_active", "response_already_completed",
    ]  # fmt: skip
    assert failed[2]["steer"]["input"] == "be brief"
    assert ["id" in f["steer"] for f in failed] == [False, False, True, False]


async def test_a_response_takes_a_limited_number_of_steers(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(CREATE)
    for _ in range(17):
        await socket_client.say(STEER)
    last = socket_client.take()[-1]
    assert last["error"]["code"] == "too_many_pending_steers"


# Wrong events, and the end of a socket


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"type": "x"}, "invalid_request"),
        ({**CREATE, "stream_id": ""}, "invalid_stream_id"),
        ({**CREATE, "stream_id": "a b"}, "invalid_stream_id"),
        ({**CREATE, "stream_id": "x" * 257}, "invalid_stream_id"),
        ({**CREATE, "background": True}, "invalid_request"),
        ({**CREATE, "idempotency_key": "é"}, "idempotency_key_invalid"),
        ({**CREATE, "idempotency_key": 7}, "idempotency_key_invalid"),
        ({**CREATE, "idempotency_key": ""}, "idempotency_key_invalid"),
        ({**CREATE, "n": 2}, "invalid_request"),
        ({**CREATE, "starting_after": 3}, "invalid_request"),
        ({**CREATE, "generate": "no"}, "invalid_request"),
        ({**CREATE, "model": "none"}, "model_not_found"),
        ({"type": "response.create"}, "invalid_request"),
        ({"type": "response.resume"}, "invalid_request"),
        ({"type": "response.resume", "response_id": "gen_x"}, "not_found"),
        ({"type": "response.resume", "response_id": RESPONSE, "starting_after": -1},
         "invalid_request"),
        ({"type": "response.cancel", "response_id": 7}, "invalid_request"),
        ("{", "invalid_json"),
        ("[]", "invalid_request"),
    ],
)  # fmt: skip
async def test_a_wrong_event_is_an_error_and_the_socket_lives(
    harness: SocketHarness, wrong: Any, code: str
) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(wrong)
    assert error_of(socket_client.take())[1] == code

    await socket_client.say({**CREATE, "stream_id": "ok"})
    assert types(socket_client.take()) == OPENING


async def test_a_binary_frame_closes_the_socket(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say_bytes(b"\x00")
    assert error_of(socket_client.take())[1] == "invalid_request"
    assert socket_client.close_code == 1003


async def test_without_redis_a_create_is_an_error_that_may_be_repeated(
    harness: SocketHarness,
) -> None:
    socket_client = await harness.socket_client()
    harness.acceptor.error = Unavailable("away")
    await socket_client.say(CREATE)
    (frame,) = socket_client.take()
    assert error_of([frame]) == (503, "unavailable")
    assert frame["headers"] == {"retry-after": "1"}


async def test_a_draining_node_closes_with_1012(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    harness.hub_harness.hub.is_draining = True
    await socket_client.say(CREATE)
    assert error_of(socket_client.take())[1] == "draining"
    assert socket_client.close_code == 1012


async def test_the_end_of_a_socket_ends_its_tasks(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(CREATE)
    await socket_client.say(CREATE)
    before = len(harness.acceptor.seen)
    await socket_client.leave()
    await settle()

    assert harness.hub_harness.hub.relays[FIRST].holds == 0
    assert not harness.hub_harness.hub._errands
    assert len(harness.acceptor.seen) == before == 1


async def test_an_old_socket_ends_with_its_last_response(harness: SocketHarness) -> None:
    harness.hub_harness.settings = replace(harness.hub_harness.settings, connection_age_s=0.02)
    socket_client = await harness.socket_client()
    await socket_client.say(CREATE)
    await asyncio.wait_for(grown_old(socket_client), 5)
    assert socket_client.close_code is None
    await answer(harness, FIRST, "a")

    frames = socket_client.take()
    assert types(frames)[-2:] == ["response.completed", "error"]
    assert error_of(frames[-1:]) == (400, "websocket_connection_limit_reached")
    assert socket_client.close_code == 1012


async def grown_old(socket_client: Any) -> None:
    """Ask until the socket refuses a further request because of its age."""
    while True:
        await socket_client.say(
            {"type": "response.resume", "response_id": "resp_x", "stream_id": "x"}
        )
        errors = [f["error"]["code"] for f in socket_client.take() if f["type"] == "error"]
        if "websocket_connection_limit_reached" in errors:
            return


async def test_a_request_of_another_stream_gets_no_steer(harness: SocketHarness) -> None:
    socket_client = await harness.socket_client()
    await socket_client.say(CREATE)
    await socket_client.say(STEER)
    harness.log.append(Start(1, "demo"), ToolCall(0, "call_a", "f", "{}"))
    harness.log.append(End("completed", "tool_calls"))
    await settle()
    more = {"previous_response_id": RESPONSE, "input": "more"}
    await socket_client.say({**CREATE, **more, "stream_id": "fork"})
    await socket_client.say({**CREATE, **more})

    steered = ["be brief" in new.request.decode() for new in harness.acceptor.seen]
    assert steered == [False, False, True]


async def test_a_socket_that_ends_during_an_acceptance_holds_nothing(
    harness: SocketHarness,
) -> None:
    gate = asyncio.Event()
    accept = harness.acceptor.accept

    async def accept_late(new: NewGeneration, generation_id: str = "") -> Accepted:
        accepted = await accept(new, generation_id)
        await gate.wait()
        return accepted

    harness.acceptor.accept = accept_late  # type: ignore[method-assign]
    socket_client = await harness.socket_client()
    await socket_client.say(CREATE)
    await socket_client.leave()
    gate.set()
    await settle()

    relays = harness.hub_harness.hub.relays
    assert not [relay for relay in relays.values() if relay.holds]
    assert not harness.hub_harness.hub._errands
