"""Receivers that never answer: they hold up their owner's events at most, and nobody else's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.hostile.conftest import QUICK, OwnDeployment
from tests.support.listening import stop_listening
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient
from tests.support.receiver import SECRET, Receiver
from tests.support.wait import until

HANGING = 200
SOON_S = 8.0  # one look, one attempt, and a busy machine; an attempt that hangs takes 15
KEYS = {"ann": "a-key-that-is-anns", "bob": "a-key-that-is-bobs"}


class Hanging:
    """So many hosts on loopback that take connections and never answer."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        await reader.read()  # until the caller gives up

    async def __aenter__(self) -> Hanging:
        hosts = [f"127.0.1.{number}" for number in range(1, HANGING + 1)]
        self._server = await asyncio.start_server(self._take, hosts, 0)
        names = [listener.getsockname()[:2] for listener in self._server.sockets]
        self.urls = [f"http://{host}:{port}/hook" for host, port in names]
        return self

    async def __aexit__(self, *_: object) -> None:
        await stop_listening(self._server)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
async def pair(own_deployment: OwnDeployment) -> AsyncIterator[Deployment]:
    settings = {
        "api_keys": ",".join(f"{key}:{owner}" for owner, key in KEYS.items()),
        "webhook_private": "allow",
    }
    async with own_deployment(
        api=1, workers=1, jobs=1, models=QUICK, settings=settings
    ) as deployment:
        yield deployment


async def ask(raw_client: RawClient, url: str) -> str:
    """Start an answer that is over at once, and whose end is told to `url`."""
    body = {"prompt": "x", "params": {"demo": {"tokens": 2}}}
    return await raw_client.start({**body, "webhook": {"url": url, "secret": SECRET}})


async def test_many_hosts_that_hang_do_not_delay_other_hosts(pair: Deployment) -> None:
    """Neither another owner nor, where they have answered before, the same owner's receivers."""
    async with (
        Hanging() as hanging,
        Receiver() as anns,
        Receiver() as bobs,
        RawClient(pair.urls[0], key=KEYS["ann"]) as ann,
        RawClient(pair.urls[0], key=KEYS["bob"]) as bob,
    ):
        await ask(ann, anns.url)
        await until(lambda: anns.calls, 20, "ann's first webhook")
        for url in hanging.urls:
            await ask(ann, url)
        await until(lambda: hanging.connections >= 9, 20, "places are taken")
        took = {"bob": await told_after_s(bob, bobs), "ann": await told_after_s(ann, anns)}

        assert max(took.values()) < SOON_S, took


async def told_after_s(raw_client: RawClient, receiver: Receiver) -> float:
    """How long one more event takes to its receiver."""
    before, begun_s = len(receiver.calls), time.monotonic()
    await ask(raw_client, receiver.url)
    await until(lambda: len(receiver.calls) > before, 60, "the webhook")
    return time.monotonic() - begun_s
