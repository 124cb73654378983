"""Readers' places while Redis takes calls and answers none: a frozen server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest
from starlette.types import Send

from api.dialects.native.events import respond_with_events
from api.edge.metrics import Metrics
from api.edge.reader_places import PLACE_WAIT_S, ReaderPlace, ReaderPlaces
from api.errors import TooManyConnections
from api.hub.feed import FeedState
from api.hub.hub import Hub
from api.readers.lookup import META_READ_S
from api.transport.extensions import READER_PLACE
from shared.config.settings import Settings
from shared.errors import RequestError
from shared.log.store import Store
from shared.redis.client import REDIS_ANSWER_S
from shared.redis.connections import connect
from tests.support.hub_harness import GENERATION, Client, FakeLive, make_meta, make_scope
from tests.support.redis_server import RedisServer

ANSWER_S = 5.0  # docs/protocol.md: with Redis away a request is answered within 5 s


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    server = RedisServer(tcp=True)
    server.start()
    yield server
    server.close()


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[Store]:
    settings = Settings(redis_url=f"redis://127.0.0.1:{server.port}")
    redis = connect(settings)
    yield Store(redis, settings)
    await redis.aclose()


def places_on(store: Store, node: str = "n1") -> ReaderPlaces:
    return ReaderPlaces(node, store, Metrics().limit_refusals)


async def test_a_reader_is_let_in_soon_and_counted_when_redis_answers_again(
    server: RedisServer, store: Store
) -> None:
    places = places_on(store)
    await places.take("alice", 2)
    server.freeze()
    begun_s = asyncio.get_running_loop().time()

    await places.take("alice", 2)

    assert asyncio.get_running_loop().time() - begun_s < 1.5, "less than Redis's own 2.5 s"
    server.thaw()
    await places.write(everything=True)
    with pytest.raises(TooManyConnections):
        await places_on(store, "n2").take("alice", 2)


async def test_a_request_of_an_owner_with_a_limit_is_answered_within_5_s(
    server: RedisServer, store: Store
) -> None:
    places = places_on(store)
    await places.take("alice", 10)
    places.give_back("alice")
    settings = store.settings
    async with Hub(store, settings, node="n1", open_connection=lambda _, to: FakeLive(to)) as hub:
        meta = make_meta(grace_s=10.0)  # the answer needs a call: it announces its reader
        relay = hub._open(meta)
        relay.feed.state, relay.holds = FeedState.LIVE, 1
        scope = make_scope(client := Client())
        scope[READER_PLACE] = ReaderPlace(places, "anonymous", 10)
        server.freeze()
        begun_s = asyncio.get_running_loop().time()
        with pytest.raises(RequestError, match="cannot be reached"):
            await respond_with_events(
                scope, client.receive, cast(Send, client.send),
                hub=hub, store=store, viewer="anonymous", generation_id=GENERATION,
            )  # fmt: skip

        took_s = asyncio.get_running_loop().time() - begun_s
        server.thaw()
        relay.holds = 0

    assert META_READ_S + PLACE_WAIT_S + REDIS_ANSWER_S < ANSWER_S
    assert took_s < ANSWER_S + 1.0, "so much for a busy machine; a further call takes 2.5 s"
