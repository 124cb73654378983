"""Durable Streams: owners, tokens of wakes, and generations as streams.

The official suite (tests/clients/test_durable_streams.py) tests the protocol itself.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conformance.conftest import OwnDeployment
from tests.support.client import Client
from tests.support.demo import demo_body
from tests.support.processes import Deployment
from tests.support.stream_client import Refused, StreamClient
from tests.support.wait import until

KEYS = {"api_keys": "key-of-alice-000000:alice,key-of-mallory-0000:mallory"}


@pytest.fixture(scope="module")
async def nodes(own_deployment: OwnDeployment) -> AsyncIterator[Deployment]:
    settings = {**KEYS, "stream_poll_s": "5"}
    async with own_deployment(api=2, workers=1, settings=settings) as deployment:
        yield deployment


@pytest.fixture
async def alice(nodes: Deployment) -> AsyncIterator[StreamClient]:
    async with StreamClient(nodes.urls, key="key-of-alice-000000") as client:
        yield client


@pytest.fixture
async def mallory(nodes: Deployment) -> AsyncIterator[StreamClient]:
    async with StreamClient(nodes.urls, key="key-of-mallory-0000") as client:
        yield client


@pytest.fixture
def name() -> str:
    return secrets.token_hex(6)


async def test_the_streams_of_another_owner_do_not_exist(alice, mallory, name) -> None:
    await alice.create(name, b"mine")

    assert (await mallory.read(name)).status == 404
    assert (await mallory.append(name, b"x", 0)).status == 404
    assert (await mallory.ask("DELETE", name)).status == 404
    fork = await mallory.create(f"{name}-fork", stream_forked_from=f"/v1/stream/{name}")
    assert fork.status == 404
    assert (await mallory.create(name, b"theirs")).status == 201
    assert (await alice.read(name)).body == b"mine"


async def test_without_credentials_nothing_is_served(nodes: Deployment, name: str) -> None:
    async with StreamClient(nodes.urls) as nobody:
        for method in ("GET", "PUT", "POST", "DELETE"):
            answer = await nobody.ask(method, name, b"x" if method == "POST" else b"")
            assert answer.status == 401
            assert answer.headers["x-content-type-options"] == "nosniff"


async def test_paths_of_any_kind_are_served(alice: StreamClient) -> None:
    for name in ("a%20b", "%C3%BC/%F0%9F%8C%8A", "a/b/c", "x.json", "%7Bid%7D"):
        created = await alice.create(name, b"x")
        assert created.status in (200, 201), name
        assert (await alice.read(name)).body == b"x"


async def test_the_token_of_a_wake_is_good_for_its_subscription_alone(alice, mallory, name) -> None:
    async def claim(client: StreamClient) -> dict[str, Any]:
        json_type = {"content_type": "application/json"}
        sub = f"__ds/subscriptions/{name}"
        await client.create(f"{name}/wakes", **json_type)
        body = {"type": "pull-wake", "pattern": f"{name}/in/*", "wake_stream": f"{name}/wakes"}
        created = await client.ask("PUT", sub, json.dumps(body).encode(), **json_type)
        assert created.status == 201, created
        await client.create(f"{name}/in/1", b"1", **json_type)
        claimed: dict[str, Any] = {}

        async def has_claimed() -> bool:
            found = await client.ask("POST", f"{sub}/claim", b'{"worker":"w"}', **json_type)
            claimed.update(json.loads(found.body))
            return found.status == 200

        await until(has_claimed, 5, "work to claim")
        return claimed

    hers, theirs = await claim(alice), await claim(mallory)

    async def acknowledge(token: str, claimed: dict[str, Any]) -> int:
        body = {**{key: claimed[key] for key in ("wake_id", "generation")}, "done": True}
        found = await alice.ask(
            "POST", f"__ds/subscriptions/{name}/ack", json.dumps(body).encode(),
            authorization=f"Bearer {token}", content_type="application/json",
        )  # fmt: skip
        return found.status

    forged = hers["token"].split(".")
    forged[1] = theirs["token"].split(".")[1]
    assert await acknowledge("", hers) == 401
    assert await acknowledge("key-of-alice-000000", hers) == 401
    assert await acknowledge(".".join(forged), theirs) == 401
    other_digit = "1" if hers["token"].endswith("0") else "0"
    assert await acknowledge(hers["token"][:-1] + other_digit, hers) == 401
    assert await acknowledge(hers["token"], {**hers, "wake_id": "w_other"}) == 409
    assert await acknowledge(hers["token"], hers) == 200
    assert await acknowledge(hers["token"], hers) == 409, "the wake is over"
    assert await acknowledge(theirs["token"], theirs) == 200


async def start(nodes: Deployment, *, tokens_per_s: int, tokens: int) -> str:
    async with Client(nodes.urls, key="key-of-alice-000000") as client:
        started = await client.start(demo_body(tokens, tokens_per_s))
    return str(started["id"])


async def test_a_generation_is_read_as_a_stream_in_every_mode(nodes, alice, mallory) -> None:
    generation = await start(nodes, tokens_per_s=200, tokens=60)
    path, offset, polled = f"generations/{generation}", "-1", []
    while True:
        answer = await alice.ask("GET", path, query=f"?offset={offset}&live=long-poll")
        polled += json.loads(answer.body or b"[]")
        offset = answer.offset
        if answer.headers.get("stream-closed"):
            break
    streamed = []
    async for event, data in alice.events(path, "-1"):
        if event == "data":
            streamed += json.loads(data)
        else:
            state = json.loads(data)
    read = await alice.read(path)

    assert polled == streamed == json.loads(read.body)
    assert polled[-1]["type"] == "end" and polled[0]["type"] == "start"
    assert state == {"streamNextOffset": offset, "streamClosed": True}
    assert read.headers["stream-closed"] == read.headers["stream-up-to-date"] == "true"
    middle = polled[9]
    resumed = await alice.read(path, "_".join(f"{int(n):016d}" for n in middle["id"].split("-")))
    assert json.loads(resumed.body) == polled[10:]
    head = await alice.ask("HEAD", path)
    assert head.offset == offset and head.headers["stream-closed"] == "true"
    assert (await alice.read(path, "0000000000000009_0000000000000002")).status == 410
    assert (await alice.read(path, "now")).body == b"[]"
    assert (await alice.append(path, b"x", 0)).status == 405
    assert (await mallory.read(path)).status == 404
    with pytest.raises(Refused):
        async for _ in mallory.events(path, "-1"):
            pass
