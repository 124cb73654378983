"""A client that guesses keys must wait; a client with a valid key is answered at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import InvalidStatus

from tests.hostile.conftest import QUICK, OwnDeployment
from tests.support.raw_client import RawClient
from tests.support.wait import until

KEY = "a-key-of-sixteen-characters"
FREE = 10  # in a minute, as docs/operations.md has it
SLOWED_S = 0.9  # the pause is 2 s after some more
ANSWER_S = 5.0  # on a busy machine; 300 pauses one after the other would take minutes
ENOUGH = FREE + 6
BAD = {"Authorization": "Bearer a-key-that-nobody-has"}


@pytest.fixture(scope="module")
async def guarded(own_deployment: OwnDeployment) -> AsyncIterator[str]:
    settings = {"api_keys": f"{KEY}:me", "trusted_proxies": "127.0.0.0/8"}
    async with own_deployment(api=1, workers=1, models=QUICK, settings=settings) as deployment:
        yield deployment.api[0].url


@pytest.fixture
async def raw_client(guarded: str) -> AsyncIterator[RawClient]:
    async with RawClient(guarded, key=KEY) as raw_client:
        yield raw_client


async def guessed(raw_client: RawClient, kind: str, host: str) -> float:
    """Ask with a bad key from `host`; return how long the refusal took, s."""
    headers = {**BAD, "X-Forwarded-For": host}
    began = time.monotonic()
    if kind == "http":
        answer = await raw_client.get("/v1/models", headers=headers)
        assert (answer.status, answer.error_code) == (401, "unauthorized")
    elif kind == "handshake":
        with pytest.raises(InvalidStatus) as refused:
            async with raw_client.socket(additional_headers=headers):
                pass
        assert refused.value.response.status_code == 401
    else:
        # A browser cannot read the status: it is let in and told.
        own = {"Origin": raw_client.url}
        async with raw_client.socket(additional_headers=headers | own) as socket:
            assert json.loads(await socket.recv())["code"] == "unauthorized"
    return time.monotonic() - began


async def test_repeated_guesses_of_one_address_are_slowed(raw_client: RawClient) -> None:
    """Over each way, from an address of its own: at once, because each waits for two pauses."""
    kinds = {"http": "203.0.113.1", "handshake": "203.0.113.2", "browser": "203.0.113.3"}
    async with asyncio.TaskGroup() as group:
        for kind, host in kinds.items():
            group.create_task(is_slowed(raw_client, kind, host), name=kind)


async def is_slowed(raw_client: RawClient, kind: str, host: str) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(ENOUGH):
            group.create_task(guessed(raw_client, kind, host))

    slow = asyncio.ensure_future(guessed(raw_client, kind, host))
    # Meanwhile the same address is served where its key is good, and another one as before.
    good = {"X-Forwarded-For": host}
    async with asyncio.timeout(SLOWED_S):
        assert (await raw_client.get("/v1/models", headers=good)).status == 200
        async with raw_client.socket(additional_headers=good):
            pass
        await guessed(raw_client, kind, f"{host}0")
    assert await slow > SLOWED_S, kind


async def test_many_guesses_do_not_delay_a_client_with_a_good_key(raw_client: RawClient) -> None:
    host = "203.0.113.9"
    async with asyncio.TaskGroup() as group:
        guesses = [group.create_task(guessed(raw_client, "http", host)) for _ in range(300)]
        await until(lambda: any(task.done() for task in guesses), 10, "a first refusal")
        async with asyncio.timeout(ANSWER_S):
            answer = await raw_client.get("/v1/models", headers={"X-Forwarded-For": host})
        assert answer.status == 200
