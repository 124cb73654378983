"""Whose generation an id names: nobody but its owner can tell, also not by a clock.

A reader with a cursor has seen the generation, so one that is absent is waited for (Redis may have
lost it a moment ago). Somebody else's is absent for the asker, and is waited for as long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.hostile.conftest import QUICK, OwnDeployment
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient, hear, tell

KEYS = "a-key-of-the-attackers:mallory,a-key-of-somebody-else:alice"
ABSENT = "gen_0000000000000000000000abcd"
NEAR_S = 0.5

Ask = Callable[[RawClient, str], Awaitable[object]]


@pytest.fixture(scope="module")
async def two_owners(own_deployment: OwnDeployment) -> AsyncIterator[Deployment]:
    settings = {"api_keys": KEYS}
    async with own_deployment(api=1, workers=1, models=QUICK, settings=settings) as deployment:
        yield deployment


async def native(asker: RawClient, named: str, accept: str = "text/event-stream") -> object:
    return (await asker.events(named, "1-1", accept)).status


async def lines(asker: RawClient, named: str) -> object:
    return await native(asker, named, "application/x-ndjson")


async def poll(asker: RawClient, named: str) -> object:
    return (await asker.poll(named, "1-1")).status


async def response(asker: RawClient, named: str) -> object:
    path = f"/v1/responses/{named.replace('gen_', 'resp_')}?stream=true&starting_after=1"
    return (await asker.get(path)).status


async def chunks(asker: RawClient, named: str) -> object:
    return (await asker.get(f"/ai-sdk/chat/{named}/stream?startIndex=1")).status


async def ag_ui(asker: RawClient, named: str) -> object:
    path = f"/ag-ui/demo/runs/{named}/stream"
    return (await asker.get(path, headers={"last-event-id": "1"})).status


async def lobe(asker: RawClient, named: str) -> object:
    async with asker.socket(path="/lobe/ws", subprotocols=None) as socket:
        await tell(socket, type="resume", messageId=named, lastEventId="1-1")
        return (await hear(socket))["code"]


async def subscription(asker: RawClient, named: str) -> object:
    async with asker.socket() as socket:
        await tell(socket, type="subscribe", id=named, last_event_id="1-1")
        return (await hear(socket))["code"]


async def snapshot(asker: RawClient, named: str) -> object:
    return (await asker.get(f"/v1/generations/{named}")).status


async def cancel(asker: RawClient, named: str) -> object:
    return (await asker.call("POST", f"/v1/generations/{named}/cancel")).status


ROUTES = [native, lines, poll, response, chunks, ag_ui, lobe, subscription, snapshot, cancel]


async def timed(ask: Ask, asker: RawClient, named: str) -> tuple[object, float]:
    began_s = time.monotonic()
    return await ask(asker, named), time.monotonic() - began_s


@pytest.fixture(scope="module")
async def answers(two_owners: Deployment) -> dict[str, list[tuple[object, float]]]:
    """The answers and delays of all routes, for three ids twice: asked at once, most wait 2 s."""
    url = two_owners.urls[0]
    async with (
        RawClient(url, key="a-key-of-somebody-else") as alice,
        RawClient(url, key="a-key-of-the-attackers") as mallory,
    ):
        body = {"prompt": "x", "params": {"demo": {"tokens": 3}}}
        foreign = await alice.finished(body)
        deleted = await alice.finished(body)
        path = f"/v1/responses/{deleted.replace('gen_', 'resp_')}"
        assert (await alice.call("DELETE", path)).status == 200

        async def asked(ask: Ask) -> list[tuple[object, float]]:
            ids = [foreign, deleted, ABSENT] * 2
            return await asyncio.gather(*(timed(ask, mallory, named) for named in ids))

        found = await asyncio.gather(*map(asked, ROUTES))
    return {ask.__name__: said for ask, said in zip(ROUTES, found, strict=True)}


@pytest.mark.parametrize("route", [ask.__name__ for ask in ROUTES])
async def test_a_foreign_id_gets_the_answer_and_the_delay_of_an_absent_id(
    answers: dict[str, list[tuple[object, float]]], route: str
):
    said = {code for code, _ in answers[route]}
    assert said in ({404}, {"not_found"})
    times_s = [took_s for _, took_s in answers[route]]
    assert max(times_s) - min(times_s) < NEAR_S
