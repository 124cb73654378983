"""How many feeders wait for replies at one node."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request

from api.dialects.lobe_gateway import replies
from api.dialects.lobe_gateway.feed_routes import FeedRoutes
from shared.errors import RequestError
from tests.support.hub_harness import GENERATION, Client, HubHarness, make_scope, settle
from tests.support.wait import until


class HeldFeeder:
    """A feeder whose writes wait until the test lets them go on."""

    def __init__(self, hub_harness: HubHarness) -> None:
        self.node = hub_harness.node()
        self.order = self
        self.writes = 0
        self.may_write = asyncio.Event()

    def ticket(self) -> int:
        return 0

    async def find(self, identity: Any, operation: str, **_: Any) -> str:
        return GENERATION

    async def put(self, generation_id: str, entries: Any, **_: Any) -> None:
        self.writes += 1
        await self.may_write.wait()


def question(**changes: Any) -> Request:
    """Return a POST of `request-confirmation`."""
    body = {"operationId": "op", "toolCallId": "call", "tool": {}, "timeout": 60_000, **changes}
    message = {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}
    client = Client(message)
    headers = {"content-type": "application/json"}
    return Request(make_scope(client, method="POST", headers=headers), client.receive)


@pytest.mark.parametrize("is_writing", [True, False], ids=["while it writes", "while it waits"])
async def test_a_question_above_the_limit_is_429_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, is_writing: bool
) -> None:
    monkeypatch.setattr(replies, "WAITS_MAX", 1)
    async with HubHarness() as hub_harness:
        hub_harness.log.create()
        feeder = HeldFeeder(hub_harness)
        routes = FeedRoutes(feeder)  # type: ignore[arg-type]
        waiting = asyncio.create_task(routes.request_confirmation(question()))
        await until(lambda: feeder.writes, 5, "the first question")
        if not is_writing:
            feeder.may_write.set()
            await settle()

        second = asyncio.create_task(routes.request_confirmation(question()))
        await settle()
        feeder.may_write.set()

        with pytest.raises(RequestError) as caught:
            async with asyncio.timeout(5):
                await second
        assert (caught.value.status, feeder.writes) == (429, 1)
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_a_question_that_ends_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "WAITS_MAX", 1)
    async with HubHarness() as hub_harness:
        hub_harness.log.create()
        feeder = HeldFeeder(hub_harness)
        feeder.may_write.set()
        routes = FeedRoutes(feeder)  # type: ignore[arg-type]

        for _ in range(2):
            async with asyncio.timeout(5):
                await routes.request_confirmation(question(timeout=1))

        assert feeder.writes == 2
