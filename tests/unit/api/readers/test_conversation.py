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
from tests.support.hub_harness import END, GENERATION, Client, HubHarness, settle
from tests.support.numbered_dialect import NumberedFrames


class NumberedConversation(Conversation):
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
        subscription = await self.open(name, await self.find(GENERATION), NumberedFrames(name))
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


class SocketClient:
    """One client of the numbered dialect; `frames` leaves out the errand's first frame."""

    def __init__(self, hub_harness: HubHarness, query: str = "", **parts: Any) -> None:
        self.client = Client({"type": "websocket.connect"})
        self.conversations: list[NumberedConversation] = []
        self.endpoint = SocketEndpoint(hub_harness.node(**parts), "/toy", self._converse)
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

    def _converse(self, *args: Any) -> NumberedConversation:
        self.conversations.append(NumberedConversation(*args))
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
async def hub_harness() -> AsyncIterator[HubHarness]:
    async with HubHarness() as hub_harness:
        hub_harness.log.create()
        yield hub_harness


@pytest.fixture
async def socket_client(hub_harness: HubHarness) -> AsyncIterator[SocketClient]:
    socket_client = SocketClient(hub_harness, authenticator=ANYBODY)
    await settle()
    yield socket_client
    socket_client.client.leave("websocket")
    await socket_client.task
    assert socket_client.conversations[0].ended == ["errand"]
    assert not hub_harness.hub.connections


def frames_of(name: str, *values: Any) -> list[dict[str, Any]]:
    return [{name: value} for value in values]


async def test_an_entry_may_be_no_frame_one_frame_or_several(
    hub_harness: HubHarness, socket_client: SocketClient
) -> None:
    hub_harness.log.append(Start(1, "demo"), Progress("x", 1, 2, 50.0))
    await socket_client.say(read="r1")
    hub_harness.log.tokens("a")
    hub_harness.log.append(ToolCall(0), Progress("x", 2, 2, 100.0), END)
    await settle()

    assert socket_client.frames == frames_of("r1", 0, 1, "caught", "up", 2, 3, 4, 5, 6)
    assert not socket_client.conversations[0].socket.subscriptions


async def test_tokens_are_not_joined_if_the_fold_counts_frames(
    hub_harness: HubHarness, socket_client: SocketClient
) -> None:
    hub_harness.log.tokens(*"abcdefgh")
    await socket_client.say(read="r1")

    assert socket_client.frames == frames_of("r1", *range(8), "caught", "up")


async def test_one_generation_may_be_open_under_several_names(
    hub_harness: HubHarness, socket_client: SocketClient
) -> None:
    await socket_client.say(read="r1")
    hub_harness.log.tokens("a")
    await socket_client.say(read="r2")
    hub_harness.log.append(END)
    await settle()

    assert [f for f in socket_client.frames if "r1" in f] == frames_of("r1", "caught", "up", 0, 1)
    assert [f for f in socket_client.frames if "r2" in f] == frames_of("r2", 0, "caught", "up", 1)


async def test_a_dialect_may_end_before_its_log(
    hub_harness: HubHarness, socket_client: SocketClient
) -> None:
    hub_harness.log.append(Start(1, "demo"), Reset("takeover"))
    hub_harness.log.tokens("on")
    await socket_client.say(read="r1", wait=True)
    await settle()

    assert socket_client.frames == [*frames_of("r1", 0, 1, 2), {"ended": "r1"}]


async def test_a_fold_that_cannot_restart_ends_after_a_reset(
    hub_harness: HubHarness, socket_client: SocketClient
) -> None:
    hub_harness.log.tokens("a", "b")
    await socket_client.say(read="r1")
    hub_harness.log.roll_back(1)
    hub_harness.log.tokens("B", "c")
    await settle()

    assert socket_client.frames[-1] == {"r1": "reset"}
    assert not socket_client.conversations[0].socket.subscriptions


async def test_an_event_without_a_frame_in_the_dialect_is_sent_as_expired(
    hub_harness: HubHarness, socket_client: SocketClient
) -> None:
    await socket_client.say(read="r1")
    hub_harness.hub.relays[GENERATION].end_unlogged(b'{"type":"end"}')
    await settle()
    assert socket_client.frames[-1] == {"r1": "expired"}
    assert not socket_client.conversations[0].socket.subscriptions


async def test_an_expired_log_is_sent_as_the_dialects_frame(
    hub_harness: HubHarness, socket_client: SocketClient
) -> None:
    await socket_client.say(read="r1")
    hub_harness.hub.relays[GENERATION].declare_expired()
    await settle()
    assert socket_client.frames[-1] == {"r1": "expired"}


@pytest.mark.parametrize("text", ["{", "[]", "1", '{"a":NaN}'])
async def test_a_wrong_frame_is_answered_with_the_dialects_error(
    socket_client: SocketClient, text: str
) -> None:
    socket_client.client.incoming.put_nowait({"type": "websocket.receive", "text": text})
    await settle()
    assert socket_client.frames[0]["wrong"] in ("invalid_json", "invalid_request")
    assert socket_client.code is None


async def test_a_dialect_may_answer_a_binary_frame_before_the_close(
    hub_harness: HubHarness,
) -> None:
    socket_client = SocketClient(hub_harness, authenticator=ANYBODY)
    await settle()
    socket_client.client.incoming.put_nowait({"type": "websocket.receive", "bytes": b"x"})
    await socket_client.task
    assert socket_client.frames == [{"wrong": "binary"}]
    assert socket_client.code == 1003


async def test_a_draining_node_sends_an_error_and_closes(hub_harness: HubHarness) -> None:
    socket_client = SocketClient(hub_harness, authenticator=ANYBODY)
    await settle()
    await socket_client.say(close=True)
    await socket_client.task
    assert socket_client.frames[0]["wrong"] == "draining"
    assert socket_client.code == 1012


@pytest.mark.parametrize(
    ("query", "authenticator", "code"),
    [
        ("bad=1", ANYBODY, "invalid_request"),
        ("", Authenticator({"k": Identity("ann")}, ("*",)), "unauthorized"),
    ],
)
async def test_bad_queries_and_credentials_are_refused_at_the_handshake(
    hub_harness: HubHarness, query: str, authenticator: Authenticator, code: str
) -> None:
    """Also for a browser: this endpoint does not set `is_refusal_readable`."""
    socket_client = SocketClient(hub_harness, query, authenticator=authenticator)
    with pytest.raises(RequestError) as caught:
        await socket_client.task
    assert caught.value.code == code
    assert not socket_client.client.messages
