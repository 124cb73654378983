"""A dialect over WebSocket: frames per entry, names of subscriptions, its own error frames."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from starlette.types import Scope, Send

from api.edge.auth import Authenticator
from api.errors import request_error
from api.node import Node
from api.readers.conversation import Conversation, Frame
from api.readers.lookup import read_query
from api.readers.socket_endpoint import SocketEndpoint
from shared.config.credentials import Identity
from shared.errors import Draining, RequestError
from shared.log.events import Progress, Reset, Start, ToolCall
from tests.support.bench import END, GENERATION, Bench, Client, settle
from tests.support.toy import ToyFrames


class ToyConversation(Conversation):
    """`{"read":"name"}` opens the generation under that name; one errand runs beside it."""

    def __init__(self, node: Node, owner: str, scope: Scope, send: Send) -> None:
        super().__init__(node, owner, scope, send)
        if "bad" in read_query(scope):
            raise request_error("invalid_request", "bad is refused")
        self.ended: list[str] = []
        self.may_end_errand = asyncio.Event()

    async def do(self, frame: Frame) -> None:
        if "close" in frame:
            raise Draining()
        name = frame["read"]
        subscription = await self.open(name, await self.find(GENERATION), ToyFrames(name))
        if frame.get("wait"):
            await subscription.ended()
            self.socket.say(ended=name)

    def send_error(self, frame: Any, error: RequestError) -> None:
        self.socket.say(wrong=error.code, frame=frame)

    def handle_binary(self) -> None:
        self.socket.say(wrong="binary")
        super().handle_binary()

    def background_work(self) -> list[Coroutine[Any, Any, None]]:
        return [self._errand()]

    async def _errand(self) -> None:
        self.socket.say(errand="begun")
        try:
            await self.may_end_errand.wait()
        finally:
            self.ended.append("errand")


class Talk:
    """One client of the toy endpoint; `frames` leaves out the errand's first frame."""

    def __init__(self, bench: Bench, query: str = "", **parts: Any) -> None:
        self.client = Client({"type": "websocket.connect"})
        self.conversations: list[ToyConversation] = []
        self.endpoint = SocketEndpoint(bench.node(**parts), "/toy", self._converse)
        scope = {
            "type": "websocket",
            "path": "/toy",
            "query_string": query.encode(),
            "headers": [(b"origin", b"http://x")],
            "extensions": {"tailrace.transport": self.client},
        }
        self.task = asyncio.ensure_future(
            self.endpoint(scope, self.client.receive, self.client.send)  # type: ignore[arg-type]
        )

    def _converse(self, *args: Any) -> ToyConversation:
        self.conversations.append(ToyConversation(*args))
        return self.conversations[-1]

    async def say(self, **frame: Any) -> None:
        message = {"type": "websocket.receive", "text": json.dumps(frame)}
        self.client.incoming.put_nowait(message)
        await settle()

    @property
    def frames(self) -> list[dict[str, Any]]:
        return [json.loads(m["text"]) for m in self.client.messages if "text" in m][1:]

    @property
    def code(self) -> int | None:
        return next((m["code"] for m in self.client.messages if "code" in m), None)


ANYBODY = Authenticator({}, ("*",))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as bench:
        bench.log.create()
        yield bench


@pytest.fixture
async def talk(bench: Bench) -> AsyncIterator[Talk]:
    talk = Talk(bench, authenticator=ANYBODY)
    await settle()
    yield talk
    talk.client.leave("websocket")
    await talk.task
    assert talk.conversations[0].ended == ["errand"]
    assert not bench.hub.connections


def frames_of(name: str, *values: Any) -> list[dict[str, Any]]:
    return [{name: value} for value in values]


async def test_an_entry_may_be_no_frame_one_frame_or_several(bench: Bench, talk: Talk) -> None:
    bench.log.append(Start(1, "demo"), Progress("x", 1, 2, 50.0))
    await talk.say(read="r1")
    bench.log.tokens("a")
    bench.log.append(ToolCall(0), Progress("x", 2, 2, 100.0), END)
    await settle()

    assert talk.frames == frames_of("r1", 0, 1, "caught", "up", 2, 3, 4, 5, 6)
    assert not talk.conversations[0].socket.subscriptions


async def test_tokens_are_not_joined_if_the_fold_counts_frames(bench: Bench, talk: Talk) -> None:
    bench.log.tokens(*"abcdefgh")
    await talk.say(read="r1")

    assert talk.frames == frames_of("r1", *range(8), "caught", "up")


async def test_one_generation_may_be_open_under_several_names(bench: Bench, talk: Talk) -> None:
    await talk.say(read="r1")
    bench.log.tokens("a")
    await talk.say(read="r2")
    bench.log.append(END)
    await settle()

    assert [f for f in talk.frames if "r1" in f] == frames_of("r1", "caught", "up", 0, 1)
    assert [f for f in talk.frames if "r2" in f] == frames_of("r2", 0, "caught", "up", 1)


async def test_a_dialect_may_end_before_its_log(bench: Bench, talk: Talk) -> None:
    bench.log.append(Start(1, "demo"), Reset("takeover"))
    bench.log.tokens("on")
    await talk.say(read="r1", wait=True)
    await settle()

    assert talk.frames == [*frames_of("r1", 0, 1, 2), {"ended": "r1"}]


async def test_a_fold_that_cannot_restart_ends_after_a_reset(bench: Bench, talk: Talk) -> None:
    bench.log.tokens("a", "b")
    await talk.say(read="r1")
    bench.log.roll_back(1)
    bench.log.tokens("B", "c")
    await settle()

    assert talk.frames[-1] == {"r1": "reset"}
    assert not talk.conversations[0].socket.subscriptions


async def test_an_event_without_a_frame_in_the_dialect_is_sent_as_expired(
    bench: Bench, talk: Talk
) -> None:
    await talk.say(read="r1")
    bench.hub.relays[GENERATION].end_unlogged(b'{"type":"end"}')
    await settle()
    assert talk.frames[-1] == {"r1": "expired"}
    assert not talk.conversations[0].socket.subscriptions


async def test_an_expired_log_is_sent_as_the_dialects_frame(bench: Bench, talk: Talk) -> None:
    await talk.say(read="r1")
    bench.hub.relays[GENERATION].declare_expired()
    await settle()
    assert talk.frames[-1] == {"r1": "expired"}


@pytest.mark.parametrize("text", ["{", "[]", "1", '{"a":NaN}'])
async def test_a_wrong_frame_is_answered_with_the_dialects_error(talk: Talk, text: str) -> None:
    talk.client.incoming.put_nowait({"type": "websocket.receive", "text": text})
    await settle()
    assert talk.frames[0]["wrong"] in ("invalid_json", "invalid_request")
    assert talk.code is None


async def test_a_dialect_may_answer_a_binary_frame_before_the_close(bench: Bench) -> None:
    talk = Talk(bench, authenticator=ANYBODY)
    await settle()
    talk.client.incoming.put_nowait({"type": "websocket.receive", "bytes": b"x"})
    await talk.task
    assert talk.frames == [{"wrong": "binary"}]
    assert talk.code == 1003


async def test_a_draining_node_sends_an_error_and_closes(bench: Bench) -> None:
    talk = Talk(bench, authenticator=ANYBODY)
    await settle()
    await talk.say(close=True)
    await talk.task
    assert talk.frames[0]["wrong"] == "draining"
    assert talk.code == 1012


@pytest.mark.parametrize(
    ("query", "authenticator", "code"),
    [
        ("bad=1", ANYBODY, "invalid_request"),
        ("", Authenticator({"k": Identity("ann")}, ("*",)), "unauthorized"),
    ],
)
async def test_bad_queries_and_credentials_are_refused_at_the_handshake(
    bench: Bench, query: str, authenticator: Authenticator, code: str
) -> None:
    """Also for a browser: this endpoint does not set `is_refusal_readable`."""
    talk = Talk(bench, query, authenticator=authenticator)
    with pytest.raises(RequestError) as caught:
        await talk.task
    assert caught.value.code == code
    assert not talk.client.messages
