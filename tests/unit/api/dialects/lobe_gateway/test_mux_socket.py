"""Pending subscriptions of /lobe-gateway/v2/ws: faults, withdrawn wishes and the limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from api.dialects.lobe_gateway import mux_socket
from api.dialects.lobe_gateway.messages import FED
from api.dialects.lobe_gateway.mux_socket import lobe_gateway_mux_socket
from shared.errors import Unavailable
from tests.support.hub_harness import HubHarness, settle
from tests.support.socket_client import SocketClient, SocketHarness
from tests.support.wait import until

FED_DIALECT = msgspec.json.encode(
    {FED: {"operation": "op", "feeder": "f", "meta": {}, "acts": True}}
)


class Bench(SocketHarness):
    """Operations that begin to exist when the test says so."""

    def __init__(self, hub_harness: HubHarness) -> None:
        super().__init__(hub_harness, lobe_gateway_mux_socket)

    def begin(self, operation: str, number: int = 0, **changes: Any) -> None:
        generation_id = f"gen_{number:010}"
        self.log.create(generation_id, **changes)
        self.acceptor.known["anonymous", operation] = (generation_id, "")


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(mux_socket, "PENDING_LOOK_S", 0.01)
    async with HubHarness() as hub_harness:
        bench = Bench(hub_harness)
        yield bench
        await bench.leave()


def open_operations(socket_client: SocketClient) -> list[str]:
    return [
        frame["operationId"] for frame in socket_client.take() if frame["type"] == "op_lifecycle"
    ]


async def opened(socket_client: SocketClient, count: int) -> list[str]:
    """Return the operations that the client was told of, as soon as there are `count`."""
    found: list[str] = []

    def are_there() -> bool:
        found.extend(open_operations(socket_client))
        return len(found) >= count

    await until(are_there, 5, f"{count} open operations")
    return found


async def subscribed(bench: Bench, *operations: str, **members: Any) -> SocketClient:
    socket_client = await bench.socket_client()
    for operation in operations:
        await socket_client.say({"type": "subscribe", "operationId": operation, **members})
    socket_client.take()
    return socket_client


async def test_a_pending_operation_is_read_after_redis_was_away_when_it_began(
    bench: Bench,
) -> None:
    socket_client = await subscribed(bench, "op")
    bench.hub_harness.hub.hold = Unheld(bench)  # type: ignore[method-assign]

    bench.begin("op", grace_s=5.0)

    assert await opened(socket_client, 1) == ["op"]
    bench.log.tokens("Hi")
    await until(lambda: "Hi" in str(socket_client.take()), 5, "the text")


class Unheld:
    """`Hub.hold`, for which Redis is away at first."""

    def __init__(self, bench: Bench, failures: int = 2) -> None:
        self._hold = bench.hub_harness.hub.hold
        self._failures = failures

    async def __call__(self, meta: Any) -> Any:
        if self._failures:
            self._failures -= 1
            raise Unavailable("away")
        return await self._hold(meta)


class HeldFeeder:
    """A feeder whose writes wait until the test lets them go on."""

    def __init__(self) -> None:
        self.order = self
        self.marks: list[bool] = []
        self.may_write = asyncio.Event()

    def ticket(self) -> int:
        return 0

    async def put(self, generation_id: str, entries: Any, *, ticket: int) -> None:
        self.marks.append(b"true" in entries.entries[0])
        await self.may_write.wait()


@pytest.fixture
def feeder(monkeypatch: pytest.MonkeyPatch) -> HeldFeeder:
    feeder = HeldFeeder()
    monkeypatch.setattr(mux_socket.MuxConversation, "feeder", feeder)
    return feeder


async def noting_executor(bench: Bench, feeder: HeldFeeder) -> SocketClient:
    """Return a client whose subscription waits until its mark as the executor is written."""
    socket_client = await subscribed(bench, "op", executor=True)
    bench.begin("op", dialect=FED_DIALECT)
    await until(lambda: feeder.marks, 5, "the executor's mark")
    return socket_client


async def test_an_unsubscribe_while_the_executor_is_noted_is_obeyed(
    bench: Bench, feeder: HeldFeeder
) -> None:
    socket_client = await noting_executor(bench, feeder)

    await socket_client.say({"type": "unsubscribe", "operationId": "op"})
    feeder.may_write.set()
    await settle()

    assert open_operations(socket_client) == []
    assert [relay.holds for relay in bench.hub_harness.hub.relays.values()] == [0]
    assert len(feeder.marks) == 2, "the client executes no tools of this operation any more"


async def test_a_new_subscription_while_the_executor_is_noted_is_not_replaced(
    bench: Bench, feeder: HeldFeeder
) -> None:
    socket_client = await noting_executor(bench, feeder)

    await socket_client.say({"type": "subscribe", "operationId": "op", "lastEventId": "3"})
    assert open_operations(socket_client) == ["op"]
    feeder.may_write.set()
    await settle()

    assert open_operations(socket_client) == [], "the first subscription is outdated"
    assert feeder.marks == [True, False], "the new subscription is no executor's"


async def test_pending_operations_open_only_while_fewer_than_the_limit_are_open(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("api.readers.conversation", "api.dialects.lobe_gateway.mux_socket"):
        monkeypatch.setattr(f"{module}.SUBSCRIPTIONS_MAX", 3)
    socket_client = await subscribed(bench, "p1", "p2", "p3")
    for number, operation in enumerate(("s1", "s2"), 1):
        bench.begin(operation, number)
        await socket_client.say({"type": "subscribe", "operationId": operation})
    assert open_operations(socket_client) == ["s1", "s2"]

    for number, operation in enumerate(("p1", "p2", "p3"), 3):
        bench.begin(operation, number)
    assert await opened(socket_client, 1) == ["p1"]
    await settle()
    assert open_operations(socket_client) == []

    await socket_client.say({"type": "unsubscribe", "operationId": "s1"})
    assert await opened(socket_client, 1) == ["p2"]


async def test_a_subscription_counts_the_pending_operations_that_opened_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("api.readers.conversation", "api.dialects.lobe_gateway.mux_socket"):
        monkeypatch.setattr(f"{module}.SUBSCRIPTIONS_MAX", 1)
    socket_client = await subscribed(bench, "p")
    bench.begin("s", 1)
    hold, may_hold = bench.hub_harness.hub.hold, asyncio.Event()

    async def hold_later(meta: Any) -> Any:
        if meta.generation_id == "gen_0000000001":
            await may_hold.wait()
        return await hold(meta)

    bench.hub_harness.hub.hold = hold_later  # type: ignore[method-assign]
    await socket_client.say({"type": "subscribe", "operationId": "s"})
    bench.begin("p", 2)
    assert await opened(socket_client, 1) == ["p"]
    may_hold.set()

    await until(lambda: "rate_limited" in str(socket_client.take()), 5, "the refusal")
    assert bench.hub_harness.hub.relays["gen_0000000001"].holds == 0


async def test_a_refused_subscription_leaves_no_executor(bench: Bench, feeder: HeldFeeder) -> None:
    """Tools would go to this client alone, and it would not get them."""
    feeder.may_write.set()
    bench.begin("open", 1)
    bench.begin("op", 2, dialect=FED_DIALECT)
    socket_client = await subscribed(bench, "open")
    bench.hub_harness.hub.hold = Unheld(bench)  # type: ignore[method-assign]

    await socket_client.say({"type": "subscribe", "operationId": "op", "executor": True})

    assert "unavailable" in str(socket_client.take())
    await until(lambda: feeder.marks == [True, False], 5, "the mark that the client is gone")
