"""Credentials of sockets: the subprotocol, the first frame, scopes, expiry and renewal."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.access import EVERY_FRAME, FRAMES
from api.dialects.ai_sdk.socket import AiSdkConversation, ai_sdk_socket
from api.dialects.deep_chat.socket import DeepChatConversation
from api.dialects.lobe.socket import LobeConversation, lobe_socket
from api.dialects.lobe_gateway.mux_socket import MuxConversation, lobe_gateway_mux_socket
from api.dialects.lobe_gateway.socket import GatewayConversation, lobe_gateway_socket
from api.dialects.native.socket import NativeConversation, native_socket
from api.dialects.responses.socket import ResponsesConversation, responses_socket
from api.edge.auth import Authenticator
from api.edge.waiting_places import OF_ADDRESS_MAX
from api.node import Node
from api.readers import expiry, first_frame
from api.readers.first_frame import BYTES_MAX
from api.transport.extensions import FIRST_MESSAGE_BYTES
from shared.config.settings import Settings
from shared.errors import RequestError
from tests.support.hub_harness import END, GENERATION, HubHarness, settle
from tests.support.socket_client import KeyedAcceptor, SocketClient
from tests.support.tokens import SECRET, hmac_token
from tests.support.wait import until

KEY = "key-of-alice-0123456789"
ACCEPTED = {"type": "websocket.accept", "subprotocol": "tailrace.v1"}
ACCEPTED_STRANGER = {**ACCEPTED, FIRST_MESSAGE_BYTES: BYTES_MAX}
START = {"type": "start", "ref": "r", "prompt": "Hi"}


@pytest.fixture
async def hub_harness() -> AsyncIterator[HubHarness]:
    async with HubHarness() as hub_harness:
        yield hub_harness


@pytest.fixture
def node(hub_harness: HubHarness) -> Node:
    settings = Settings(api_keys=f"{KEY}:alice", jwt_secret=SECRET)
    authenticator = Authenticator.from_settings(settings)
    return hub_harness.node(acceptor=KeyedAcceptor(hub_harness), authenticator=authenticator)


@pytest.fixture
async def talks(node: Node) -> AsyncIterator[Any]:
    """Open native sockets; they are left at the end."""
    opened: list[SocketClient] = []

    async def socket_client(first: Any = None, **parts: Any) -> SocketClient:
        opened.append(SocketClient(native_socket(node), **parts))
        await settle()
        if first is not None:
            await opened[-1].say(first)
        return opened[-1]

    yield socket_client
    for each in opened:
        await each.leave()


async def works(socket_client: SocketClient) -> bool:
    await socket_client.say({"type": "ping"})
    return socket_client.take() == [{"type": "pong"}]


async def closed(socket_client: SocketClient) -> int | None:
    await until(lambda: socket_client.close_code is not None, 5, "the close of the socket")
    return socket_client.close_code


@pytest.mark.parametrize("credential", [KEY, hmac_token()], ids=["key", "token"])
async def test_a_subprotocol_brings_credentials_and_the_answer_names_another(
    talks: Any, credential: str
) -> None:
    socket_client = await talks(subprotocols=[f"bearer.{credential}", "tailrace.v1"])

    assert socket_client.client.messages[0] == ACCEPTED
    assert await works(socket_client)


async def test_a_socket_of_another_dialect_answers_a_token_with_the_same_subprotocol(
    node: Node,
) -> None:
    socket_client = SocketClient(lobe_socket(node), subprotocols=["tailrace.v1", f"bearer.{KEY}"])
    await settle()

    assert socket_client.client.messages[0] == ACCEPTED
    await socket_client.leave()


async def test_a_wrong_subprotocol_is_refused_at_the_handshake(node: Node) -> None:
    socket_client = SocketClient(native_socket(node), subprotocols=["tailrace.v1", "bearer.wrong"])

    with pytest.raises(RequestError) as caught:
        await socket_client.task
    assert caught.value.status == 401


@pytest.mark.parametrize("credential", [KEY, hmac_token()], ids=["key", "token"])
async def test_the_first_frame_brings_credentials(talks: Any, node: Node, credential: str) -> None:
    socket_client = await talks(subprotocols=["tailrace.v1"])
    assert socket_client.client.messages == [ACCEPTED_STRANGER]
    assert len(node.waiting_places) == 1

    await socket_client.say({"type": "auth", "token": credential})

    assert await works(socket_client)
    assert len(node.waiting_places) == 0


@pytest.mark.parametrize(
    "frame",
    [
        START,
        {"type": "ping"},
        {"type": "auth"},
        {"type": "auth", "token": ""},
        {"type": "auth", "token": 7},
        {"type": "auth", "token": "wrong"},
        {"type": "auth", "token": hmac_token(exp=1)},
        {"type": "auth", "token": "x" * 20_000},
        [],
        "no json",
        "",
    ],
    ids=range(11),
)
async def test_any_other_first_frame_closes_the_socket_for_good(
    talks: Any, node: Node, frame: Any
) -> None:
    socket_client = await talks(frame)

    assert await closed(socket_client) == 4501
    (error,) = socket_client.take()
    assert error["type"] == "error" and error["code"] in ("unauthorized", "invalid_json")
    assert len(node.waiting_places) == 0
    assert node.acceptor.seen == []  # type: ignore[attr-defined]


async def test_a_socket_that_says_nothing_is_closed(
    talks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_frame, "FRAME_S", 0.01)
    socket_client = await talks()

    assert await closed(socket_client) == 4501


async def test_one_address_has_few_sockets_that_wait(talks: Any) -> None:
    for _ in range(OF_ADDRESS_MAX):
        await talks()
    socket_client = await talks()
    assert await closed(socket_client) == 4503
    assert socket_client.take()[0]["code"] == "forbidden"

    with_key = await talks(authorization=f"Bearer {KEY}")

    assert await works(with_key), "a client with credentials needs no such place"


async def test_a_client_that_leaves_gives_its_place_back(talks: Any, node: Node) -> None:
    socket_client = await talks()
    await socket_client.leave()

    assert len(node.waiting_places) == 0


async def test_a_token_that_expires_soon_is_warned_of_and_then_the_socket_is_closed(
    talks: Any, hub_harness: HubHarness
) -> None:
    token = hmac_token(exp=time.time() + 0.3)
    socket_client = await talks({"type": "auth", "token": token})
    await until(lambda: any("text" in m for m in socket_client.client.messages), 5, "the warning")

    (warning,) = socket_client.take()
    assert (warning["type"], warning["code"]) == ("error", "token_expired")
    assert socket_client.close_code is None
    assert await closed(socket_client) == 4001


async def test_a_new_token_keeps_the_socket_open(
    talks: Any, hub_harness: HubHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "WARNING_S", 0.0)
    first = hmac_token(exp=time.time() + 0.2)
    socket_client = await talks({"type": "auth", "token": first})
    short = await talks({"type": "auth", "token": first})

    await socket_client.say({"type": "auth", "token": hmac_token()})
    assert await closed(short) == 4001

    assert await works(socket_client)


async def test_a_token_of_another_owner_changes_nothing(talks: Any) -> None:
    socket_client = await talks(authorization=f"Bearer {KEY}")

    await socket_client.say({"type": "auth", "token": hmac_token(sub="bob")})

    assert socket_client.take()[0]["code"] == "forbidden"
    await socket_client.say(START)
    assert socket_client.endpoint.node.acceptor.seen[0].owner == "alice"


async def test_a_wrong_token_on_an_open_socket_closes_it(talks: Any) -> None:
    socket_client = await talks(authorization=f"Bearer {KEY}")

    await socket_client.say({"type": "auth", "token": "a guess"})

    assert await closed(socket_client) == 4501


async def test_a_new_token_without_the_scope_ends_the_readings(
    talks: Any, hub_harness: HubHarness
) -> None:
    socket_client = await talks(authorization=f"Bearer {KEY}")
    hub_harness.log.create(GENERATION, owner="alice")
    await socket_client.say({"type": "subscribe", "id": GENERATION})
    hub_harness.log.tokens("a")
    await settle()
    socket_client.take()

    await socket_client.say({"type": "auth", "token": hmac_token(scope="generate")})
    hub_harness.log.tokens("b")
    hub_harness.log.append(END)
    await settle()

    (frame,) = socket_client.take()
    assert (frame["type"], frame["id"], frame["code"]) == ("error", GENERATION, "forbidden")


async def test_a_socket_whose_key_was_taken_away_starts_nothing_and_is_closed(
    hub_harness: HubHarness, tmp_path: Path
) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{KEY}:alice")
    authenticator = Authenticator.from_settings(Settings(api_keys=str(path)))
    node = hub_harness.node(acceptor=KeyedAcceptor(hub_harness), authenticator=authenticator)
    socket_client = SocketClient(native_socket(node), authorization=f"Bearer {KEY}")
    await settle()

    async def use_keys(text: str) -> None:
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").replace(path)
        await authenticator.look_at_key_file()

    await use_keys("another-key-0123456789:alice")
    assert await works(socket_client), "the owner has another key"
    await use_keys("another-key-0123456789:bob")
    await socket_client.say(START)

    assert await closed(socket_client) == 4501
    assert socket_client.take() == []
    assert node.acceptor.seen == []  # type: ignore[attr-defined]


FRAME_OF = {
    "start": START,
    "send": {"type": "send", "requestId": "r", "id": "c", "messages": []},
    "startConversation": {"type": "startConversation", "prompt": "Hi", "sessionId": "s"},
}
ENDPOINTS = {
    "/v1/ws": native_socket,
    "/ai-sdk/ws": ai_sdk_socket,
    "/lobe/ws": lobe_socket,
    "/lobe-gateway/ws": lobe_gateway_socket,
    "/lobe-gateway/v2/ws": lobe_gateway_mux_socket,
    "/v1/responses": responses_socket,
}
KINDS = [
    (path, kind, needed)
    for path, row in FRAMES.items()
    for kind, needed in row.items()
    if kind != EVERY_FRAME and needed != "any"
]


@pytest.mark.parametrize(("path", "kind", "needed"), KINDS)
async def test_a_frame_needs_its_scope(node: Node, path: str, kind: str, needed: str) -> None:
    others = " ".join({"generate", "read", "batch", "schedules"} - {needed})
    token = hmac_token(scope=others)
    socket_client = SocketClient(ENDPOINTS[path](node), authorization=f"Bearer {token}")
    await settle()

    await socket_client.say(FRAME_OF.get(kind, {"type": kind, "id": "gen_00000000"}))

    *_, error = socket_client.take()
    assert needed in str(error) and "forbidden" in str(error)
    await socket_client.leave()


@pytest.mark.parametrize(
    ("path", "conversation"),
    [
        ("/v1/ws", NativeConversation),
        ("/ai-sdk/ws", AiSdkConversation),
        ("/lobe/ws", LobeConversation),
        ("/lobe-gateway/ws", GatewayConversation),
        ("/lobe-gateway/v2/ws", MuxConversation),
        ("/v1/responses", ResponsesConversation),
        ("/deep-chat/ws", DeepChatConversation),
    ],
)
def test_the_table_has_exactly_the_frames_of_a_dialect(path: str, conversation: Any) -> None:
    kinds = set(conversation.commands) or {EVERY_FRAME}

    assert set(FRAMES[path]) == kinds
    assert conversation.scopes == FRAMES[path]
