"""Conversations on real sockets: handed over, and with their handler."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import struct
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from api.dialects.native.socket import NativeConversation
from api.edge.error_boundary import ErrorBoundary
from api.readers.conversation import Conversation, Frame
from api.readers.socket_endpoint import SocketEndpoint
from api.transport.websocket import PING as PING_FRAME
from api.transport.websocket import WebSocketProtocol
from shared.errors import RequestError
from shared.log.events import Start
from tests.support.hub_harness import END, GENERATION, HubHarness, settle
from tests.support.protocol_server import (
    Peer,
    QuickHttpProtocol,
    connected,
    frame,
    handshake,
    serving,
)
from tests.support.raw_wire import read_frame
from tests.support.wait import until

SUBSCRIBE = json.dumps({"type": "subscribe", "id": GENERATION}).encode()
PING = b'{"type":"ping"}'
PONG = {"type": "pong"}


class FaultyConversation(NativeConversation):
    """The native protocol with two more commands: `fail` raises, `hold` waits for the test."""

    held: asyncio.Event
    cancelled = 0

    async def take_binary(self, data: bytes, refusal: RequestError | None) -> bool:
        """Close the socket, as other dialects do."""
        return await Conversation.take_binary(self, data, refusal)

    async def do(self, frame: Frame) -> None:
        if frame.get("type") == "fail":
            raise LookupError("a defect")
        if frame.get("type") == "hold":
            try:
                await self.held.wait()
            except asyncio.CancelledError:
                FaultyConversation.cancelled += 1
                raise
        await super().do(frame)


class App:
    def __init__(self, hub_harness: HubHarness, *, hands_over: bool) -> None:
        self.hub_harness = hub_harness
        self.hands_over = hands_over
        self.returned = 0
        self.protocols: list[weakref.ref[WebSocketProtocol]] = []
        self.app = ErrorBoundary(SocketEndpoint(hub_harness.node(), "/ws", FaultyConversation))
        FaultyConversation.held, FaultyConversation.cancelled = asyncio.Event(), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.hands_over:
            del scope["extensions"]["tailrace.handover"]
        await self.app(scope, receive, send)
        self.returned += 1

    @property
    def protocol(self) -> WebSocketProtocol:
        protocol = self.protocols[-1]()
        assert protocol is not None
        return protocol

    @property
    def is_empty(self) -> bool:
        hub = self.hub_harness.hub
        is_held = any(relay.holds or relay.readers for relay in hub.relays.values())
        return not hub.connections and not len(hub.heartbeats) and not is_held


@asynccontextmanager
async def talking(*, hands_over: bool = True, **settings: Any) -> AsyncIterator[tuple[App, int]]:
    async with HubHarness(**settings) as hub_harness:
        hub_harness.log.create()
        hub_harness.log.append(Start(1, "demo"))
        app = App(hub_harness, hands_over=hands_over)

        class Watched(WebSocketProtocol):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                app.protocols.append(weakref.ref(self))

        async with serving(app, QuickHttpProtocol, Watched) as port:
            yield app, port
        await until(lambda: app.is_empty, 5, "the hub has no connection and no reader")


@pytest.fixture(params=[True, False], ids=["handed over", "with its handler"])
async def local_node(request: pytest.FixtureRequest) -> AsyncIterator[tuple[App, int]]:
    async with talking(hands_over=request.param) as local_node:
        yield local_node


async def opened(peer: Peer) -> Peer:
    peer.say(handshake())
    await peer.until(b"\r\n\r\n")
    return peer


async def next_frame(peer: Peer) -> dict[str, Any]:
    """Return the next frame, or `{"closed": code}` for a close frame."""
    async with asyncio.timeout(5):
        opcode, payload = await read_frame(peer.reader)
    if opcode == 8:
        return {"closed": struct.unpack("!H", payload[:2])[0] if payload else None}
    found = json.loads(payload)
    assert isinstance(found, dict)
    return found


async def test_the_handler_returns_and_the_conversation_goes_on() -> None:
    async with talking() as (app, port), connected(port) as peer:
        await opened(peer)
        await until(lambda: app.returned, 5)
        protocol = app.protocol
        await until(lambda: not protocol.tasks, 5)
        assert protocol.scope is protocol.request is None
        peer.say(frame(1, PING))
        assert await next_frame(peer) == PONG
        await settle()

        assert protocol.close_timer is None and not protocol.transport.is_closing()
        assert not [task for task in asyncio.all_tasks() if "Unattended" in repr(task)]


async def test_frames_are_answered_in_their_order(local_node: tuple[App, int]) -> None:
    app, port = local_node
    async with connected(port) as peer:
        await opened(peer)
        peer.say(frame(1, PING) + frame(1, b"no JSON") + frame(1, PING) + frame(1, SUBSCRIBE))
        types = [(await next_frame(peer))["type"] for _ in range(5)]
        assert types == ["pong", "error", "pong", "start", "caught_up"]
        app.hub_harness.log.tokens("on")
        assert (await next_frame(peer))["text"] == "on"
        peer.say(frame(1, PING))
        assert await next_frame(peer) == PONG
        app.hub_harness.log.append(END)

        assert (await next_frame(peer))["type"] == "end"


async def test_a_close_frame_is_answered(local_node: tuple[App, int]) -> None:
    app, port = local_node
    async with connected(port) as peer:
        await opened(peer)
        peer.say(frame(1, SUBSCRIBE))
        await next_frame(peer)
        await next_frame(peer)
        peer.say(frame(8, struct.pack("!H", 1000)))

        assert await next_frame(peer) == {"closed": 1000}
        assert await peer.rest() == b""
        await until(lambda: app.is_empty, 5)


async def test_a_peer_that_leaves_is_forgotten(local_node: tuple[App, int]) -> None:
    app, port = local_node
    async with connected(port) as peer:
        await opened(peer)
        peer.say(frame(1, SUBSCRIBE))
        await next_frame(peer)
    await until(lambda: app.is_empty, 5)


async def test_a_drain_closes_the_socket_with_1012(local_node: tuple[App, int]) -> None:
    app, port = local_node
    async with connected(port) as peer:
        await opened(peer)
        peer.say(frame(1, PING))
        await next_frame(peer)
        drain = asyncio.ensure_future(app.hub_harness.hub.drain(0))

        assert await next_frame(peer) == {"closed": 1012}
        await drain
        assert app.is_empty


async def test_no_frame_is_read_after_a_binary_frame(
    local_node: tuple[App, int], caplog: pytest.LogCaptureFixture
) -> None:
    _, port = local_node
    async with connected(port) as peer:
        await opened(peer)
        peer.say(frame(1, PING) + frame(2, b"x") + frame(1, b'{"type":"fail"}'))

        assert await next_frame(peer) == PONG
        assert await next_frame(peer) == {"closed": 1003}
    assert not caplog.records


async def test_an_unexpected_exception_closes_the_socket_and_is_logged(
    local_node: tuple[App, int], caplog: pytest.LogCaptureFixture
) -> None:
    _, port = local_node
    async with connected(port) as peer:
        await opened(peer)
        peer.say(frame(1, b'{"type":"fail"}') + frame(1, PING))

        assert await next_frame(peer) == {"closed": 1011}
    errors = [r for r in caplog.records if r.levelno >= logging.ERROR and r.name[:3] == "api"]
    assert [r.getMessage() for r in errors] == ["request failed"]


async def test_an_idle_socket_is_closed(local_node: tuple[App, int]) -> None:
    app, port = local_node
    async with connected(port) as peer:
        await opened(peer)
        await until(lambda: app.hub_harness.hub.connections, 5)
        # A large step of the clock makes all heartbeats due in one tick.
        app.hub_harness.clock.s += app.hub_harness.settings.ws_idle_s + 1
        app.hub_harness.hub._upkeep.tick(app.hub_harness.clock.s)

        assert await next_frame(peer) == {"closed": 4000}


async def test_a_socket_is_pinged_once_a_heartbeat(local_node: tuple[App, int]) -> None:
    app, port = local_node
    heartbeat_s = app.hub_harness.settings.heartbeat_s
    async with connected(port) as peer:
        await opened(peer)
        await until(lambda: app.hub_harness.hub.connections, 5)
        for _ in range(3):
            await app.hub_harness.pass_time(heartbeat_s + 0.5)
            assert await peer.reader.readexactly(len(PING_FRAME)) == PING_FRAME
            peer.say(frame(10, PING_FRAME[2:]))
            await until(lambda: not app.protocol._awaits_pong, 5)
        await app.hub_harness.pass_time(2 * heartbeat_s + 1)

        assert await peer.reader.readexactly(len(PING_FRAME)) == PING_FRAME
        assert await next_frame(peer) == {"closed": 4008}


async def test_a_short_idle_time_does_not_make_pings_early() -> None:
    async with talking(ws_idle_s=2, heartbeat_s=10) as (app, port), connected(port) as peer:
        await opened(peer)
        peer.say(frame(1, SUBSCRIBE))
        await next_frame(peer)
        await next_frame(peer)
        await app.hub_harness.pass_time(19)  # from second 10 on, `beat` is called every 2 s
        peer.say(frame(1, PING))

        assert await peer.reader.readexactly(len(PING_FRAME)) == PING_FRAME
        assert await next_frame(peer) == PONG


async def test_a_running_command_is_cancelled_when_the_socket_ends(
    local_node: tuple[App, int],
) -> None:
    app, port = local_node
    async with connected(port) as peer:
        await opened(peer)
        peer.say(frame(1, PING) + frame(1, b'{"type":"hold"}') + frame(1, PING))
        await next_frame(peer)
        await settle()
        await app.hub_harness.hub.drain(0)

        assert await next_frame(peer) == {"closed": 1012}
    assert FaultyConversation.cancelled == 1


async def test_a_closing_hub_breaks_the_socket_off() -> None:
    async with talking() as (app, port), connected(port) as peer:
        await opened(peer)
        await until(lambda: app.returned, 5)
        await app.hub_harness.hub.__aexit__()

        assert await peer.rest() == b""
        assert app.is_empty


@pytest.mark.parametrize("hands_over", [True, False])
async def test_a_closed_connection_is_freed_without_the_garbage_collector(hands_over: bool) -> None:
    """No reference cycle keeps the protocol object."""
    async with talking(hands_over=hands_over) as (app, port):
        gc.collect()
        gc.disable()
        try:
            async with connected(port) as peer:
                await opened(peer)
                peer.say(frame(1, SUBSCRIBE))
                await next_frame(peer)
            await until(lambda: app.is_empty and app.protocols[0]() is None, 5, "it is gone")
        finally:
            gc.enable()


async def test_the_hub_keeps_a_reference_to_a_running_command() -> None:
    """A waiting task that nothing refers to may be collected, and its answer would be lost."""
    async with talking() as (app, port), connected(port) as peer:
        await opened(peer)
        peer.say(frame(1, b'{"type":"hold"}'))
        await until(lambda: app.hub_harness.hub._errands, 5, "the hub has the reading task")
        gc.collect()
        FaultyConversation.held.set()

        assert (await next_frame(peer))["type"] == "error"  # the native protocol has no `hold`
        await until(lambda: not app.hub_harness.hub._errands, 5)


async def test_an_exception_while_closing_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: object, code: int) -> None:
        raise RuntimeError("the socket could not be closed")

    async with talking() as (_, port), connected(port) as peer:
        await opened(peer)
        with monkeypatch.context() as patch:
            patch.setattr("api.readers.websocket_sender.Socket.close", fail)
            peer.say(frame(1, b'{"type":"fail"}'))
            await until(lambda: "hub errand failed" in caplog.messages, 5, "it is reported")
